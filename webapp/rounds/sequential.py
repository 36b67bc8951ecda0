"""A test of two versions that may be looked at after every vote. Pure functions.

H0: a vote is for either version with probability 1/2. Under the alternative the probability is p ~ Beta(a, a), and the
mixture likelihood ratio of w wins and l losses is

    E = B(a + w, a + l) / B(a, a) / (1/2)^(w + l)

a martingale with mean 1 under H0, so that P(E ever reaches 1/alpha) <= alpha (Ville), whenever one looks or stops:
Robbins, "Statistical methods related to the law of the iterated logarithm", Ann. Math. Stat. 41 (1970); as the mSPRT in
Johari, Koomen, Pekelis and Walsh, "Always valid inference", Operations Research 70 (2022). With p in place of 1/2 the
same ratio gives a confidence sequence: the p that were never rejected.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, lgamma, log

# Of the mixture: p within about .5 ± .11, where versions of neighbouring rounds are. It sets how fast the test is, never
# how often it errs.
WEIGHT = 10.0


@dataclass(frozen=True)
class Standing:
    """Where a comparison stands. `rate` is B's share of the decided votes with its confidence sequence `low`..`high`."""

    wins_a: int
    wins_b: int
    rate: float | None
    low: float
    high: float
    evidence: float  # E; the test ends at 1/alpha
    verdict: str  # "a", "b", "same" or "" while it goes on


def log_evidence(wins: int, losses: int, p: float = 0.5) -> float:
    """log E against the hypothesis that a vote is a win with probability p, 0 < p < 1."""
    mixed = lgamma(WEIGHT + wins) + lgamma(WEIGHT + losses) - lgamma(2 * WEIGHT + wins + losses)
    return mixed - 2 * lgamma(WEIGHT) + lgamma(2 * WEIGHT) - wins * log(p) - losses * log(1 - p)


def confidence(wins: int, losses: int, alpha: float) -> tuple[float, float]:
    """The confidence sequence for p at level 1 - alpha: holds at all times together with that probability."""
    bound, best = log(1 / alpha), (wins + 0.5) / (wins + losses + 1)

    def edge(outer: float) -> float:
        inner = best
        if log_evidence(wins, losses, min(max(outer, 1e-12), 1 - 1e-12)) < bound:
            return outer
        for _ in range(60):
            middle = (inner + outer) / 2
            if 0 < middle < 1 and log_evidence(wins, losses, middle) < bound:
                inner = middle
            else:
                outer = middle
        return inner

    return edge(0.0), edge(1.0)


def standing(wins_a: int, wins_b: int, *, alpha: float = 0.05, margin: float = 0.1) -> Standing:
    """The test after so many votes. `same`: the confidence sequence lies within one half ± margin."""
    evidence = log_evidence(wins_b, wins_a)
    low, high = confidence(wins_b, wins_a, alpha)
    verdict = ""
    if evidence >= log(1 / alpha):
        verdict = "b" if wins_b > wins_a else "a"
    elif 0.5 - margin < low and high < 0.5 + margin:
        verdict = "same"
    votes = wins_a + wins_b
    return Standing(
        wins_a,
        wins_b,
        wins_b / votes if votes else None,
        low,
        high,
        exp(evidence) if evidence < 700 else inf,
        verdict,
    )


def wilson(successes: float, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95% interval of a share; (0, 1) without trials. For a mean of scores in 0..1 it is on the wide side."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * ((share * (1 - share) + z * z / (4 * trials)) / trials) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
