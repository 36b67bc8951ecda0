"""Where a blind test stands: read from its answers, for pages, the API and the test's own end."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

from django.db.models import Count, Q

from webapp.rounds.models import Comparison, ComparisonState, Entrant, ModelVersion, Pair, PairState
from webapp.rounds.ranking import Order, Ranking, letter, rank, read_order
from webapp.rounds.sequential import Standing, standing

POINTS = 400 / log(10)  # of a score, a unit of log odds: 100 points more win 64 of 100, as in chess
OLDER = {"a": "a>b", "b": "b>a", "tie": "a=b"}  # answers of before there were orders


def outcome(pair: Pair) -> str:
    """What was said of it, as `ranking.Order` writes it; empty before."""
    return pair.outcome or OLDER.get(pair.choice, "")


def answers(comparison: Comparison) -> list[tuple[Order, int]]:
    """Each order that people gave, with how often; those that came after the end left out."""
    rows = comparison.pairs.filter(state=PairState.DONE)
    if comparison.finished_at is not None:
        rows = rows.filter(voted_at__lte=comparison.finished_at)
    found: dict[str, int] = {}
    for said, choice, n in rows.order_by().values_list("outcome", "choice").annotate(n=Count("pk")):
        text = said or OLDER[choice]
        found[text] = found.get(text, 0) + n
    return [(read_order(text), n) for text, n in sorted(found.items())]


def ranking(comparison: Comparison) -> Ranking:
    """Of all its versions, by everything that was said so far."""
    return rank(answers(comparison), len(comparison.versions), alpha=comparison.alpha, margin=comparison.margin)


def of_two(comparison: Comparison) -> Standing:
    """The exact test of two versions."""
    return standing(comparison.wins_a, comparison.wins_b, alpha=comparison.alpha, margin=comparison.margin)


@dataclass(frozen=True)
class Cell:
    """One version against another: `verdict` better, worse, same or "" (nobody can tell), answers won (half where they were
    the same) of so many, and the share that the scores expect."""

    other: ModelVersion
    verdict: str
    won: float
    of: float
    expected: float

    @property
    def rate(self) -> float | None:
        """Of the answers; None without one."""
        return self.won / self.of if self.of else None


@dataclass(frozen=True)
class Row:
    """A version's line: its `score` in points around the mean of all with its 95% interval, in how many `answers` it was,
    and its `cells` against each version in the order of the rows, None against itself."""

    version: ModelVersion
    score: float
    low: float
    high: float
    answers: int
    cells: list[Cell | None]

    @property
    def next(self) -> Cell | None:
        """Against the version below it."""
        return next(iter(self.cells[self.cells.index(None) + 1 :]), None)


@dataclass(frozen=True)
class Table:
    """All versions, best first."""

    rows: list[Row]

    @property
    def open(self) -> int:
        """Pairs of versions of which nobody can tell yet which is better."""
        return sum(not cell.verdict for row in self.rows for cell in row.cells if cell) // 2


def table(comparison: Comparison) -> Table:
    """The whole result."""
    given = answers(comparison)
    versions = comparison.versions
    found = rank(given, len(versions), alpha=comparison.alpha, margin=comparison.margin)
    if len(versions) == 2:  # the exact test's word
        word = {"a": ("better", "worse"), "b": ("worse", "better"), "same": ("same", "same")}
        said = word.get(of_two(comparison).verdict, ("", ""))
        found.verdicts[0][1], found.verdicts[1][0] = said

    def cell(i: int, j: int) -> Cell:
        won, lost = found.wins[i, j], found.wins[j, i]
        return Cell(versions[j], found.verdicts[i][j], float(won), float(won + lost), found.chance(i, j))

    return Table(
        [
            Row(
                versions[i],
                POINTS * float(found.strengths[i]),
                POINTS * float(found.low[i]),
                POINTS * float(found.high[i]),
                sum(n for order, n in given if i in order.all),
                [None if i == j else cell(i, j) for j in found.order],
            )
            for i in found.order
        ]
    )


def better(old: ModelVersion, new: ModelVersion) -> bool | None:
    """Whether blind tests say that `new` is better than `old`, the newest first; None where none says anything of both."""
    tests = Comparison.objects.filter(_holds(old), _holds(new)).exclude(state=ComparisonState.OPEN)
    for test in tests.select_related("version_a", "version_b").prefetch_related("entrants__version"):
        numbers = [v.pk for v in test.versions]
        if said := _of(test, numbers.index(old.pk), numbers.index(new.pk)):
            return said == "better"
    return None


def _holds(version: ModelVersion) -> Q:
    further = Entrant.objects.filter(version=version).values("comparison")
    return Q(version_a=version) | Q(version_b=version) | Q(pk__in=further)


def _of(test: Comparison, old: int, new: int) -> str:
    if len(test.versions) == 2:
        if test.state != ComparisonState.DECIDED:
            return ""
        return "same" if test.verdict == "same" else "better" if test.verdict == letter(new) else "worse"
    return ranking(test).verdicts[new][old]
