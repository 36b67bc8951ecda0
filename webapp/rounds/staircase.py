"""How many labels the next round needs, learned from what earlier rounds came to. Pure functions.

A weighted up-down staircase (Kaernbach, "Simple adaptive testing with the weighted up-down method", Perception &
Psychophysics 49, 1991) on the logarithm of the number: a round that was worth it multiplies it by DOWN < 1, one that was
not by UP > 1. It stands still where a share `p` of the rounds is worth it with

    p log DOWN + (1 - p) log UP = 0
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist, fmean

# Of images in groups with signal. In docs/results/label-economy.md (three seeds) 90 of them gained half of what an oracle's
# scores do, and 280 all of it.
START = 200
FEWEST, MOST = 40, 5000
DOWN = 0.8
# More could not be reached: of rounds that gain .10 in the like rate, about two in three are found better.
TARGET = 2 / 3
UP = DOWN ** (-TARGET / (1 - TARGET))
LIKELY = 0.8  # chance that the new version is better from which a round was worth it


@dataclass(frozen=True)
class Ended:
    """A round whose outcome is known: the labels it was forecast to need, those it had, and whether it was worth it."""

    needed: int
    had: int
    worth: bool

    @property
    def hit(self) -> bool:
        """Whether the forecast was right: enough labels and worth it, or too few and not."""
        return (self.had >= self.needed) == self.worth


def labels_needed(rounds: Iterable[Ended]) -> int:
    """The number of labels after these rounds, oldest first.

    Only a surprise moves the number, or a round near it: that many more labels were enough, or many fewer were not, says
    nothing about whether the number itself is.
    """
    number = float(START)
    for ended in rounds:
        if ended.worth and ended.had * DOWN <= number:
            number *= DOWN
        elif not ended.worth and ended.had >= number * DOWN:
            number *= UP
        number = min(MOST, max(FEWEST, number))
    return round(number)


def chance_better(new: Sequence[tuple[float, float]], old: Sequence[tuple[float, float]]) -> float:
    """P(the mean of `new` is above that of `old`), each value a group's share of likes with its weight; normal
    approximation.

    Groups are the sample, not their images: images of one prompt are liked or disliked together, which binomial counts
    of images would take for so much more evidence. A weight is the inverse of how often the group's prompt was chosen,
    so that the means are those of all prompts alike (Hájek's estimator). Two phantom groups of the mean weight, one
    liked and one not, keep the spread of a few equal groups from being nought (Agresti and Caffo, The American
    Statistician 54, 2000).
    """
    means, squares = [], []
    for groups in (new, old):
        phantom = fmean(weight for _share, weight in groups)
        groups = [*groups, (0.0, phantom), (1.0, phantom)]
        total = sum(weight for _share, weight in groups)
        mean = sum(share * weight for share, weight in groups) / total
        square = sum((weight * (share - mean)) ** 2 for share, weight in groups) / total**2
        means.append(mean)
        squares.append(square * len(groups) / (len(groups) - 1))
    return NormalDist().cdf((means[0] - means[1]) / sqrt(sum(squares)))


def chance_of_scores(before: float, after: float, images: int) -> float:
    """The same of mean scores in 0..1 of so many validation images. The spread is the largest that such scores can have,
    and that the images share their noise is not used, so it errs towards one half."""
    middle = (after + before) / 2
    spread = sqrt(max(2 * middle * (1 - middle), 1e-9) / images)
    return NormalDist().cdf((after - before) / spread)
