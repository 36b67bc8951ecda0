"""The images of blind tests: which versions are asked about next, of which prompt, and how workers make them."""

from __future__ import annotations

import random

from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from webapp.campaigns import sizes
from webapp.campaigns.models import Split
from webapp.lib import events, options, states
from webapp.lib.dispatch import enqueue
from webapp.rounds import standings
from webapp.rounds.models import Comparison, ComparisonState, Pair, PairState
from webapp.rounds.ranking import Ranking, choose, letter

AHEAD = 8  # pairs that are ready or on their way beyond those on somebody's screen
BATCH = 8  # pairs a worker samples at once
SEEDS = (600_000_000, 700_000_000)  # apart from those of groups and of evaluation


def fill(comparison: Comparison, rng: random.Random, ranking: Ranking | None = None) -> None:
    """Queue pairs so that `AHEAD` wait beyond those on a screen, and no more than the test can use. Which versions they
    show, of more than two, is chosen by the present `ranking`."""
    now = timezone.now()
    pairs = comparison.pairs.exclude(state=PairState.FAILED)
    held = Q(state=PairState.READY, leased_until__gt=now)
    coming = pairs.exclude(held).exclude(state=PairState.DONE).count()
    missing = min(AHEAD - coming, comparison.most_votes - pairs.count())
    if missing <= 0:
        return
    made = []
    for letters in _chosen(comparison, missing, rng, ranking):
        layout = "".join(rng.sample(letters, len(letters)))
        prompt_id = _prompt(comparison, letters, made)
        ((size, image),) = sizes.for_prompts(comparison.project, [prompt_id], rng)
        made.append(
            Pair(
                comparison=comparison,
                prompt_id=prompt_id,
                image_size=size,
                input_image=image,
                seed=rng.randrange(*SEEDS),
                letters=letters,
                layout=layout,
                a_is_left=layout[0] == "a",
            )
        )
    Pair.objects.bulk_create(made)
    enqueue("generate_pairs", comparison.pk)


def _chosen(comparison: Comparison, count: int, rng: random.Random, ranking: Ranking | None) -> list[str]:
    """The letters of the versions of each of the next pairs: all, or those whose order tells most."""
    everybody = "".join(map(letter, range(n := len(comparison.versions))))
    if comparison.shown == n:
        return [everybody] * count
    ranking = ranking or standings.ranking(comparison)
    waiting = comparison.pairs.exclude(state__in=[PairState.FAILED, PairState.DONE])
    pending = [[everybody.index(c) for c in pair.letters] for pair in waiting]
    for _ in range(count):
        noise = [1e-9 * rng.random() for _ in range(n * (n - 1) // 2)]
        pending.append(choose(ranking, comparison.shown, pending, noise))
    return ["".join(everybody[i] for i in chosen) for chosen in pending[-count:]]


def _prompt(comparison: Comparison, letters: str, made: list[Pair]) -> int:
    """A prompt of which the test has not shown these versions yet, as long as there is one."""
    prompts = comparison.project.prompts.in_use().filter(split=Split.TRAIN).order_by("?").values_list("pk", flat=True)
    new = prompts.exclude(pk__in=[pair.prompt_id for pair in made if pair.letters == letters])
    shown = comparison.pairs.filter(letters=letters, prompt=OuterRef("pk"))
    return (new.exclude(Exists(shown))[:1] or new[:1] or prompts[:1])[0]


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
    rows = rows.prefetch_related("comparison__entrants__version")
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
    """The images of each pair lie at `paths.pair_image`; returns how many are still this worker's."""
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
