"""How good several versions are, from what people said of their images side by side. Pure functions.

Plackett-Luce: of the images of a set S, that of version i is named best with probability

    exp(s_i) / sum over j in S of exp(s_j)

then the best of the rest in the same way, and so on (Plackett 1975, Luce 1959); with two images it is Bradley-Terry. What
was put on one place counts as every order of it, each with the same weight: of two images half a win each. Images that
nobody placed come after the others and say nothing of each other.

Who is better is asked of each pair of versions after every answer, so 95% of a single look would err far too often. As in
`sequential`, of which this is the approximation with more than two versions: the likelihood ratio of "they differ by
N(0, SPREAD)" to "they are equal", a martingale under the latter, is to reach (number of pairs) / alpha.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb, exp, log

import numpy as np

from webapp.rounds.sequential import WEIGHT

PRIOR = 4.0  # variance of a version's strength before anybody answered: keeps one that always wins finite
SPREAD = 2 / WEIGHT  # variance of a difference, as the Beta of `sequential` has it: how fast, never how often it errs
STEADY = 20.0  # answers that are as uncertain as the model says, before the real ones show that they are less (ties)
SURE = 1.959964  # standard errors of a 95% interval
STEPS = 50


@dataclass(frozen=True)
class Order:
    """What somebody said: `tiers` from the best on, each of versions that are the same, and the `rest`, after all of them
    and in no order. Versions are numbers from 0."""

    tiers: tuple[tuple[int, ...], ...]
    rest: tuple[int, ...] = ()

    @property
    def all(self) -> tuple[int, ...]:
        """Everything that was shown."""
        return tuple(sorted(i for tier in (*self.tiers, self.rest) for i in tier))

    def __str__(self) -> str:
        """As it is stored: "c>a=d>b,e"."""
        parts = ["=".join(letter(i) for i in tier) for tier in self.tiers]
        return ">".join([*parts, ",".join(letter(i) for i in self.rest)] if self.rest else parts)


def letter(i: int) -> str:
    """A version's letter within its test."""
    return chr(ord("a") + i)


def order_of(tiers: Iterable[Iterable[int]], shown: Iterable[int]) -> Order:
    """The order in its one form. Raises ValueError unless it places some of what was shown, each once."""
    sorted_tiers = tuple(tuple(sorted(tier)) for tier in tiers)
    placed = [i for tier in sorted_tiers for i in tier]
    rest = tuple(sorted(set(shown) - set(placed)))
    if not placed or not all(sorted_tiers) or len(set(placed)) < len(placed) or not set(placed) <= set(shown):
        raise ValueError("each image at most once, and one at least")
    return Order((*sorted_tiers, rest), ()) if len(rest) == 1 else Order(sorted_tiers, rest)


def read_order(text: str) -> Order:
    """What `str` of an order gave."""
    tiers = [[ord(c) - ord("a") for c in part.replace(",", "=").split("=")] for part in text.split(">")]
    shown = [i for tier in tiers for i in tier]
    return order_of(tiers[:-1] if "," in text else tiers, shown)


# ---------------------------------------------------------------- the fit


@dataclass(frozen=True)
class Stages:
    """What the likelihood needs: wins by version, and of each set (S, n) from which one was named best how often."""

    wins: np.ndarray
    sets: np.ndarray
    times: np.ndarray


def stages(orders: Iterable[tuple[Order, int]], n: int) -> Stages:
    """Of orders, each with how often it was given, of `n` versions."""
    wins, times = np.zeros(n), {}
    for order, count in orders:
        left = frozenset(order.all)
        for tier in order.tiers:
            wins[list(tier)] += count
            for gone in range(len(tier)):
                share = count / comb(len(tier), gone)
                for before in combinations(tier, gone):
                    of = left.difference(before)
                    if len(of) == 1:  # nothing was said
                        wins[list(of)] -= share
                    else:
                        times[of] = times.get(of, 0) + share
            left = left.difference(tier)
    sets = np.zeros((len(times), n))
    for row, of in enumerate(times):
        sets[row, list(of)] = 1
    return Stages(wins, sets, np.array(list(times.values())))


def _slopes(at: np.ndarray, data: Stages) -> tuple[float, np.ndarray, np.ndarray]:
    """Log likelihood with its prior, gradient and (negative) curvature at strengths (n,)."""
    top = at.max()
    weights = data.sets * np.exp(at - top)
    sums = weights.sum(axis=1)
    shares = weights / sums[:, None]
    named = shares * data.times[:, None]
    value = data.wins @ at - data.times @ (np.log(sums) + top) - at @ at / (2 * PRIOR)
    slope = data.wins - named.sum(axis=0) - at / PRIOR
    curve = np.diag(named.sum(axis=0)) - named.T @ shares + np.eye(len(at)) / PRIOR
    return value, slope, curve


