"""Starting, watching and judging rounds."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from webapp.accounts.permissions import Action, member
from webapp.campaigns.models import Project
from webapp.labelling import queries as labelling
from webapp.lib import media, paths, storage
from webapp.quality import counts
from webapp.rounds import forecasts, memory, plans, queries, services
from webapp.rounds.comparing import comparison
from webapp.rounds.forms import RoundForm
from webapp.rounds.models import OPEN, RoundState, TrainingRound

LATE = timedelta(seconds=20)  # a worker that is free has answered by then


@member(Action.ROUNDS)
def start(request: HttpRequest, project: Project) -> HttpResponse:
    """The form, and on POST the start of a round."""
    defaults = services.check_settings(project.round_settings)
    presets = plans.presets(defaults)
    chosen = next((p for p in presets if p.name == request.GET.get("preset")), presets[1])
    filled = {**defaults, **chosen.changes}
    form = RoundForm(request.POST or None, defaults=filled, initial={"key": services.new_key()})
    if request.method == "POST" and form.is_valid():
        try:
            training = services.start_round(
                project, form.settings(), idempotency_key=form.cleaned_data["key"], user=request.user
            )
        except services.RoundError as error:
            form.add_error(None, str(error))
        else:
            return redirect("round", project.slug, training.number)
    status = 400 if request.method == "POST" else 200
    context = {
        "project": project,
        "form": form,
        "presets": [(p, p.changes.get("updates", defaults["updates"])) for p in presets],
        "chosen": chosen,
        "forecast": forecasts.next_round(project),
        "signal": counts.groups_with_signal_since(project, None),
        "own": labelling.own_with_signal(project),
        "open_round": project.rounds.filter(state__in=OPEN).first(),
        "page": "rounds",
        **_memory_context(project),
    }
    return render(request, "rounds/start.html", context, status=status)


@require_GET
@member(Action.ROUNDS)
def plan(request: HttpRequest, project: Project) -> HttpResponse:
    """A part of the form's page: time and memory of a round with the query's settings, as far as they are known."""
    form = RoundForm({**request.GET.dict(), "key": "plan"})
    found = None
    if form.is_valid():
        with suppress(services.RoundError):  # said when the round is started
            found = plans.ask(project, services.check_settings(form.settings()))
    context = {
        "project": project,
        "plan": found,
        "estimate": plans.estimate(found) if found else None,
        "late": found is not None and timezone.now() - found.asked_at > LATE,
    }
    return render(request, "rounds/_plan.html", context)


@require_GET
@member(Action.ROUNDS)
def card(request: HttpRequest, project: Project) -> HttpResponse:
    """A part of a page: what makes a round fit onto the `card`, with the query's settings or else the project's."""
    chosen, found = request.GET.get("card", ""), None
    if chosen in (plans.WORKER, *plans.CARDS):
        form = RoundForm({**request.GET.dict(), "key": "card"}) if "updates" in request.GET else None
        if form is None or form.is_valid():
            values = project.round_settings if form is None else form.settings()
            with suppress(services.RoundError):
                found = plans.ask(project, services.check_settings(values), chosen)
    options = found.values["options"] if found and found.values else None
    context = {
        "project": project,
        "card": chosen,
        "plan": found,
        "estimate": plans.estimate(found) if found else None,
        "fits": options is not None,
        "words": memory.words(options or {}),
        "taken": options == project.round_memory,
        "late": found is not None and timezone.now() - found.asked_at > LATE,
    }
    return render(request, "rounds/_card.html", context)


@require_http_methods(["GET", "POST"])
@member(Action.ROUNDS)
def round_memory(request: HttpRequest, project: Project) -> HttpResponse:
    """A part of a page: what the project's rounds save memory by. On POST it is chosen: a plan's options (`plan`, its
    id), or `choice=auto|machine`; htmx gets what to show of it, and the page's plans are made again."""
    problem = ""
    if request.method == "POST":
        sent = request.POST
        try:
            memory.choose(project, request.user, choice=sent.get("choice", ""), plan=sent.get("plan", ""))
        except services.RoundError as error:
            problem = str(error)
        if not request.htmx:
            messages.error(request, problem) if problem else None
            return redirect("start-round", project.slug)
    template = "rounds/_memory_now.html" if request.method == "POST" else "rounds/_memory.html"
    response = render(request, template, {"project": project, "problem": problem, **_memory_context(project)})
    if request.method == "POST" and not problem:
        response["HX-Trigger"] = "memory-chosen"
    return response


