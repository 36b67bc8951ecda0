"""Blind tests of versions: who looks at which pair, what they say of it, and when the test ends."""

from __future__ import annotations

import random
from collections.abc import Sequence

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone
from django.utils.translation import gettext as _

from webapp.campaigns.archive import check_open
from webapp.campaigns.audit import audit
from webapp.campaigns.models import Project, Split
from webapp.lib import bounds, events, options, states
from webapp.rounds import pairs, standings
from webapp.rounds.models import Comparison, ComparisonState, Entrant, ModelVersion, Pair, PairState, next_number
from webapp.rounds.ranking import letter, order_of

LOOKS = 100  # a ranking of many answers is worked out again after a hundredth of them


class ComparisonError(ValueError):
    """A request that cannot be carried out; the message names the field and the fix."""


@transaction.atomic
def start(
    project: Project, versions: Sequence[int], by, *, shown: int = 2, most_votes: int = 400, alpha: float = 0.05
) -> Comparison:
    """Open a test of some of the project's versions (by number), of which people see `shown` at once. Raises
    ComparisonError for what cannot be compared."""
    project = Project.objects.select_for_update().get(pk=project.pk)
    check_open(project, ComparisonError)
    try:
        bounds.COMPARED.whole(len(versions), "versions")
        bounds.SHOWN.whole(shown, "shown")
        bounds.VOTES.whole(most_votes, "most_votes")
        bounds.ALPHA.real(alpha, "alpha")
    except bounds.OutOfBounds as error:
        raise ComparisonError(str(error)) from error
    if len(set(versions)) < len(versions):
        raise ComparisonError(_("versions: choose different ones"))
    if shown > len(versions):
        raise ComparisonError(_("shown: the test has only %(n)s versions") % {"n": len(versions)})
    found = {v.number: v for v in ModelVersion.objects.filter(project=project, number__in=versions)}
    for number in versions:
        if number not in found:
            raise ComparisonError(_("versions: there is no version %(number)s") % {"number": number})
    if not project.prompts.in_use().filter(split=Split.TRAIN).exists():
        raise ComparisonError(_("prompts: the project has none for training; add some first"))
    number = next_number(project.comparisons)
    a, b, *others = (found[number] for number in versions)
    made = Comparison.objects.create(
        project=project,
        number=number,
        version_a=a,
        version_b=b,
        shown=shown,
        most_votes=most_votes,
        alpha=alpha,
        started_by=by,
    )
    Entrant.objects.bulk_create(Entrant(comparison=made, version=version) for version in others)
    audit(project, by, "comparison started", comparison=number, versions=list(versions))
    pairs.fill(made, random.Random())
    return made


@transaction.atomic
def lease_pairs(user, comparison: Comparison, count: int = 3) -> list[Pair]:
    """Up to `count` pairs for a person: those on their screen already, then new ones, first those of prompts of which they
    have not yet judged the same versions. A pair is on one screen only."""
    if comparison.state != ComparisonState.OPEN or comparison.project.archived_at is not None:
        return []
    now = timezone.now()
    ready = comparison.pairs.filter(state=PairState.READY).select_related("prompt").order_by("id")
    mine = list(ready.filter(leased_to=user, leased_until__gt=now)[:count])
    known = comparison.pairs.filter(Q(voter=user) | Q(pk__in=[p.pk for p in mine]))
    known = known.filter(prompt=OuterRef("prompt"), letters=OuterRef("letters"))
    free = ready.filter(Q(leased_until=None) | Q(leased_until__lte=now)).order_by(Exists(known), "id")
    if connection.features.has_select_for_update_skip_locked:
        free = free.select_for_update(skip_locked=True, of=("self",))
    if len(mine) < count:
        mine += list(free[: count - len(mine)])
    Pair.objects.filter(pk__in=[p.pk for p in mine]).update(leased_to=user, leased_until=now + options.LEASE)
    return mine


@transaction.atomic
def vote(user, comparison: Comparison, pair_id: int, order: Sequence[Sequence[int]], *, seconds: float = 0) -> None:
    """A person orders a pair's images, by their places from 0 on the left: the best first, those that are the same
    together; what is left out comes after the others. The test ends by itself when it can.

    The same answer again changes nothing. Raises ComparisonError for another one, or for a pair that is not theirs.
    """
    comparison = Comparison.objects.select_for_update(of=("self",)).select_related("project").get(pk=comparison.pk)
    check_open(comparison.project, ComparisonError)
    pair = comparison.pairs.filter(pk=pair_id).first()
    if pair is None:
        raise ComparisonError(_("pair: it is not in this comparison; ask for the next one"))
    said = _said(pair, order)
    if pair.state == PairState.DONE and (pair.voter_id, standings.outcome(pair)) == (user.pk, said):
        return
    if pair.state != PairState.READY or pair.leased_to_id != user.pk:
        raise ComparisonError(_("pair: somebody decided on it, or it was not given to you; ask for the next one"))
    states.move(states.PAIR_MOVES, pair, PairState.DONE)
    pair.voter, pair.outcome, pair.voted_at = user, said, timezone.now()
    pair.seconds = max(0.0, min(seconds, 86_400.0))
    pair.save()
    if comparison.state != ComparisonState.OPEN:
        return  # it came too late to count, and is kept
    _count(comparison, said)


def _said(pair: Pair, order: Sequence[Sequence[int]]) -> str:
    """The order of places as one of versions."""
    sides = pair.sides
    try:
        tiers = [[ord(sides[bounds.POSITION.whole(at, "order")]) - ord("a") for at in tier] for tier in order]
        return str(order_of(tiers, [ord(c) - ord("a") for c in sides]))
    except (ValueError, TypeError, IndexError) as error:
        asked = _("order: send lists of places from 0 to %(last)s, each place at most once, the best first")
        raise ComparisonError(asked % {"last": len(sides) - 1}) from error


def _count(comparison: Comparison, said: str) -> None:
    """Count an answer to an open test, end it if it can be, and ask on otherwise."""
    two = len(comparison.versions) == 2
    field = {"a>b": "wins_a", "b>a": "wins_b", "a=b": "ties"}[said] if two else "orders"
    setattr(comparison, field, getattr(comparison, field) + 1)
    ranking = None
    if two:
        comparison.verdict = standings.of_two(comparison).verdict
        decided = bool(comparison.verdict)
    elif comparison.votes % (1 + comparison.votes // LOOKS) == 0:
        ranking = standings.ranking(comparison)
        best, decided = ranking.best, ranking.finished
        comparison.verdict = letter(best) if best is not None else "same" if ranking.all_same else ""
    else:
        decided = False
    if decided:
        comparison.state = ComparisonState.DECIDED
    elif comparison.votes >= comparison.most_votes:
        comparison.state = ComparisonState.STOPPED
    if comparison.state != ComparisonState.OPEN:
        comparison.finished_at = timezone.now()
    comparison.save()
    if comparison.state == ComparisonState.OPEN:
        pairs.fill(comparison, random.Random(), ranking)
    events.publish(comparison.project_id, "comparison")


@transaction.atomic
def stop(comparison: Comparison, by) -> None:
    """End a test without a verdict; votes stay."""
    changed = Comparison.objects.filter(pk=comparison.pk, state=ComparisonState.OPEN).update(
        state=ComparisonState.STOPPED, finished_at=timezone.now()
    )
    if changed:
        audit(comparison.project, by, "comparison stopped", comparison=comparison.number)
        events.publish(comparison.project_id, "comparison")
