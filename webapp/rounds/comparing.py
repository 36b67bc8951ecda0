"""Before and after, for the round's page: what its pictures show and how sure each change of a score is."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

from common.round_folder import GRID_GAP
from webapp.lib import paths, storage
from webapp.rounds.models import TrainingRound

log = logging.getLogger(__name__)
SURE = 1.96  # standard errors of a 95% interval
MOST_PAIRS = 256


@dataclass(frozen=True)
class Change:
    """A score before and after with the 95% interval of its change, over `images` images of the same prompts and noise."""

    name: str
    before: float
    after: float
    change: float
    low: float
    high: float
    images: int

    @property
    def verdict(self) -> str:
        """better, worse, or unsure where the interval has both."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "unsure"


@dataclass(frozen=True)
class Pair:
    """Two images of one prompt and noise: their place in both pictures, in pixels, whether each is right, and how much
    better the surrogate likes the new one (None: nobody judged)."""

    prompt: str
    tag: str
    x: int
    y: int
    before: bool | None
    after: bool | None
    opinion: float | None = None

    @property
    def changed(self) -> bool:
        """Whether the two are judged differently."""
        return self.before is not self.after


@dataclass(frozen=True)
class Comparison:
    """What a finished round left to compare; `size` is an image's, `sheet` a picture's width and height."""

    pairs: tuple[Pair, ...]
    changes: tuple[Change, ...]
    size: tuple[int, int]
    sheet: tuple[int, int]

    @property
    def main(self) -> Change | None:
        """The change that the page's first sentence is about."""
        return self.changes[0] if self.changes else None

    @property
    def tags(self) -> list[str]:
        """Of the pairs."""
        return sorted({pair.tag for pair in self.pairs} - {""})


def comparison(training: TrainingRound) -> Comparison | None:
    """The round's, or None where there is none: rounds of earlier versions left only pictures."""
    name = paths.comparison(training.pk)
    try:
        return _read(json.loads(storage.store().read(name)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s cannot be read: %s", name, error)
        return None


def _read(values: dict) -> Comparison:
    columns, (width, height) = int(values["columns"]), map(int, values["size"])
    if columns < 1 or not (0 < width <= 8192 and 0 < height <= 8192):
        raise ValueError("columns, size: out of range")
    given = values["pairs"][:MOST_PAIRS]
    pairs = tuple(
        Pair(
            str(row["prompt"]),
            str(row["tag"]),
            i % columns * (width + GRID_GAP),
            i // columns * (height + GRID_GAP),
            _liked(row["before"]),
            _liked(row["after"]),
            None if row.get("opinion") is None else float(row["opinion"]),
        )
        for i, row in enumerate(given)
    )
    rows = -(-len(pairs) // columns)
    sheet = (columns * (width + GRID_GAP) - GRID_GAP, max(1, rows) * (height + GRID_GAP) - GRID_GAP)
    return Comparison(pairs, tuple(_change(row) for row in values["changes"]), (width, height), sheet)


def _liked(verdict: dict | None) -> bool | None:
    return None if verdict is None else bool(verdict["liked"])


def _change(row: dict) -> Change:
    before, after, change, error = (float(row[name]) for name in ("before", "after", "change", "error"))
    return Change(
        str(row["name"]), before, after, change, change - SURE * error, change + SURE * error, int(row["images"])
    )
