"""Blind tests: their results, and the page of the people who compare."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from webapp.accounts.permissions import Action, may, member
from webapp.campaigns import sizes
from webapp.campaigns.models import Project
from webapp.lib import bounds, media, options, paths, texts
from webapp.raters import terms
from webapp.rounds import comparisons, standings
from webapp.rounds.models import Comparison, ComparisonState, Pair


@require_POST
@member(Action.VERSIONS)
def start_comparison(request: HttpRequest, project: Project) -> HttpResponse:
    """Open a blind test of the `versions`, `shown` at once."""
    form = request.POST
    try:
        numbers = [bounds.NUMBER.of_text(text, "versions") for text in form.getlist("versions")]
        shown = bounds.SHOWN.of_text(form.get("shown", "2"), "shown")
        most = bounds.VOTES.of_text(form.get("most_votes"), "most_votes")
        made = comparisons.start(project, sorted(numbers), request.user, shown=shown, most_votes=most)
    except (comparisons.ComparisonError, bounds.OutOfBounds) as error:
        messages.error(request, str(error))
        return redirect("versions", project.slug)
    return redirect("comparison", project.slug, made.number)


@require_GET
@member(Action.SEE)
def comparison(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """Where a test stands; htmx asks for the changing part only."""
    found = get_object_or_404(project.comparisons.select_related("version_a", "version_b"), number=number)
    two = len(found.versions) == 2
    context = {
        "project": project,
        "comparison": found,
        "numbers": ", ".join(str(v.number) for v in found.versions),
        "open": found.state == ComparisonState.OPEN,
        "failed": found.pairs.filter(state="failed").order_by("-id").first(),
        "page": "versions",
        "two": two,
        **(_two(found) if two else _many(found)),
    }
    template = "rounds/_comparison.html" if request.htmx else "rounds/comparison.html"
    return render(request, template, context)


def _two(found: Comparison) -> dict:
    now = standings.of_two(found)
    return {
        "now": now,
        "needed": round(1 / found.alpha),
        "bar": {"low": 1000 * now.low, "width": 1000 * (now.high - now.low), "rate": 1000 * (now.rate or 0.5)},
    }


def _many(found: Comparison) -> dict:
    """The table, with each score and interval as a bar of a common scale, 0 to 1000."""
    table = standings.table(found)
    lowest, highest = min(row.low for row in table.rows), max(row.high for row in table.rows)

    def at(score: float) -> float:
        return 1000 * (score - lowest) / (highest - lowest)

    bars = [
        {"low": at(row.low), "width": at(row.high) - at(row.low), "rate": max(0, at(row.score) - 4)}
        for row in table.rows
    ]
    return {"table": table, "rows": list(zip(table.rows, bars, strict=True))}


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
    places = range(found.shown) if found and found.shown > 2 else None
    context = {"project": project, "comparison": found, "places": places, "page": "compare"}
    return render(request, "rounds/compare.html", context)


def _pair(project: Project, pair: Pair) -> dict:
    images = [reverse("pair-image", args=[project.slug, pair.pk, position]) for position in range(len(pair.sides))]
    return {"pair": pair.pk, "prompt": pair.prompt.text, "images": images, "size": sizes.ratio(pair.image_size)}


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
    """Body `{pair, order, seconds}`; see `comparisons.vote`. The answer says nothing about the standing."""
    found = get_object_or_404(project.comparisons, number=number)
    try:
        body = texts.body(request)
        if not isinstance(body, dict):
            raise comparisons.ComparisonError(_("body: send a JSON object"))
        pair, seconds = (
            bounds.ROW.whole(body.get("pair"), "pair"),
            bounds.SECONDS.real(body.get("seconds", 0), "seconds"),
        )
        comparisons.vote(request.user, found, pair, body.get("order"), seconds=seconds)
    except (comparisons.ComparisonError, texts.Unstorable, bounds.OutOfBounds) as error:
        return JsonResponse({"error": str(error)}, status=400)
    except ValueError:
        return JsonResponse({"error": "body: send a JSON object"}, status=400)
    return JsonResponse({"saved": pair})


@require_GET
@member(Action.VOTE)
def pair_image(request: HttpRequest, project: Project, pair_id: int, position: int) -> HttpResponse:
    """One image of a pair, from 0 on the left, for the person who has it on screen and for reviewers."""
    pair = get_object_or_404(Pair.objects.select_related("comparison"), pk=pair_id, comparison__project=project)
    if pair.leased_to_id != request.user.pk and not may(request.user, project, Action.SEE):
        raise Http404
    if position >= len(pair.sides):
        raise Http404
    # Never a redirect and no file name: either would tell the version.
    file = paths.pair_image(project.pk, pair.pk, pair.sides[position])
    return media.picture(file, cache="private, max-age=86400, immutable", may_redirect=False)
