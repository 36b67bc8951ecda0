"""How far an oracle says what people say, and from which score on it should say "liked". Pure functions of plain values.

Images of a group are not independent, so groups are what is counted: an interval's width follows from how groups differ.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

Z = 1.96  # of a 95% interval
FEW_KNOWN = 20  # images with a known answer, below which no threshold is fitted


@dataclass(frozen=True)
class Agreement:
    """The share of images on which both say the same, with its 95% interval."""

    share: float
    low: float
    high: float
    images: int
    groups: int


def agreement(by_group: Mapping[Hashable, Sequence[bool]]) -> Agreement:
    """Of each group's images, whether both say the same; at least one image. Wilson's interval for as many independent
    images as would vary so much; where nothing varies, for as many as there are groups."""
    images = sum(len(same) for same in by_group.values())
    share = sum(sum(same) for same in by_group.values()) / images
    groups = len(by_group)
    worth = float(groups)
    spread = sum((sum(same) - share * len(same)) ** 2 for same in by_group.values())
    if groups > 1 and spread > 0:
        variance = spread / images**2 * groups / (groups - 1)
        worth = min(images, share * (1 - share) / variance)
    half = Z * math.sqrt(share * (1 - share) / worth + Z**2 / (4 * worth**2))
    middle, scale = share + Z**2 / (2 * worth), 1 + Z**2 / worth
    low, high = max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
    return Agreement(share, low, high, images, groups)


@dataclass(frozen=True)
class Known:
    """An image whose right label is known, with the oracle's score."""

    group: Hashable
    score: float
    liked: bool


@dataclass(frozen=True)
class Threshold:
    """From `value` on a score means "liked"; `right` is the share of images judged rightly when their own group had no part
    in the fit."""

    value: float
    right: float
    images: int


def threshold(known: Sequence[Known]) -> Threshold | None:
    """Fitted to balanced accuracy; None with fewer images than `FEW_KNOWN`, or of one label only."""
    if len(known) < FEW_KNOWN or len({k.liked for k in known}) < 2:
        return None
    right = 0
    for group in dict.fromkeys(k.group for k in known):
        others = [k for k in known if k.group != group]
        value = _best(others) if len({k.liked for k in others}) == 2 else 0.5
        right += sum((k.score >= value) == k.liked for k in known if k.group == group)
    return Threshold(_best(known), right / len(known), len(known))


def _best(known: Sequence[Known]) -> float:
    """The middle between two scores that parts liked from disliked best; of equally good ones the nearest to one half."""
    liked = sum(k.liked for k in known)
    disliked = len(known) - liked
    ordered = sorted(known, key=lambda k: k.score)
    below_liked = below_disliked = 0
    found: list[tuple[float, float]] = []
    for here, after in itertools.pairwise(ordered):
        below_liked += here.liked
        below_disliked += not here.liked
        if here.score < after.score:
            value = (here.score + after.score) / 2
            balanced = (liked - below_liked) / liked + below_disliked / disliked
            found.append((-balanced, abs(value - 0.5), value))
    return min(found)[2] if found else 0.5
