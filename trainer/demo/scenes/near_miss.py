"""Near misses: a scene that shows almost what a prompt asks for, wrong in one of the ways that GenEval looks for.

A base model that is trained on captions of which some are wrong finds wrong images likely, as models trained on web
captions do. The demo's base is such a model, so that what people like has something to teach it
(docs/decisions.md). Evaluation and rewards never see this module.

Each way is wrong in one direction: a colour, a shape, a relation or a letter is confused with the next one on a ring, a
count is one off. Mistakes that were spread evenly would not do: guidance follows the likeliest image of a caption and would
mend every mistake that is rarer than the truth. A ring has one direction, so that two captions never become synonyms.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence

from trainer.demo.scenes.draw import RADII
from trainer.demo.scenes.world import COLORS, SHAPES

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
RELATION_RING = ("left of", "above", "right of", "below")


def following(value: str, ring: Sequence[str]) -> str:
    """What `value` is confused with: the next one on the ring."""
    ring = tuple(ring)
    return ring[(ring.index(value) + 1) % len(ring)]


def _objects(metadata: dict) -> int:
    return sum(term["count"] for term in metadata["include"])


def fewer(metadata: dict, rng: random.Random) -> None:
    """One object fewer than was asked for."""
    metadata["include"][0]["count"] -= 1


def more(metadata: dict, rng: random.Random) -> None:
    """One object more, where the world has room for it; else one fewer."""
    metadata["include"][0]["count"] += 1 if _objects(metadata) < max(RADII) else -1


def color(metadata: dict, rng: random.Random) -> None:
    """The last coloured object in the colour that follows its own."""
    term = next(t for t in reversed(metadata["include"]) if "color" in t)
    term["color"] = following(term["color"], COLORS)


def shape(metadata: dict, rng: random.Random) -> None:
    """The last object as the shape that follows its own, never one that the prompt names already."""
    named = {t["class"] for t in metadata["include"]}
    term = metadata["include"][-1]
    while term["class"] in named:
        term["class"] = following(term["class"], SHAPES)


def swap(metadata: dict, rng: random.Random) -> None:
    """Two objects, each in the other's colour."""
    one, other = metadata["include"]
    one["color"], other["color"] = other["color"], one["color"]


def relation(metadata: dict, rng: random.Random) -> None:
    """The right objects, a quarter turn away from where they should be."""
    term = next(t for t in metadata["include"] if "position" in t)
    term["position"][0] = following(term["position"][0], RELATION_RING)


def missing(metadata: dict, rng: random.Random) -> None:
    """All but the last object."""
    metadata["include"].pop()


def extra(metadata: dict, rng: random.Random) -> None:
    """One more of the last object than was asked for, which GenEval's rule forgives and the strict one does not."""
    metadata["include"][-1]["count"] += 1


def letter(metadata: dict, rng: random.Random) -> None:
    """The word's last letter is the next one of the alphabet."""
    text = metadata["text"]
    metadata["text"] = text[:-1] + following(text[-1], LETTERS)


# Of each tag's drawings, the share that is wrong in each way; the rest is right.
SHARES: dict[str, dict[Callable[[dict, random.Random], None], float]] = {
    "single_object": {shape: 0.62, extra: 0.03},
    "two_object": {missing: 0.04, shape: 0.28},
    "counting": {fewer: 0.08, more: 0.04},
    "colors": {color: 0.55},
    "position": {relation: 0.56, missing: 0.02},
    "color_attr": {swap: 0.03, color: 0.28},
    "word": {letter: 0.52},
}


def drawn_as(metadata: dict, rng: random.Random, *, scale: float = 1.0) -> dict:
    """What to draw under a prompt of this metadata: the metadata itself or, with `scale` times the probabilities of
    `SHARES`, a near miss of it. `sample_scene` takes either. The metadata that is given stays as it is."""
    if not scale:
        return metadata
    at = rng.random()
    for way, share in SHARES[metadata["tag"]].items():
        at -= scale * share
        if at < 0:
            wrong = copy.deepcopy(metadata)
            way(wrong, rng)
            return wrong
    return metadata
