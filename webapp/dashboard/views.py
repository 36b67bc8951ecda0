"""The home page and a project's dashboard."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils.http import urlencode
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_POST

from webapp.accounts.permissions import Action, may, may_create_projects, member, projects_of, reviewed_by
from webapp.campaigns.models import Project
from webapp.dashboard import gallery, queries
from webapp.dashboard.forms import GalleryForm
from webapp.exports.formats import FORMATS
from webapp.exports.records import records_of
from webapp.exports.views import file_of
from webapp.labelling import errors, generation
from webapp.labelling.models import Group, GroupState
from webapp.lib import bounds, options
from webapp.operations import faults
from webapp.quality import counts
from webapp.rounds import forecasts
from webapp.rounds.models import OPEN

ROUNDS = 20
DOWNLOADS = {"jsonl": "JSONL", "csv": "CSV", "zip-jsonl": gettext_lazy("a zip with the images")}


@require_GET
@login_required
def home(request: HttpRequest) -> HttpResponse:
    """The person's projects."""
    mine = projects_of(request.user).order_by("name")
    rows = Paginator(mine.filter(archived_at=None), options.PICTURE_ROWS).get_page(request.GET.get("page"))
    archived = reviewed_by(request.user).exclude(archived_at=None).order_by("name")
    context = {
        "rows": rows,
        "cards": queries.cards(request.user, list(rows)),
        "archived": Paginator(archived, options.ROWS).get_page(request.GET.get("archived")),
        "may_create": may_create_projects(request.user),
        "page": "home",
    }
    return render(request, "dashboard/home.html", context)


@require_GET
@member(Action.SEE)
def dashboard(request: HttpRequest, project: Project) -> HttpResponse:
    """Queue, likes, rounds and versions; htmx asks for the changing part only."""
    last = project.rounds.first()
    rounds = project.rounds.select_related("base_version", "forecast")
    signal = counts.groups_with_signal_since(project, None)
    missing = forecasts.groups_missing(project)
    admin, open_round = may(request.user, project, Action.ROUNDS), project.rounds.filter(state__in=OPEN).first()
    following = forecasts.next_round(project)
    context = {
        "project": project,
        "is_admin": admin,
        "counts": counts.queue_counts(project),
        "rates": counts.like_rates(project),
        "signal": signal,
        "fresh_signal": counts.groups_with_signal_since(project, last.created_at) if last else signal,
        "rounds": Paginator(rounds, ROUNDS).get_page(request.GET.get("rounds")),
        "open_round": open_round,
        "start_now": admin and open_round is None and not following.more and project.archived_at is None,
        "decisions": queries.decisions(project),
        "newest": gallery.newest(project),
        "has_prompts": project.prompts.exists(),
        "versions": project.versions.order_by("-number")[:20],
        "failed": Group.objects.filter(project=project, state=GroupState.FAILED).order_by("-id")[:5],
        "damaged": queries.damaged(project),
        "unscored": queries.unscored(project),
        "forecast": queries.forecast(project, missing),
        "next_round": following,
        "problems": faults.problems(),
        "pace": queries.pace(project, missing),
        "people_now": queries.people(project),
        "warnings": queries.warnings(project),
        "health": queries.health(project),
        "page": "dashboard",
    }
    return render(request, "dashboard/_project.html" if request.htmx else "dashboard/project.html", context)


@require_GET
@member(Action.REVIEW)
def images(request: HttpRequest, project: Project) -> HttpResponse:
    """The gallery: images with their labels, filtered, a page at a time. Without a script and in one column of rows."""
    form = GalleryForm(request.GET, project=project)
    try:
        before = bounds.ROW.of_text(request.GET["before"], "before") if request.GET.get("before") else None
    except bounds.OutOfBounds as error:
        raise Http404 from error
    found = gallery.page(project, form.wanted(), before) if form.is_valid() else None
    asked = urlencode([(name, value) for name, value in form.data.items() if name in form.fields and value])
    context = {
        "project": project,
        "form": form,
        "found": found,
        "asked": asked,
        "may_export": may(request.user, project, Action.EXPORT),
        "containers": DOWNLOADS,
        "page": "gallery",
    }
    return render(request, "dashboard/gallery.html", context, status=200 if form.is_valid() else 400)


@require_GET
@member(Action.EXPORT)
def images_download(request: HttpRequest, project: Project) -> HttpResponse:
    """The labels of what the gallery's filter leaves, in the export's format `labels`, as `container` says."""
    form = GalleryForm(request.GET, project=project)
    container = request.GET.get("container", "jsonl")
    if not form.is_valid() or container not in DOWNLOADS:
        return redirect("gallery", project.slug)
    chosen = ((match.group, match.positions) for match in gallery.matches(project, form.wanted()))
    return file_of(request, project, FORMATS["labels"], container, records_of(project, chosen))


@require_POST
@member(Action.ROUNDS)
def retry_group(request: HttpRequest, project: Project, group_id: int) -> HttpResponse:
    """Try a failed group again, or look again at one with a damaged image."""
    try:
        generation.retry_group(project, group_id)
    except errors.LabellingError as error:
        messages.error(request, str(error))
    return redirect("dashboard", project.slug)


@require_GET
@member(Action.SEE)
def series(request: HttpRequest, project: Project) -> JsonResponse:
    """Lines over time, for the charts."""
    return JsonResponse({"points": queries.series(project)})
