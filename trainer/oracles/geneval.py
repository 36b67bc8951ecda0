"""GenEval's rules over detected objects, free of any detector (djghosh13/geneval, evaluation/evaluate_images.py).

A detection is whatever found the object: the scene detector of the demo world or an instance segmenter. Boxes are
(left, top, right, bottom) in pixels with y downwards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.oracles.base import Verdict

CONFIDENCE = 0.3
CONFIDENCE_COUNTING = 0.9
MOST_PER_CLASS = 16
POSITION_SHRINK = 0.1
POSITION_THRESHOLD = 0.5


@dataclass(frozen=True)
class Detection:
    """One found object; `confidence` in 0..1, `color` a colour's name or None when unknown."""

    label: str
    confidence: float
    box: tuple[float, float, float, float]
    color: str | None = None


def relative_position(
    box: Sequence[float], other: Sequence[float], *, threshold: float = POSITION_THRESHOLD
) -> frozenset[str]:
    """The relations that `box` stands in to `other`: a subset of left of, right of, above, below.

    GenEval's rule: the offset of the centres is shrunk per axis by 0.1·(sum of both sizes on that axis), then divided
    by the length of the un-shrunk offset; a component beyond ±threshold names a relation.
    """
    offset = [(box[i] + box[i + 2] - other[i] - other[i + 2]) / 2 for i in (0, 1)]
    length = math.hypot(*offset)
    if length == 0:
        return frozenset()
    relations = set()
    for axis, (before, after) in enumerate((("left of", "right of"), ("above", "below"))):
        sizes = box[axis + 2] - box[axis] + other[axis + 2] - other[axis]
        shrunk = math.copysign(max(abs(offset[axis]) - POSITION_SHRINK * sizes, 0.0), offset[axis]) / length
        if shrunk < -threshold:
            relations.add(before)
        elif shrunk > threshold:
            relations.add(after)
    return frozenset(relations)


def by_class(detections: Sequence[Detection], *, threshold: float) -> dict[str, list[Detection]]:
    """The detections above the threshold, most confident first, at most 16 a class. Of equally confident ones the last
    found comes first, as in GenEval's `np.argsort(…)[::-1]`."""
    found: dict[str, list[Detection]] = {d.label: [] for d in detections}
    for d in sorted(detections, key=lambda d: d.confidence)[::-1]:
        if d.confidence > threshold and len(found[d.label]) < MOST_PER_CLASS:
            found[d.label].append(d)
    return found


def threshold_for(metadata: Mapping) -> float:
    """GenEval's confidence threshold: higher where objects are counted."""
    return CONFIDENCE_COUNTING if metadata.get("tag") == "counting" else CONFIDENCE


def _relation_holds(term: Mapping, objects: Sequence[Detection], targets: Sequence[Detection] | None) -> bool:
    relation = term["position"][0]
    return targets is not None and all(relation in relative_position(o.box, t.box) for o in objects for t in targets)


def is_correct(metadata: Mapping, found: Mapping[str, Sequence[Detection]]) -> tuple[bool, str]:
    """GenEval's benchmark verdict and the reason for a failure.

    Include: at least `count` found, of which the most confident `count` are kept; they must have the colour, and every
    pair with the target group must stand in the relation. Exclude: fails at `count` or more.
    """
    reasons: list[str] = []
    matched: list[Sequence[Detection] | None] = []
    for term in metadata.get("include", ()):
        label, count = term["class"], term["count"]
        objects = list(found.get(label, ()))[:count]
        before = len(reasons)
        if len(objects) < count:
            reasons.append(f"expected {count} {label}, found {len(objects)}")
        else:
            colors = [o.color for o in objects]
            if "color" in term and colors.count(term["color"]) < count:
                seen = ", ".join(str(c) for c in colors)
                reasons.append(f"expected {count} {term['color']} {label}, found {seen}")
            elif "position" in term and not _relation_holds(term, objects, matched[term["position"][1]]):
                reasons.append(f"expected {label} {term['position'][0]} its target")
        matched.append(objects if len(reasons) == before else None)
    for term in metadata.get("exclude", ()):
        have = len(found.get(term["class"], ()))
        if have >= term["count"]:
            reasons.append(f"expected fewer than {term['count']} {term['class']}, found {have}")
    return not reasons, "; ".join(reasons) or "all of the prompt is there"


def partial_reward(metadata: Mapping, found: Mapping[str, Sequence[Detection]]) -> float:
    """The training reward in 0..1: the mean of the prompt's terms, with a strict count.

    A count term is `1 - |found - n| / n` (not below 0). A colour or position term counts only where the count is
    exact: the share of the objects with the right colour, and 1 or 0 for the relation.
    """
    terms: list[float] = []
    matched: list[Sequence[Detection] | None] = []
    for term in metadata.get("include", ()):
        objects, n = list(found.get(term["class"], ())), term["count"]
        exact = len(objects) == n
        terms.append(max(0.0, 1 - abs(len(objects) - n) / n))
        if "color" in term:
            right = sum(o.color == term["color"] for o in objects)
            terms.append(right / n if exact else 0.0)
        if "position" in term:
            terms.append(float(exact and _relation_holds(term, objects, matched[term["position"][1]])))
        matched.append(objects if exact else None)
    return sum(terms) / len(terms) if terms else 0.0


def judge(metadata: Mapping, found: Mapping[str, Sequence[Detection]]) -> Verdict:
    """The strict reward as `score` and `liked`, the benchmark's rule as `correct`."""
    correct, reason = is_correct(metadata, found)
    reward = partial_reward(metadata, found)
    liked = reward == 1.0
    return Verdict(reward, liked, reason if liked or not correct else "more than was asked", correct)


def result_line(
    filename: str, metadata: Mapping, verdict: Verdict, found: Mapping[str, Sequence[Detection]] | None = None
) -> dict:
    """One line of GenEval's results: the benchmark's verdict, and the boxes with their confidences where they are known."""
    details = {label: [[*d.box, d.confidence] for d in group] for label, group in (found or {}).items() if group}
    return {
        "filename": filename,
        "tag": metadata.get("tag", ""),
        "prompt": metadata["prompt"],
        "correct": verdict.correct,
        "reason": "" if verdict.correct else verdict.reason,
        "metadata": json.dumps(dict(metadata)),
        "details": json.dumps(details),
    }
