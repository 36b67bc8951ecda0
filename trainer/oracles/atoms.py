"""What a prompt asks for, taken apart: atoms, each a question about the image with the answer that is right.

An atom of a GenEval line can be answered exactly where objects are found (`holds`); any other needs somebody to ask.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.geneval_lines import RELATIONS
from trainer.oracles.geneval import Detection, relative_position

MOST = 64  # atoms of a prompt
LONGEST = 1000  # characters of a question
KINDS = ("object", "count", "color", "position")


@dataclass(frozen=True)
class Atom:
    """A question about an image and the right answer. `kind` is one of `KINDS` where it is of the entry `place` of a
    GenEval line's `include`."""

    question: str
    answer: str = "yes"
    kind: str = ""
    place: int = 0


def atoms_of(prompt: str, line: Mapping) -> list[Atom]:
    """The atoms of a prompt by its line, from the first of these that is there: `questions` (texts, answered by yes, or
    [question, answer]); `vqa_list` of GenEval 2 (the same pairs); UniGenBench's `sub_dims` (what its "Testpoint
    Description" lists); GenEval's `include`; else one question for the whole prompt. Raises ValueError, naming the field,
    on what is none of these."""
    for field in ("questions", "vqa_list"):
        if line.get(field):
            return _asked(field, line[field])
    if points := _testpoints(line.get("sub_dims")):
        return _asked(
            "sub_dims", [f"The image was made for: {prompt}. Does it show this: {point}?" for point in points]
        )
    if line.get("include"):
        return [atom for place in range(len(line["include"])) for atom in _of_term(line["include"], place)]
    return [Atom(f"Does this image show exactly what this text describes? {prompt}")]


def _asked(field: str, rows: object) -> list[Atom]:
    if not isinstance(rows, list) or len(rows) > MOST:
        raise ValueError(f"{field}: give a list of at most {MOST} questions")
    return [_pair(f"{field}[{number}]", row) for number, row in enumerate(rows)]


def _pair(field: str, row: object) -> Atom:
    pair = [row, "yes"] if isinstance(row, str) else row
    texts = isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str | int) for text in pair)
    if not texts or not all(0 < len(str(text).strip()) <= LONGEST for text in pair):
        raise ValueError(f"{field}: {row!r:.80} is neither a question nor [question, answer]")
    return Atom(str(pair[0]).strip(), str(pair[1]).strip())


def _testpoints(value: object) -> list[str]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError("sub_dims: not JSON") from None
    found = value.get("Testpoint Description", []) if isinstance(value, Mapping) else []
    if not isinstance(found, list) or not all(isinstance(point, str) for point in found):
        raise ValueError("sub_dims: its Testpoint Description is not a list of texts")
    return found


def _of_term(include: Sequence[Mapping], place: int) -> list[Atom]:
    term = include[place]
    name, count = term["class"], term["count"]
    atoms = [Atom(f"Is there at least one {name} in the image?", kind="object", place=place)]
    if count > 1:
        atoms.append(Atom(f"Is the number of {name} objects in the image exactly {count}?", kind="count", place=place))
    if "color" in term:
        atoms.append(Atom(f"Is every {name} in the image {term['color']}?", kind="color", place=place))
    if "position" in term:
        relation, other = term["position"]
        if relation not in RELATIONS:
            raise ValueError(f"include: {relation!r:.40} is not one of {', '.join(RELATIONS)}")
        of = include[other]["class"]
        atoms.append(Atom(f"Is the {name} {relation} the {of} in the image?", kind="position", place=place))
    return atoms


def holds(atom: Atom, include: Sequence[Mapping], found: Mapping[str, Sequence[Detection]]) -> bool:
    """Whether an atom of these entries is true of the objects that were found, by class."""
    term = include[atom.place]
    objects = found.get(term["class"], ())
    if atom.kind == "object":
        return bool(objects)
    if atom.kind == "count":
        return len(objects) == term["count"]
    if atom.kind == "color":
        return bool(objects) and all(o.color == term["color"] for o in objects)
    relation, other = term["position"]
    others = found.get(include[other]["class"], ())
    return bool(objects and others) and all(
        relation in relative_position(o.box, target.box) for o in objects for target in others
    )


def soft_tifa(probabilities: Sequence[float]) -> dict[str, float]:
    """Soft-TIFA's means of the atoms' probabilities: `arithmetic` counts each atom, and `geometric` is near 0 unless all of
    them are right (GenEval 2, arXiv 2512.16853)."""
    count = len(probabilities)
    logs = sum(math.log(max(p, 1e-300)) for p in probabilities)
    return {"arithmetic": sum(probabilities) / count, "geometric": math.exp(logs / count)}
