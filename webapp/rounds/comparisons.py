"""Blind tests of two versions: their pairs, who looks at them, votes, and when the test ends."""

from __future__ import annotations

import random

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone
from django.utils.translation import gettext as _

from webapp.campaigns.archive import check_open
from webapp.campaigns.audit import audit
from webapp.campaigns.models import Project, Split
from webapp.lib import bounds, events, options, states
from webapp.lib.dispatch import enqueue
from webapp.rounds.models import Comparison, ComparisonState, ModelVersion, Pair, PairState, next_number
from webapp.rounds.sequential import Standing, standing

AHEAD = 8  # pairs that are ready or on their way beyond those on somebody's screen
BATCH = 8  # pairs a worker samples at once
SEEDS = (600_000_000, 700_000_000)  # apart from those of groups and of evaluation
CHOICES = ("left", "right", "tie")


class ComparisonError(ValueError):
    """A request that cannot be carried out; the message names the field and the fix."""


@transaction.atomic
def start(project: Project, a: int, b: int, by, *, most_votes: int = 400, alpha: float = 0.05) -> Comparison:
    """Open a test of two of the project's versions (by number). Raises ComparisonError for any other pair."""
    project = Project.objects.select_for_update().get(pk=project.pk)
    check_open(project, ComparisonError)
    if a == b:
        raise ComparisonError(_("versions: choose two different ones"))
    found = {v.number: v for v in ModelVersion.objects.filter(project=project, number__in=[a, b])}
    for number in (a, b):
        if number not in found:
            raise ComparisonError(_("versions: there is no version %(number)s") % {"number": number})
    try:
        bounds.VOTES.whole(most_votes, "most_votes")
        bounds.ALPHA.real(alpha, "alpha")
    except bounds.OutOfBounds as error:
        raise ComparisonError(str(error)) from error
    if not project.prompts.in_use().filter(split=Split.TRAIN).exists():
        raise ComparisonError(_("prompts: the project has none for training; add some first"))
    number = next_number(project.comparisons)
    made = Comparison.objects.create(
        project=project,
        number=number,
        version_a=found[a],
        version_b=found[b],
        most_votes=most_votes,
        alpha=alpha,
        started_by=by,
    )
    audit(project, by, "comparison started", comparison=number, versions=[a, b])
    _fill(made, random.Random())
    return made


def _fill(comparison: Comparison, rng: random.Random) -> None:
    """Queue pairs so that `AHEAD` wait beyond those on a screen, and no more than the test can use."""
    now = timezone.now()
    pairs = comparison.pairs.exclude(state=PairState.FAILED)
    held = Q(state=PairState.READY, leased_until__gt=now)
    coming = pairs.exclude(held).exclude(state=PairState.DONE).count()
    missing = min(AHEAD - coming, comparison.most_votes - pairs.count())
    if missing <= 0:
        return
    prompts = list(
        comparison.project.prompts.in_use()
        .filter(split=Split.TRAIN)
        .order_by("?")
        .values_list("pk", flat=True)[:missing]
    )
    Pair.objects.bulk_create(
        Pair(
            comparison=comparison,
            prompt_id=prompts[i % len(prompts)],
            seed=rng.randrange(*SEEDS),
            a_is_left=rng.random() < 0.5,
        )
        for i in range(missing)
    )
    enqueue("generate_pairs", comparison.pk)


# ---------------------------------------------------------------- generation


@transaction.atomic
def claim_pairs(comparison_id: int) -> list[Pair]:
    """Up to `BATCH` queued pairs for a worker, fenced by their tokens; empty when there is nothing to do. A pair that was
    with a worker before, who was lost or failed, comes alone: one of its neighbours may be what did it."""
    here = Comparison.objects.filter(state=ComparisonState.OPEN, project__archived_at=None)
    comparison = here.select_for_update(of=("self",)).filter(pk=comparison_id).first()
    if comparison is None:
        return []
    now = timezone.now()
    rows = comparison.pairs.filter(_waits()).select_related(
        "prompt", "comparison__project", "comparison__version_a", "comparison__version_b"
    )
    pairs = list(rows.filter(attempt=0).order_by("id")[:BATCH] or rows.order_by("attempt", "id")[:1])
    for pair in list(pairs):
        if pair.state == PairState.GENERATING and pair.attempt >= options.LOST_WORKERS:
            states.move(states.PAIR_MOVES, pair, PairState.FAILED)
            pair.error = f"the worker was lost {options.LOST_WORKERS} times over it; see its log"
            pair.save()
            pairs.remove(pair)
            continue
        if pair.state == PairState.GENERATING:
            states.move(states.PAIR_MOVES, pair, PairState.QUEUED)
        states.move(states.PAIR_MOVES, pair, PairState.GENERATING)
        pair.heartbeat_at = now
        pair.token += 1
        pair.attempt += 1
        pair.save()
    return pairs


@transaction.atomic
def complete_pairs(pairs: list[Pair]) -> int:
    """Both images of each pair lie at `paths.pair_image`; returns how many are still this worker's."""
    done = 0
    for pair in _owned(pairs):
        states.move(states.PAIR_MOVES, pair, PairState.READY)
        pair.error = ""
        pair.save()
        done += 1
    if pairs:
        comparison = pairs[0].comparison
        if comparison.pairs.filter(_waits()).exists():
            enqueue("generate_pairs", comparison.pk)
        events.publish(comparison.project_id, "comparison")
    return done


