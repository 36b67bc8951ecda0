"""Which prompts to ask about next: those whose groups are expected to teach, without leaving any out. Pure functions.

A group that everybody likes or dislikes teaches nothing; how much one may teach is the spread of its rewards. What to
expect of a prompt is the mean spread of its labelled groups and of some phantom ones with its tag's mean, which has
phantoms of the project's mean: the posterior means of Beta priors, one under the other. A prompt's chance is the third
power of that over the best tag's, and at least FLOOR: what has taught nothing so far is asked about less often, never not
at all.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

FLOOR = 0.25  # of the best chance; below it, like rates of all prompts could not be estimated from these groups
POWER = 3.0  # in mere proportion hardly anything changes: docs/results/choice.md
PROMPT_PHANTOMS, TAG_PHANTOMS, PROJECT_PHANTOMS = 2, 4, 2
UNKNOWN = 0.5  # spread of the project's phantoms


def spread(rewards: Sequence[float | None]) -> float:
    """How far a group's rewards in 0..1 differ: 0 when all are the same, 1 when they are halved between 0 and 1."""
    known = [r for r in rewards if r is not None]
    if not known:
        return 0.0
    mean = sum(known) / len(known)
    return 4 * sum((r - mean) ** 2 for r in known) / len(known)


def share(rewards: Sequence[float | None], inclusion: Sequence[float] | None = None) -> float | None:
    """The mean reward of all images that were made of a group, by those shown, each of which had that chance to be
    (`inclusion`; None: all are shown). Horvitz and Thompson's estimate of the sum over that of the count, which stays
    within 0..1; None where nobody decided."""
    weights = [1 / chance for chance in inclusion] if inclusion else [1.0] * len(rewards)
    known = [(reward, weight) for reward, weight in zip(rewards, weights, strict=True) if reward is not None]
    total = sum(weight for _reward, weight in known)
    return sum(reward * weight for reward, weight in known) / total if known else None


def chances(
    tags: Mapping[int, str], labelled: Iterable[tuple[int, float]], *, power: float = POWER
) -> dict[int, float]:
    """By prompt, its chance in FLOOR..1 relative to the best ones'. `tags` has every prompt's; `labelled` is (prompt,
    spread) of each labelled group; those of prompts that are gone are passed over."""
    prompts: defaultdict[int, list[float]] = defaultdict(list)
    by_tag: defaultdict[str, list[float]] = defaultdict(list)
    everything: list[float] = []
    for prompt, value in labelled:
        if prompt in tags:
            for values in (prompts[prompt], by_tag[tags[prompt]], everything):
                values.append(value)
    project = _mean(everything, UNKNOWN, PROJECT_PHANTOMS)
    expected = {tag: _mean(by_tag[tag], project, TAG_PHANTOMS) for tag in set(tags.values())}
    best = max(expected.values(), default=1.0)
    of_tag = {tag: (_chance(value / best, power), value) for tag, value in expected.items()}
    return {
        prompt: _chance(_mean(prompts[prompt], of_tag[tag][1], PROMPT_PHANTOMS) / best, power)
        if prompt in prompts
        else of_tag[tag][0]
        for prompt, tag in tags.items()
    }


def draw(chances: Mapping[int, float], count: int, rng: random.Random) -> list[int]:
    """The next `count` prompts, each drawn in proportion to the chances, none twice while there are others.

    The one that comes first of exponential waits with these rates is such a draw. Earlier draws are not looked at: then
    prompts would be owed what they did not get under other chances, and 1 / chance would not be a group's weight.
    """
    found: list[int] = []
    while chances and len(found) < count:
        waits = {prompt: rng.expovariate(chance) for prompt, chance in chances.items()}
        found += heapq.nsmallest(count - len(found), waits, key=waits.__getitem__)
    return found


def _mean(values: Sequence[float], prior: float, phantoms: int) -> float:
    return (sum(values) + phantoms * prior) / (len(values) + phantoms)


def _chance(share: float, power: float) -> float:
    return max(FLOOR, min(1.0, share) ** power)
