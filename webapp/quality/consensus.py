"""What the labels of an image and of a group come to. Pure functions of plain values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOVED = 0.02  # of a rate
# Of a person who was not measured, beside others who were: people agree on preferences 65 to 78% of the time.
UNMEASURED = 0.75


@dataclass(frozen=True)
class Reliability:
    """How often a person says like of an image that is liked, and dislike of one that is not; each in [0.5, 1)."""

    like: float
    dislike: float

    def moved(self, before: Reliability) -> bool:
        """Whether it is so far from what it was that rewards should follow."""
        return max(abs(self.like - before.like), abs(self.dislike - before.dislike)) > MOVED


@dataclass(frozen=True)
class Vote:
    """A person's label of an image; `reliability` is None while that person was not measured."""

    liked: bool
    reliability: Reliability | None = None


def posterior(votes: Sequence[Vote], prior: float = 0.5) -> float:
    """P(liked | votes) under the model of Dawid and Skene (1979), with each person's own two error rates.

    While nobody among the voters was measured it is the share of likes: the model would add a constant and nothing else.
    """
    if all(v.reliability is None for v in votes):
        return sum(v.liked for v in votes) / len(votes)
    return _bayes(votes, prior)


def _bayes(votes: Sequence[Vote], prior: float) -> float:
    odds = math.log(prior / (1 - prior))
    for vote in sorted(votes, key=lambda v: (v.liked, _rates(v))):  # one order, so that equal votes give equal bits
        like, dislike = _rates(vote)
        odds += math.log(like / (1 - dislike)) if vote.liked else math.log((1 - like) / dislike)
    return 1 / (1 + math.exp(-odds))


def _rates(vote: Vote) -> tuple[float, float]:
    known = vote.reliability or Reliability(UNMEASURED, UNMEASURED)
    return known.like, known.dislike


def reward(
    *, overruled: bool | None = None, votes: Sequence[Vote] = (), scores: Sequence[float] = (), prior: float = 0.5
) -> float | None:
    """An image's reward in 0..1: a reviewer's word, else people's posterior, else the oracles' mean score, else None."""
    if overruled is not None:
        return float(overruled)
    if votes:
        return posterior(votes, prior)
    return sum(scores) / len(scores) if scores else None


def certainty(images: Iterable[tuple[bool | None, Sequence[Vote]]], prior: float = 0.5) -> float:
    """The expected share of a group's images whose label is right, 0.5..1; of each there are a reviewer's word and people's
    votes. A newcomer counts as UNMEASURED, also among newcomers: one word of theirs is not final. 0 without images."""
    sure = [1.0 if word is not None else _sure(votes, prior) for word, votes in images]
    return sum(sure) / len(sure) if sure else 0.0


def _sure(votes: Sequence[Vote], prior: float) -> float:
    likely = _bayes(votes, prior)
    return max(likely, 1 - likely)


def tied(votes: Sequence[Vote]) -> bool:
    """Whether people are split evenly over an image."""
    return len(votes) > 1 and 2 * sum(v.liked for v in votes) == len(votes)