@transaction.atomic
def fail_pairs(pairs: list[Pair], error: str, *, counts: bool = True) -> None:
    """Back to the queue, or failed for good after `options.TRIES`; see `labelling.generation.fail_group`."""
    for pair in _owned(pairs):
        again = pair.attempt < options.TRIES or not counts
        pair.attempt -= not counts
        states.move(states.PAIR_MOVES, pair, PairState.QUEUED if again else PairState.FAILED)
        pair.error = error[:500]
        pair.save()


def _owned(pairs: list[Pair]) -> list[Pair]:
    tokens = {p.pk: p.token for p in pairs}
    rows = Pair.objects.select_for_update(of=("self",)).filter(pk__in=tokens, state=PairState.GENERATING).order_by("pk")
    return [p for p in rows if p.token == tokens[p.pk]]


def _waits() -> Q:
    """Pairs that a worker should sample: queued, or given to one that has been silent for long."""
    return Q(state=PairState.QUEUED) | Q(
        state=PairState.GENERATING, heartbeat_at__lt=timezone.now() - options.SILENT_STALE
    )


def waiting() -> list[int]:
    """Ids of open comparisons with pairs that a worker should sample."""
    pairs = Pair.objects.filter(_waits(), comparison=OuterRef("pk"))
    return list(
        Comparison.objects.filter(Exists(pairs), state=ComparisonState.OPEN, project__archived_at=None).values_list(
            "pk", flat=True
        )
    )


# ---------------------------------------------------------------- votes


@transaction.atomic
def lease_pairs(user, comparison: Comparison, count: int = 3) -> list[Pair]:
    """Up to `count` pairs for a person: those on their screen already, then new ones. A pair is on one screen only."""
    if comparison.state != ComparisonState.OPEN or comparison.project.archived_at is not None:
        return []
    now = timezone.now()
    ready = comparison.pairs.filter(state=PairState.READY).select_related("prompt").order_by("id")
    mine = list(ready.filter(leased_to=user, leased_until__gt=now)[:count])
    free = ready.filter(Q(leased_until=None) | Q(leased_until__lte=now))
    if connection.features.has_select_for_update_skip_locked:
        free = free.select_for_update(skip_locked=True, of=("self",))
    if len(mine) < count:
        mine += list(free[: count - len(mine)])
    Pair.objects.filter(pk__in=[p.pk for p in mine]).update(leased_to=user, leased_until=now + options.LEASE)
    return mine


@transaction.atomic
def vote(user, comparison: Comparison, pair_id: int, choice: str, *, seconds: float = 0) -> Standing:
    """A person says which side is better, or that they are the same; the test ends by itself when it can.

    The same vote again changes nothing. Raises ComparisonError for another one, or for a pair that is not theirs.
    """
    if choice not in CHOICES:
        raise ComparisonError(
            _("choice: %(choice)s is not one of %(values)s") % {"choice": repr(choice), "values": ", ".join(CHOICES)}
        )
    comparison = Comparison.objects.select_for_update(of=("self",)).select_related("project").get(pk=comparison.pk)
    check_open(comparison.project, ComparisonError)
    pair = comparison.pairs.filter(pk=pair_id).first()
    if pair is None:
        raise ComparisonError(_("pair: it is not in this comparison; ask for the next one"))
    won = choice if choice == "tie" else "a" if (choice == "left") == pair.a_is_left else "b"
    if pair.state == PairState.DONE and (pair.voter_id, pair.choice) == (user.pk, won):
        return _standing(comparison)
    if pair.state != PairState.READY or pair.leased_to_id != user.pk:
        raise ComparisonError(_("pair: somebody decided on it, or it was not given to you; ask for the next one"))
    states.move(states.PAIR_MOVES, pair, PairState.DONE)
    pair.voter, pair.choice, pair.voted_at = user, won, timezone.now()
    pair.seconds = max(0.0, min(seconds, 86_400.0))
    pair.save()
    if comparison.state != ComparisonState.OPEN:
        return _standing(comparison)  # it came too late to count, and is kept
    field = {"a": "wins_a", "b": "wins_b", "tie": "ties"}[won]
    setattr(comparison, field, getattr(comparison, field) + 1)
    now = _standing(comparison)
    votes = comparison.wins_a + comparison.wins_b + comparison.ties
    if now.verdict:
        comparison.state, comparison.verdict = ComparisonState.DECIDED, now.verdict
    elif votes >= comparison.most_votes:
        comparison.state = ComparisonState.STOPPED
    if comparison.state != ComparisonState.OPEN:
        comparison.finished_at = timezone.now()
    comparison.save()
    if comparison.state == ComparisonState.OPEN:
        _fill(comparison, random.Random())
    events.publish(comparison.project_id, "comparison")
    return now


def _standing(comparison: Comparison) -> Standing:
    return standing(comparison.wins_a, comparison.wins_b, alpha=comparison.alpha, margin=comparison.margin)


@transaction.atomic
def stop(comparison: Comparison, by) -> None:
    """End a test without a verdict; votes stay."""
    changed = Comparison.objects.filter(pk=comparison.pk, state=ComparisonState.OPEN).update(
        state=ComparisonState.STOPPED, finished_at=timezone.now()
    )
    if changed:
        audit(comparison.project, by, "comparison stopped", comparison=comparison.number)
        events.publish(comparison.project_id, "comparison")
