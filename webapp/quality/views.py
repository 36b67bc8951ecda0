"""For reviewers: how people label, and a last word on any group."""

from __future__ import annotations

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from webapp.accounts.permissions import Action, member
from webapp.campaigns.models import Project
from webapp.labelling.models import Group
from webapp.lib import bounds, options
from webapp.lib.dispatch import enqueue
from webapp.quality import counts, queries, services
from webapp.quality.models import GoldKind

WORDS = {"like": True, "dislike": False, "back": None}


@member(Action.REVIEW)
def quality(request: HttpRequest, project: Project) -> HttpResponse:
    """People, agreement and gold groups; POST asks a worker to measure now."""
    if request.method == "POST":
        enqueue("measure_quality", project.pk)
        messages.info(request, _("A worker is measuring; the page shows it when it is done."))
        return redirect("quality", project.slug)
    gold = project.gold_groups.filter(active=True).select_related("group__prompt").prefetch_related("answers")
    context = {
        "project": project,
        "rows": Paginator(queries.people(project), options.LONG_ROWS).get_page(request.GET.get("page")),
        "latest": project.qualities.first(),
        "answers": counts.answers_a_group(project),
        "reasons": queries.reasons(project),
        "judges": project.oracle_qualities.all(),
        "gold": Paginator(gold.order_by("-id"), options.LONG_ROWS).get_page(request.GET.get("gold")),
        "page": "quality",
    }
    return render(request, "quality/quality.html", context)


@require_GET
@member(Action.REVIEW)
def agreement(request: HttpRequest, project: Project) -> JsonResponse:
    """Alpha over time, for the chart."""
    return JsonResponse({"points": queries.alpha_over_time(project)})


@require_GET
@member(Action.REVIEW)
def review_list(request: HttpRequest, project: Project) -> HttpResponse:
    """Labelled groups, a page at a time."""
    which = request.GET.get("show", "all")
    if which not in queries.ORDERS:
        raise Http404
    try:
        before = bounds.ROW.of_text(request.GET["before"], "before") if request.GET.get("before") else None
    except bounds.OutOfBounds as error:
        raise Http404 from error
    groups = queries.to_review(project, which, before)
    context = {
        "project": project,
        "groups": groups,
        "which": which,
        "orders": [(name, label) for name, (label, _rows) in queries.ORDERS.items()],
        "next": groups[-1].pk if len(groups) == 24 else None,
        "page": "review",
    }
    return render(request, "quality/review_list.html", context)


@member(Action.REVIEW)
def review(request: HttpRequest, project: Project, group_id: int) -> HttpResponse:
    """A group with every label and its history. POST: `word-<image id>` (like, dislike, back) and `reason`."""
    group = get_object_or_404(
        Group.objects.select_related("prompt", "version", "project"), pk=group_id, project=project
    )
    status, error = 200, None
    if request.method == "POST":
        try:
            services.overrule(request.user, project, _words(request), request.POST.get("reason", ""))
        except services.QualityError as refused:
            status, error = 400, str(refused)
        else:
            messages.success(request, _("Your word counts from now on. The labels are kept as they were given."))
            return redirect("review", project.slug, group.pk)
    context = {"project": project, "group": group, "error": error, "page": "review", **queries.review(group)}
    return render(request, "quality/review.html", context, status=status)


def _words(request: HttpRequest) -> dict[int, bool | None]:
    chosen = {}
    for name, value in request.POST.items():
        if name.startswith("word-") and value in WORDS:
            try:
                chosen[bounds.ROW.of_text(name.removeprefix("word-"), name)] = WORDS[value]
            except bounds.OutOfBounds as error:
                raise services.QualityError(str(error)) from error
    return chosen


@require_POST
@member(Action.REVIEW)
def gold(request: HttpRequest, project: Project, group_id: int) -> HttpResponse:
    """Make the group gold with its rewards as they are (`action=make`), or retire it."""
    group = get_object_or_404(Group.objects.select_related("project"), pk=group_id, project=project)
    try:
        if request.POST.get("action") == "retire":
            services.retire_gold(project, get_object_or_404(project.gold_groups, group=group).pk, request.user)
            messages.info(request, _("The group is shown to nobody any more."))
        else:
            settled = group.consensus.rewards if hasattr(group, "consensus") else []
            answer = {p: r > 0.5 for p, r in enumerate(settled) if r is not None and abs(r - 0.5) > 0.2}
            services.make_gold(group, GoldKind.REVIEW, answer, by=request.user)
            messages.success(request, _("People who have not seen this group may be given it from now on."))
    except services.QualityError as refused:
        messages.error(request, str(refused))
    return redirect("review", project.slug, group.pk)
