"""The home page and a project's dashboard."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from webapp.accounts.permissions import Action, managed_by, may, may_create_projects, member, projects_of, reviewed_by
from webapp.campaigns.models import Project
from webapp.dashboard import queries
from webapp.labelling import errors, generation
from webapp.labelling.models import Group, GroupState
from webapp.lib import options
from webapp.operations import faults
from webapp.quality import counts
from webapp.rounds import forecasts
from webapp.rounds.models import OPEN, Comparison, ComparisonState, VersionStatus

ROUNDS = 20
DRAFTS = 5  # the versions page has the others


@require_GET
@login_required
def home(request: HttpRequest) -> HttpResponse:
    """The person's projects."""
    mine = projects_of(request.user).order_by("name")
    rows = Paginator(mine.filter(archived_at=None), options.ROWS).get_page(request.GET.get("page"))
    archived = reviewed_by(request.user).exclude(archived_at=None).order_by("name")
    managed = managed_by(request.user, list(rows))
    compared = Comparison.objects.filter(state=ComparisonState.OPEN, project__in=list(rows))
    compared = set(compared.values_list("project", flat=True))
    context = {
        "rows": rows,
        "projects": [(p, p.pk in managed, p.pk in compared) for p in rows],
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
    context = {
        "project": project,
        "is_admin": may(request.user, project, Action.ROUNDS),
        "counts": counts.queue_counts(project),
        "rates": counts.like_rates(project),
        "signal": signal,
        "fresh_signal": counts.groups_with_signal_since(project, last.created_at) if last else signal,
        "rounds": Paginator(rounds, ROUNDS).get_page(request.GET.get("rounds")),
        "open_round": project.rounds.filter(state__in=OPEN).first(),
        "drafts": project.versions.filter(status=VersionStatus.DRAFT).order_by("-number")[:DRAFTS],
        "versions": project.versions.order_by("-number")[:20],
        "failed": Group.objects.filter(project=project, state=GroupState.FAILED).order_by("-id")[:5],
        "damaged": queries.damaged(project),
        "unscored": queries.unscored(project),
        "forecast": queries.forecast(project, missing),
        "next_round": forecasts.next_round(project),
        "problems": faults.problems(),
        "pace": queries.pace(project, missing),
        "people_now": queries.people(project),
        "warnings": queries.warnings(project),
        "health": queries.health(project),
        "page": "dashboard",
    }
    return render(request, "dashboard/_project.html" if request.htmx else "dashboard/project.html", context)


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
