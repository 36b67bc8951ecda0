"""Try it: images of any prompt by versions side by side."""

from __future__ import annotations

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from webapp.accounts.permissions import Action, may, member
from webapp.campaigns import services as campaigns
from webapp.campaigns import sizes
from webapp.campaigns.models import Project, Split
from webapp.lib import media, options, paths
from webapp.rounds import trials
from webapp.rounds.forms import TrialForm
from webapp.rounds.models import Trial

SUGGESTED = 200  # of the project's prompts
PREFILLED = ("prompt", "seeds", "steps", "guidance", "size")


@require_GET
@member(Action.SEE)
def try_it(request: HttpRequest, project: Project) -> HttpResponse:
    """The form, filled with what the query says, and the trials that are kept."""
    given = {name: request.GET[name][:1000] for name in PREFILLED if request.GET.get(name)}
    if "versions" in request.GET:
        given["versions"] = request.GET.getlist("versions")[: trials.MOST_SIDES]
    given["base"] = "base" in request.GET
    return _page(request, project, TrialForm(initial=given, project=project))


def _page(request: HttpRequest, project: Project, form: TrialForm, *, status: int = 200) -> HttpResponse:
    context = {
        "project": project,
        "form": form,
        "rows": Paginator(project.trials.select_related("made_by"), options.ROWS).get_page(request.GET.get("page")),
        "prompts": project.prompts.order_by("pk").values_list("text", flat=True)[:SUGGESTED],
        "days": options.TRIAL_KEPT.days,
        "page": "try",
    }
    return render(request, "rounds/try.html", context, status=status)


@require_POST
@member(Action.VERSIONS)
def start(request: HttpRequest, project: Project) -> HttpResponse:
    """Queue what the form says and go to its page."""
    form = TrialForm(request.POST, project=project)
    if form.is_valid():
        data = form.cleaned_data
        try:
            made = trials.start(
                project,
                data["prompt"],
                versions=[int(number) for number in data["versions"]],
                base=(data["steps"], data["guidance"]) if data["base"] else None,
                seeds=data["seeds"],
                size=data["size"],
                by=request.user,
            )
            return redirect("trial", project.slug, made.pk)
        except trials.TrialError as error:
            form.add_error(None, str(error))
    return _page(request, project, form, status=400)


@require_GET
@member(Action.SEE)
def trial(request: HttpRequest, project: Project, trial_id: int) -> HttpResponse:
    """The images as far as they are made; htmx asks for the changing part only."""
    found = _found(project, trial_id)
    sides = trials.sides(found)
    rows = [
        {"seed": seed, "images": [{"side": side, "column": n, "made": n < found.made} for n, side in enumerate(sides)]}
        for seed in found.seeds
    ]
    context = {
        "project": project,
        "trial": found,
        "rows": rows,
        "sides": sides,
        "ratio": sizes.ratio(found.image_size),
        "pending": found.state in trials.PENDING,
        "ahead": trials.ahead(found),
        "slow": trials.is_slow(found),
        "known": project.prompts.filter(text=found.prompt).exists(),
        "splits": Split.choices,
        "again": f"{reverse('try', args=[project.slug])}?{_query(found)}",
        "until": found.created_at + options.TRIAL_KEPT,
        "is_admin": may(request.user, project, Action.VERSIONS),
        "page": "try",
    }
    return render(request, "rounds/_trial.html" if request.htmx else "rounds/trial.html", context)


def _query(found: Trial) -> str:
    """The form with the same prompt and sides, and other seeds."""
    asked = [("prompt", found.prompt), ("size", found.image_size)]
    for side in found.sides:
        if side["version"] is None:
            asked += [("base", "on"), ("steps", side["steps"]), ("guidance", f"{side['guidance']:g}")]
        else:
            asked.append(("versions", side["version"]))
    return urlencode(asked)


@require_POST
@member(Action.VERSIONS)
def cancel(request: HttpRequest, project: Project, trial_id: int) -> HttpResponse:
    """End a trial that is not made yet."""
    if trials.cancel(project, trial_id) is None:
        raise Http404
    return redirect("trial", project.slug, trial_id)


@require_POST
@member(Action.PROMPTS)
def add_prompt(request: HttpRequest, project: Project, trial_id: int) -> HttpResponse:
    """Make the trial's prompt one of the project's, in `split`."""
    found = _found(project, trial_id)
    row = {"prompt": found.prompt, "split": request.POST.get("split", Split.TRAIN)}
    try:
        campaigns.add_prompts(project, [row], by=request.user)
    except campaigns.CampaignError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, _("It is one of the project's prompts."))
    return redirect("trial", project.slug, trial_id)


@require_GET
@member(Action.SEE)
def image(request: HttpRequest, project: Project, trial_id: int, column: int, row: int) -> HttpResponse:
    """One image, once it is made."""
    found = _found(project, trial_id)
    if column >= found.made or row >= len(found.seeds):
        raise Http404
    file = paths.trial_image(project.pk, found.pk, column, row)
    return media.picture(file, cache="private, max-age=604800, immutable")


def _found(project: Project, trial_id: int) -> Trial:
    return get_object_or_404(project.trials.select_related("made_by", "project"), pk=trial_id)
