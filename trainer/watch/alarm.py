"""When a round stops teaching what it was asked to: pure functions that compare opinions.

A student may follow the surrogate to where it is wrong. Then three things that agreed until then part: the surrogate likes
the student's images better than its parent's, while labels that it never saw, the validation oracle or measures that know
nothing of the reward (`second_measure`) say that they became worse. At every validation a `Look` holds all of them, the
images compared in pairs of one noise, and `parting` says whether they have parted.

A fall counts when it is beyond noise *and* large: an honest round moves every measure a little, and does so significantly.
What an image shows may fall least. What it looks like may change more, as fewer objects or a plainer style may be wanted.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

ERRORS = 3.0  # standard errors from which a difference is beyond noise
OPINION_ERRORS = 2.0  # the same of the surrogate's opinion
# Shares of the parent's value lost, of which the first must be seen twice in a row and the second once.
SHOWS = (0.2, 0.4)  # of what an image shows
LOOKS_LIKE = (0.45, 0.6)  # of the measures of pixels; an honest round of 139 updates lost up to 0.23
SHOWN = ("score", "recognition")
GONE = 0.8  # share of what an image shows from which on no update turns back, even where the surrogate minds the fall
HELD_OUT_ERRORS = 5.0  # the best of several looks is partly luck, and there are few groups
HELD_OUT_FALL = 0.1  # accuracy on held-out groups lost since its best

NAMES = {
    "score": "the validation oracle's score",
    "recognition": "how well the base model recognises the prompt in the image",
    "contrast": "contrast",
    "sharpness": "sharpness",
    "colourfulness": "colourfulness",
    "diversity": "diversity",
}


@dataclass(frozen=True)
class Reading:
    """A mean difference from the parent and its standard error."""

    change: float
    error: float


def relative(new: Sequence[float], old: Sequence[float]) -> Reading:
    """Paired difference of two measurements as a share of the old ones' mean; both have one order."""
    scale = max(abs(statistics.fmean(old)), 1e-6)
    return mean_of([(a - b) / scale for a, b in zip(new, old, strict=True)])


def mean_of(values: Sequence[float]) -> Reading:
    """Mean and standard error; the error of a single value is unknown, thus infinite."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("inf")
    return Reading(statistics.fmean(values), error)


@dataclass(frozen=True)
class Look:
    """What was seen at a validation. `opinion` is how much better the surrogate likes the student's images than the
    parent's; `measures` are relative changes since the parent; `held_out` and `trained` the surrogate's accuracy on each
    of the labelled groups that it never saw and of as many that it trains on."""

    step: int
    opinion: Reading | None  # None: the method has no surrogate
    measures: Mapping[str, Reading] = field(default_factory=dict)
    held_out: Sequence[float] = ()
    trained: Sequence[float] = ()

    def to_json(self) -> dict:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict) -> Look:
        """The look of a JSON object."""
        measures = {name: Reading(**value) for name, value in values["measures"].items()}
        opinion = values["opinion"] and Reading(**values["opinion"])
        return cls(**{**values, "opinion": opinion, "measures": measures})

    def metrics(self) -> dict[str, float]:
        """What is worth logging; measures as shares of the parent's value."""
        found = {"opinion": self.opinion.change} if self.opinion else {}
        found |= {f"second_{name}": 1 + reading.change for name, reading in self.measures.items()}
        if self.held_out:
            found |= {"accuracy_held_out": _mean(self.held_out), "accuracy_trained": _mean(self.trained)}
        return found


def fallen(look: Look, *, clearly: bool = False) -> list[str]:
    """Measures that lost more than their share of the parent's value, beyond noise, while the surrogate does not find the
    images worse; the deepest fall first. It need not like them better: of images unlike any that it learned from it knows
    nothing, and that is where a student ends that follows it too far. Where it does find them worse it will turn back,
    unless next to nothing is left of what they show."""
    worse = _finds_worse(look)

    def low(name: str, reading: Reading) -> bool:
        if worse and name not in SHOWN:
            return False
        share = GONE if worse else (SHOWS if name in SHOWN else LOOKS_LIKE)[clearly]
        return reading.change < -share and reading.change < -ERRORS * reading.error

    found = [name for name, reading in look.measures.items() if low(name, reading)]
    return sorted(found, key=lambda name: look.measures[name].change)


def forgotten(looks: Sequence[Look]) -> Reading | None:
    """The newest look's fall of accuracy on held-out groups since the best earlier one, if it is large and beyond noise
    while the groups that the surrogate trains on are ranked no worse than then."""
    if len(looks) < 2 or not looks[-1].held_out:
        return None
    now, best = looks[-1], max(looks[:-1], key=lambda look: _mean(look.held_out))
    fall = mean_of([a - b for a, b in zip(now.held_out, best.held_out, strict=True)])
    large = fall.change < -HELD_OUT_FALL and fall.change < -HELD_OUT_ERRORS * fall.error
    return fall if large and _mean(now.trained) >= _mean(best.trained) else None


def suspicious(looks: Sequence[Look], *, last: bool = False) -> bool:
    """Whether what the newest look saw should not be kept: the alarm fires, or might at the next look."""
    if not looks or last:
        return bool(parting(looks, last=last))
    return bool(fallen(looks[-1])) or forgotten(looks) is not None


def parting(looks: Sequence[Look], *, last: bool = False) -> str:
    """Why the round should stop, in plain words, by its looks in order; empty while there is no reason.

    One look suffices when a measure fell clearly; otherwise two in a row must have seen the same measure fall, or held-out
    groups be forgotten. Where no look follows (`last`), one such fall is enough, as nobody could clear it; of held-out
    groups, which are few, two looks are always asked.
    """
    if not looks:
        return ""
    now, before = looks[-1], looks[:-1]
    names = fallen(now, clearly=True)
    if not names:
        seen = fallen(now) if last else fallen(before[-1]) if before else []
        names = [name for name in fallen(now) if name in seen]
    if names:
        falls = " and ".join(_fall(name, now.measures[name]) for name in names[:3])
        if now.opinion is None:
            return falls
        if _finds_worse(now):
            return f"the surrogate likes the new images less than the parent's, too, and {falls}"
        better = now.opinion.change > OPINION_ERRORS * now.opinion.error
        return f"the surrogate likes the new images {'better' if better else 'no less'} than the parent's, but {falls}"
    fall = forgotten(looks)
    if fall is not None and forgotten(before) is not None:
        right, trained = _mean(now.held_out), _mean(now.trained)
        return (
            f"the surrogate ranks {right:.0%} of the pairs in held-out labelled groups right, "
            f"{-100 * fall.change:.0f} points fewer than at its best, and {trained:.0%} in those it trains on"
        )
    return ""


def _finds_worse(look: Look) -> bool:
    return bool(look.opinion) and look.opinion.change < -OPINION_ERRORS * look.opinion.error


def _fall(name: str, reading: Reading) -> str:
    return f"{NAMES.get(name, name)} fell by {-reading.change:.0%} (± {reading.error:.0%})"


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)
