"""Versions: where they came from, how they score, which one generates."""

from __future__ import annotations

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from common import hub
from webapp.accounts.permissions import Action, may, member
from webapp.campaigns.models import Project
from webapp.lib import bounds, media, options, storage
from webapp.lib.streaming import streamed
from webapp.rounds import packages, queries, sharing


@require_GET
@member(Action.SEE)
def versions(request: HttpRequest, project: Project) -> HttpResponse:
    """Lineage, scores, and what an admin may do with each version; htmx asks for what is on its way to the hub only."""
    is_admin = may(request.user, project, Action.VERSIONS)
    shared = {"project": project, "sharings": sharing.newest(project) if is_admin else []}
    if request.htmx:
        return render(request, "rounds/_sharings.html", shared)
    versions = project.versions.select_related("parent").order_by("-number")
    rows = Paginator(versions, options.ROWS).get_page(request.GET.get("page"))
    tests = project.comparisons.select_related("version_a", "version_b").prefetch_related("entrants__version")
    made = dict(project.rounds.filter(result_version__in=list(rows)).values_list("result_version", "number"))
    context = {
        "project": project,
        "rows": rows,
        "versions": [(v, made.get(v.pk)) for v in rows],
        "numbers": (numbers := list(versions.values_list("number", flat=True)[: queries.MOST])),
        "compared": {*numbers[:1], project.active_version and project.active_version.number},
        "bounds": bounds,
        "drawing": queries.lineage(project),
        "can_push": hub.can_push(),
        "comparisons": Paginator(tests, options.ROWS).get_page(request.GET.get("tests")),
        "page": "versions",
        **shared,
    }
    return render(request, "rounds/versions.html", context)


@require_GET
@member(Action.SEE)
def version_scores(request: HttpRequest, project: Project) -> JsonResponse:
    """Scores with intervals, for the chart."""
    return JsonResponse({"versions": queries.scores(project)})


@require_GET
@member(Action.VERSIONS)
def download_lora(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """The version's LoRA as diffusers and ComfyUI read it."""
    return _download(request, project, number, "safetensors")


@require_GET
@member(Action.VERSIONS)
def download_package(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """A zip of the LoRA, its model card and the pictures of its round."""
    return _download(request, project, number, "zip")


def _download(request: HttpRequest, project: Project, number: int, ending: str) -> HttpResponse:
    version = get_object_or_404(project.versions, number=number)
    try:
        pieces = packages.lora(version) if ending == "safetensors" else packages.archive(version)
    except storage.Unreachable as error:
        return media.unreachable(error)
    except ValueError as error:
        raise Http404 from error
    kind = "application/zip" if ending == "zip" else "application/octet-stream"
    return streamed(iter(pieces), content_type=kind, name=f"{project.slug}-version-{number}.{ending}")


@require_POST
@member(Action.VERSIONS)
def share_version(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """Have a version sent to `repository` of the Hugging Face hub, where everybody sees it if `public` is given."""
    version = get_object_or_404(project.versions, number=number)
    private = "public" not in request.POST
    try:
        made = sharing.ask(version, request.POST.get("repository", "").strip(), private=private, by=request.user)
    except sharing.SharingError as error:
        messages.error(request, str(error))
    else:
        about = {"n": number, "repository": made.repository}
        messages.success(request, _("Version %(n)s is on its way to %(repository)s.") % about)
    return redirect("versions", project.slug)
