"""Blind tests by program: start, read, stop. Nobody votes by API, since a program would see which image is whose."""

from __future__ import annotations

from django.shortcuts import get_object_or_404
from ninja import Path, Router

from webapp.accounts.permissions import Action
from webapp.api import schemas as s
from webapp.api.auth import may_administer, may_read
from webapp.api.contract import After, Limit, page
from webapp.rounds import comparisons, standings
from webapp.rounds.models import Comparison

router = Router(tags=["blind tests"])


def _test(c: Comparison) -> dict:
    names = ("number", "state", "shown", "most_votes", "votes", "alpha", "created_at", "finished_at")
    return {
        **{name: getattr(c, name) for name in names},
        "versions": [v.number for v in c.versions],
        "winner": c.winner.number if c.winner else None,
        "same": c.verdict == "same",
    }


def _result(c: Comparison) -> dict:
    def against(cell: standings.Cell) -> dict:
        said = {"verdict": cell.verdict, "answers": cell.of, "won": cell.won, "expected": cell.expected}
        return {"version": cell.other.number, **said}

    def ranked(row: standings.Row) -> dict:
        numbers = {name: getattr(row, name) for name in ("score", "low", "high", "answers")}
        return {"version": row.version.number, **numbers, "against": [against(cell) for cell in row.cells if cell]}

    return {**_test(c), "ranking": [ranked(row) for row in standings.table(c).rows]}


@router.get("/comparisons", auth=may_read(Action.SEE), response=s.Page[s.TestOut])
def list_comparisons(request, slug: Path[str], after: int = After, limit: int = Limit):
    """The blind tests by number."""
    rows = request.auth.project.comparisons.select_related("version_a", "version_b")
    return page(rows.prefetch_related("entrants__version"), after, limit, _test, key="number")


@router.post("/comparisons", auth=may_administer(Action.VERSIONS), response=s.TestOut)
def start_comparison(request, slug: Path[str], body: s.TestIn):
    """Start a blind test of versions; people compare on the project's pages."""
    return _test(
        comparisons.start(
            request.auth.project, body.versions, request.auth.user, shown=body.shown, most_votes=body.most_votes
        )
    )


@router.get("/comparisons/{int:number}", auth=may_read(Action.SEE), response=s.TestResult)
def comparison(request, slug: Path[str], number: int):
    """One blind test with its result so far."""
    return _result(get_object_or_404(request.auth.project.comparisons, number=number))


@router.post(
    "/comparisons/{int:number}/stop",
    auth=may_administer(Action.VERSIONS),
    response=s.TestOut,
)
def stop_comparison(request, slug: Path[str], number: int):
    """End a blind test as it stands."""
    found = get_object_or_404(request.auth.project.comparisons, number=number)
    comparisons.stop(found, request.auth.user)
    found.refresh_from_db()
    return _test(found)
