"""Versions: where they came from, how they score, which one generates; and blind tests of two of them."""

from __future__ import annotations

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from common import hub
from webapp.accounts.permissions import Action, may, member
from webapp.campaigns.models import Project
from webapp.lib import bounds, media, options, paths, storage, texts
from webapp.lib.streaming import streamed
from webapp.raters import terms
from webapp.rounds import comparisons, packages, queries, sharing
from webapp.rounds.models import ComparisonState, Pair
from webapp.rounds.sequential import standing


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
    tests = project.comparisons.select_related("version_a", "version_b")
    made = dict(project.rounds.filter(result_version__in=list(rows)).values_list("result_version", "number"))
    context = {
        "project": project,
        "rows": rows,
        "versions": [(v, made.get(v.pk)) for v in rows],
        "numbers": versions.values_list("number", flat=True)[: queries.MOST],
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


@require_POST
@member(Action.VERSIONS)
def start_comparison(request: HttpRequest, project: Project) -> HttpResponse:
    """Open a blind test of the versions `a` and `b`."""
    form = request.POST
    try:
        a, b = (bounds.NUMBER.of_text(form.get(name), name) for name in ("a", "b"))
        most = bounds.VOTES.of_text(form.get("most_votes"), "most_votes")
        made = comparisons.start(project, a, b, request.user, most_votes=most)
    except (comparisons.ComparisonError, bounds.OutOfBounds) as error:
        messages.error(request, str(error))
        return redirect("versions", project.slug)
    return redirect("comparison", project.slug, made.number)


@require_GET
@member(Action.SEE)
def comparison(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """Where a test stands; htmx asks for the changing part only."""
    found = get_object_or_404(project.comparisons.select_related("version_a", "version_b"), number=number)
    now = standing(found.wins_a, found.wins_b, alpha=found.alpha, margin=found.margin)
    votes = found.wins_a + found.wins_b + found.ties
    context = {
        "project": project,
        "comparison": found,
        "now": now,
        "needed": round(1 / found.alpha),
        "votes": votes,
        "open": found.state == ComparisonState.OPEN,
        "winner": {"a": found.version_a, "b": found.version_b}.get(found.verdict),
        "failed": found.pairs.filter(state="failed").order_by("-id").first(),
        "bar": {"low": 1000 * now.low, "width": 1000 * (now.high - now.low), "rate": 1000 * (now.rate or 0.5)},
        "page": "versions",
    }
    template = "rounds/_comparison.html" if request.htmx else "rounds/comparison.html"
    return render(request, template, context)


@require_POST
@member(Action.VERSIONS)
def stop_comparison(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """End a test without a verdict."""
    comparisons.stop(get_object_or_404(project.comparisons, number=number), request.user)
    return redirect("comparison", project.slug, number)


# ---------------------------------------------------------------- for the people who compare


@require_GET
@member(Action.VOTE)
def compare(request: HttpRequest, project: Project) -> HttpResponse:
    """The page of the oldest open test; its script asks for pairs. Nothing on it tells the versions."""
    if not terms.agreed(request.user, project):
        return redirect("agree", project.slug)
    found = project.comparisons.filter(state=ComparisonState.OPEN).order_by("number").first()
    return render(request, "rounds/compare.html", {"project": project, "comparison": found, "page": "compare"})


def _pair(project: Project, pair: Pair) -> dict:
    def url(side: str) -> str:
        return reverse("pair-image", args=[project.slug, pair.pk, side])

    return {"pair": pair.pk, "prompt": pair.prompt.text, "left": url("left"), "right": url("right")}


@require_GET
@member(Action.VOTE)
def next_pairs(request: HttpRequest, project: Project, number: int) -> JsonResponse:
    """The pairs on this person's screen, topped up; `open` false when the test has ended."""
    found = get_object_or_404(project.comparisons.select_related("project"), number=number)
    agreed = terms.agreed(request.user, project)
    pairs = comparisons.lease_pairs(request.user, found, options.PREFETCH) if agreed else []
    return JsonResponse({"open": found.state == ComparisonState.OPEN, "pairs": [_pair(project, p) for p in pairs]})


@require_POST
@member(Action.VOTE)
def vote(request: HttpRequest, project: Project, number: int) -> JsonResponse:
    """Body `{pair, choice: left|right|tie, seconds}`. The answer says nothing about the standing."""
    found = get_object_or_404(project.comparisons, number=number)
    try:
        body = texts.body(request)
        if not isinstance(body, dict):
            raise comparisons.ComparisonError(_("body: send a JSON object"))
        pair, seconds = (
            bounds.ROW.whole(body.get("pair"), "pair"),
            bounds.SECONDS.real(body.get("seconds", 0), "seconds"),
        )
        comparisons.vote(request.user, found, pair, str(body.get("choice")), seconds=seconds)
    except (comparisons.ComparisonError, texts.Unstorable, bounds.OutOfBounds) as error:
        return JsonResponse({"error": str(error)}, status=400)
    except ValueError:
        return JsonResponse({"error": "body: send a JSON object"}, status=400)
    return JsonResponse({"saved": pair})


@require_GET
@member(Action.VOTE)
def pair_image(request: HttpRequest, project: Project, pair_id: int, side: str) -> HttpResponse:
    """One side of a pair, for the person who has it on screen and for reviewers."""
    pair = get_object_or_404(Pair.objects.select_related("comparison"), pk=pair_id, comparison__project=project)
    if pair.leased_to_id != request.user.pk and not may(request.user, project, Action.SEE):
        raise Http404
    name = "a" if (side == "left") == pair.a_is_left else "b"
    # Never a redirect and no file name: either would tell the version.
    file = paths.pair_image(project.pk, pair.pk, name)
    return media.picture(file, cache="private, max-age=86400, immutable", may_redirect=False)
