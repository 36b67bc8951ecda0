"""Prompts of several objects at once, of as many atoms as are asked for, in the manner of GenEval 2.

An atom is an object, its number, its colour or its place (`trainer.oracles.atoms`). The demo's own prompts have one to
four; none of these is trained on. The world draws four objects at most.
"""

from __future__ import annotations

import random

from trainer.demo.scenes.draw import RADII
from trainer.demo.scenes.world import COLORS, NUMBERS, PLURALS, RELATIONS, SHAPES
from trainer.prompts import Prompt

TAG = "composition"
FEWEST, MOST = 3, 10  # atoms


def composition(atoms: int, rng: random.Random) -> Prompt:
    """A random prompt of exactly `atoms` atoms. Raises ValueError outside of FEWEST to MOST."""
    if not FEWEST <= atoms <= MOST:
        raise ValueError(f"atoms: {atoms} is not within {FEWEST} and {MOST}")
    while True:
        terms = _terms(atoms, rng)
        if terms is not None:
            return Prompt(_text(terms), TAG, "test", {"tag": TAG, "prompt": _text(terms), "include": terms})


def _terms(atoms: int, rng: random.Random) -> list[dict] | None:
    """Entries of as many different shapes as the draw says, with what else they need; None if they come to less."""
    terms: list[dict] = [{"class": shape, "count": 1} for shape in rng.sample(SHAPES, rng.randint(2, max(RADII)))]
    have, objects = len(terms), len(terms)
    more = [(place, what) for place in range(len(terms)) for what in ("color", "count", "position")]
    rng.shuffle(more)
    for place, what in more:
        term = terms[place]
        if have >= atoms:
            break
        if what == "color":
            term["color"] = rng.choice(tuple(COLORS))
        elif what == "count" and objects < max(RADII):
            term["count"], objects = 2, objects + 1
        elif what == "position" and place and "position" not in terms[place - 1]:
            term["position"] = [rng.choice(RELATIONS), place - 1]
        else:
            continue
        have += 1
    return terms if have == atoms else None


def _named(term: dict) -> str:
    return PLURALS[term["class"]] if term["count"] > 1 else term["class"]


def _text(terms: list[dict]) -> str:
    parts = []
    for term in terms:
        name = f"{term['color']} {_named(term)}" if "color" in term else _named(term)
        article = "an" if name[0] in "aeiou" else "a"
        name = f"{NUMBERS.get(term['count'], article)} {name}"
        if "position" in term:
            relation, other = term["position"]
            name += f" {relation} the {_named(terms[other])}"
        parts.append(name)
    return " and ".join(parts)