def fit(data: Stages, start: np.ndarray, join: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Log likelihood, strengths (n,) and curvature (n, n) at the best strengths, by Newton's method on a concave function
    from `start` (m,). Each row of `join` (n, m) names its version's column: versions of one column are held together."""
    at = start
    value, slope, curve = _slopes(join @ at, data)
    for _ in range(STEPS):
        step = np.linalg.solve(join.T @ curve @ join, join.T @ slope)
        while True:  # half as far where a whole step goes too far
            new = _slopes(join @ (at + step), data)
            if new[0] >= value - 1e-9 or np.abs(step).max() < 1e-9:
                break
            step /= 2
        at, (value, slope, curve) = at + step, new
        if np.abs(step).max() < 1e-7:
            break
    return value, join @ at, curve


def dispersion(orders: Sequence[tuple[Order, int]], strengths: np.ndarray) -> float:
    """How much answers vary, over what the model expects: 1, and less where many are "the same", which the model thinks of
    as chance. Never above 1."""
    total = seen = STEADY
    for order, count in orders:
        of = list(order.all)
        one = stages([(Order(_within(order.tiers, of), _within([order.rest], of)[0]), 1)], len(of))
        _, slope, curve = _slopes(strengths[of], one)
        slope, curve = slope + strengths[of] / PRIOR, curve - np.eye(len(of)) / PRIOR + 1 / len(of)
        total += count * float(slope @ np.linalg.solve(curve, slope)) / (len(of) - 1)
        seen += count
    return min(1.0, total / seen)


def _within(tiers: Iterable[tuple[int, ...]], of: list[int]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(of.index(i) for i in tier) for tier in tiers)


# ---------------------------------------------------------------- what it comes to


@dataclass(frozen=True)
class Ranking:
    """Where `n` versions stand. `strengths` (n,) are log odds around their mean, with their 95% intervals `low`, `high`;
    `verdicts[i][j]` is better, worse, same, or "" where nobody can tell yet; `wins[i, j]` how often i was put before j,
    half where they were the same. `covariance` (n, n) is the strengths'."""

    strengths: np.ndarray
    low: np.ndarray
    high: np.ndarray
    covariance: np.ndarray
    verdicts: list[list[str]]
    wins: np.ndarray

    @property
    def order(self) -> list[int]:
        """The versions, best first."""
        return [int(i) for i in np.argsort(-self.strengths, kind="stable")]

    @property
    def finished(self) -> bool:
        """Whether of each pair of versions it is known which is better, or that they are the same."""
        return all(self.verdicts[i][j] for i, j in combinations(range(len(self.verdicts)), 2))

    @property
    def best(self) -> int | None:
        """The version that is better than each other one, if there is such a one."""
        n = range(len(self.verdicts))
        return next((i for i in n if all(self.verdicts[i][j] == "better" for j in n if j != i)), None)

    @property
    def all_same(self) -> bool:
        """Whether no version is better than another."""
        return all(self.verdicts[i][j] == "same" for i, j in combinations(range(len(self.verdicts)), 2))

    def chance(self, i: int, j: int) -> float:
        """How often i is put before j, as the strengths have it."""
        return 1 / (1 + exp(self.strengths[j] - self.strengths[i]))


def rank(orders: Sequence[tuple[Order, int]], n: int, *, alpha: float = 0.05, margin: float = 0.1) -> Ranking:
    """After these orders, each with how often it was given. Two versions are the same when one is put before the other in
    one half ± `margin` of cases; all statements together err with chance `alpha` at most."""
    data = stages(orders, n)
    value, strengths, curve = fit(data, np.zeros(n), np.eye(n))
    spread = dispersion(orders, strengths)
    centre = np.eye(n) - 1 / n
    covariance = spread * centre @ np.linalg.inv(curve) @ centre
    errors = SURE * np.sqrt(np.diag(covariance))
    strengths = centre @ strengths
    needed, widest = log(comb(n, 2) / alpha), log((0.5 + margin) / (0.5 - margin))
    verdicts = [["" for _ in range(n)] for _ in range(n)]
    for i, j in combinations(range(n), 2):
        difference = strengths[i] - strengths[j]
        variance = covariance[i, i] + covariance[j, j] - 2 * covariance[i, j]
        if abs(difference) + _reach(variance, needed) < widest:
            verdicts[i][j] = verdicts[j][i] = "same"
        elif difference**2 > variance and _evidence(data, value, strengths, i, j, spread) >= needed:
            verdicts[i][j], verdicts[j][i] = ("better", "worse") if difference > 0 else ("worse", "better")
    _follow(verdicts)
    return Ranking(strengths, strengths - errors, strengths + errors, covariance, verdicts, _wins(orders, n))


def _reach(variance: float, needed: float) -> float:
    """Half of the confidence sequence's width for a difference that is known with that variance."""
    return float(np.sqrt(variance * (variance + SPREAD) / SPREAD * (2 * needed + log((variance + SPREAD) / variance))))


def _evidence(data: Stages, value: float, strengths: np.ndarray, i: int, j: int, spread: float) -> float:
    """log of the mixture's likelihood over that of "i and j are equal". By the likelihood there, since a strength that is
    far away has a wide interval however sure its sign is."""
    n = len(data.wins)
    joined = np.delete(np.eye(n), j, axis=1)
    joined[j] = joined[i]
    start = strengths.copy()
    start[i] = (strengths[i] + strengths[j]) / 2
    equal, _at, curve = fit(data, np.delete(start, j), joined)
    apart = np.zeros(n)
    apart[i], apart[j] = 1, -1
    variance = spread * float(apart @ np.linalg.solve(curve, apart))
    ratio = 2 * (value - equal) / spread
    return 0.5 * (log(variance / (variance + SPREAD)) + ratio * SPREAD / (variance + SPREAD))


def _follow(verdicts: list[list[str]]) -> None:
    """Better than what is better than a third is better than the third."""
    n = range(len(verdicts))
    for k in n:
        for i in n:
            for j in n:
                if i != j and not verdicts[i][j] and verdicts[i][k] == verdicts[k][j] == "better":
                    verdicts[i][j], verdicts[j][i] = "better", "worse"


def _wins(orders: Iterable[tuple[Order, int]], n: int) -> np.ndarray:
    found = np.zeros((n, n))
    for order, count in orders:
        place = {i: at for at, tier in enumerate(order.tiers) for i in tier} | dict.fromkeys(order.rest, n)
        for i, j in combinations(order.all, 2):
            if place[i] == place[j] == n:
                continue
            first = 0.5 if place[i] == place[j] else float(place[i] < place[j])
            found[i, j] += count * first
            found[j, i] += count * (1 - first)
    return found


# ---------------------------------------------------------------- what is asked next


def choose(
    ranking: Ranking, shown: int, pending: Iterable[Sequence[int]] = (), noise: Sequence[float] = ()
) -> list[int]:
    """The `shown` versions whose order tells most: which shrinks the variances of the differences that nobody can tell yet
    the most, each by its share. `pending` are sets that are asked already; `noise` (pairs,), small, decides
    among equals."""
    n = len(ranking.strengths)
    pairs = list(combinations(range(n), 2))
    apart = np.zeros((len(pairs), n))
    for row, (i, j) in enumerate(pairs):
        apart[row, i], apart[row, j] = 1, -1
    chances = np.array([ranking.chance(i, j) for i, j in pairs])
    told = chances * (1 - chances)
    covariance = ranking.covariance + np.full((n, n), 1 / n)  # so that it has an inverse
    precision = np.linalg.inv(covariance)
    at = {pair: row for row, pair in enumerate(pairs)}
    for of in pending:
        for pair in combinations(sorted(of), 2):
            x = apart[at[pair]]
            precision += _worth(len(of)) * told[at[pair]] * np.outer(x, x)
    covariance = np.linalg.inv(precision)
    between = apart @ covariance @ apart.T
    variances = np.diag(between)
    open_pairs = np.array([not ranking.verdicts[i][j] for i, j in pairs])
    if not open_pairs.any():
        open_pairs[:] = True
    shrinks = between**2 * (told / (1 + told * variances))[None, :] / variances[:, None]
    gains = shrinks[open_pairs].sum(axis=0) + (np.asarray(noise) if len(noise) else 0)
    chosen = list(pairs[int(gains.argmax())])
    while len(chosen) < shown:
        others = [i for i in range(n) if i not in chosen]
        chosen.append(max(others, key=lambda i: sum(gains[at[min(i, j), max(i, j)]] for j in chosen)))
    return sorted(chosen)


def _worth(shown: int) -> float:
    """What each pair within an order of so many tells, over what the pair alone would."""
    return sum(1 - 1 / m for m in range(2, shown + 1)) / (shown * (shown - 1) / 4)
