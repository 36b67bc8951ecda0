"""Starting, watching and judging rounds."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from webapp.accounts.permissions import Action, member
from webapp.campaigns.models import Project
from webapp.lib import media, paths, storage
from webapp.rounds import queries, services
from webapp.rounds.comparing import comparison
from webapp.rounds.forms import RoundForm
from webapp.rounds.models import OPEN, RoundState, TrainingRound


@member(Action.ROUNDS)
def start(request: HttpRequest, project: Project) -> HttpResponse:
    """The form, and on POST the start of a round."""
    defaults = services.check_settings(project.round_settings)
    form = RoundForm(request.POST or None, defaults=defaults, initial={"key": services.new_key()})
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
    return render(request, "rounds/start.html", {"project": project, "form": form, "page": "rounds"}, status=status)


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
        "seen": comparison(training) if training.state == RoundState.DONE else None,
        "page": "rounds",
    }


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