def _memory_context(project: Project) -> dict:
    """What the part of a page about memory shows before a card is chosen."""
    return {"memory_words": memory.words(project.round_memory), "cards": plans.CARDS, "worker": plans.WORKER}


def _context(project: Project, number: int) -> dict:
    training = get_object_or_404(TrainingRound.objects.select_related("forecast"), project=project, number=number)
    rows = [
        {"name": name, "before": before, "after": training.scores_after.get(name), "change": None}
        for name, before in training.scores_before.items()
    ]
    for row in rows:
        if row["after"] is not None:
            row["change"] = row["after"] - row["before"]
    return {
        "project": project,
        "round": training,
        "open": training.state in OPEN,
        "percent": round(100 * training.step / training.total) if training.total else 0,
        "scores": rows,
        "look": queries.first_look(training),
        "taught": training.state == RoundState.DONE and storage.store().exists(paths.grid(training.pk, "surrogate")),
        "made": queries.made(training) if training.state not in OPEN else None,
        "try_query": _versions_query(training),
        "seen": comparison(training) if training.state == RoundState.DONE else None,
        "page": "rounds",
    }


def _versions_query(training: TrainingRound) -> str:
    """The page Try it with both versions."""
    versions = [v.number for v in (training.base_version, training.result_version) if v is not None]
    return urlencode([("versions", number) for number in versions])


@require_GET
@member(Action.SEE)
def detail(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """A round: progress while it runs, the comparison when it is done. htmx asks for the changing part only."""
    template = "rounds/_round.html" if request.htmx else "rounds/detail.html"
    return render(request, template, _context(project, number))


@require_GET
@member(Action.SEE)
def metrics(request: HttpRequest, project: Project, number: int) -> JsonResponse:
    """Every metric by step, for the charts."""
    training = get_object_or_404(TrainingRound, project=project, number=number)
    return JsonResponse({"steps": [{"step": m.step, **m.values} for m in training.metrics.all()]})


@require_POST
@member(Action.ROUNDS)
def cancel(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """Ask the round to stop."""
    services.cancel_round(get_object_or_404(TrainingRound, project=project, number=number).pk)
    return redirect("round", project.slug, number)


@require_POST
@member(Action.VERSIONS)
def decide(request: HttpRequest, project: Project, version_id: int) -> HttpResponse:
    """Publish a version or keep the old one (`decision=publish|keep`)."""
    get_object_or_404(project.versions, pk=version_id)
    if request.POST.get("decision") == "publish":
        version = services.publish_version(project, version_id, by=request.user)
        messages.success(request, _("Version %(n)s is published. New groups come from it.") % {"n": version.number})
    else:
        try:
            version = services.keep_old_version(project, version_id, by=request.user)
            messages.info(request, _("Version %(n)s stays out; the published version goes on.") % {"n": version.number})
        except services.RoundError as error:
            messages.error(request, str(error))
    return redirect("dashboard", project.slug)


@require_GET
@member(Action.SEE)
def grid(request: HttpRequest, project: Project, number: int, which: str) -> HttpResponse:
    """The picture of the old or the new version, or of the surrogate, from the same noise."""
    training = get_object_or_404(TrainingRound, project=project, number=number)
    return media.picture(paths.grid(training.pk, which))
