"""What a round changed, as people see it: pairs of images of the same noise, and each score's change with its error."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from trainer.demo.scenes.prompts import TAGS
from trainer.oracles import Verdict

COLUMNS = 4  # of the pictures before and after


def noted(verdicts: Sequence[Verdict]) -> list[dict]:
    """Verdicts as JSON values."""
    return [{"score": v.score, "liked": v.liked, "correct": v.correct} for v in verdicts]


def changes(lines: Sequence[dict], before: Sequence[dict], after: Sequence[dict]) -> list[dict]:
    """By score, the names being those of `evaluate.tag_scores`: `before`, `after`, `change`, the standard `error` of the
    change (each image is compared with the one of the same prompt and noise) and the number of `images`. The three
    sequences have one length; without verdicts there is nothing to compare."""
    if not before or len(before) != len(after):
        return []
    rows = [(line.get("tag", ""), b, a) for line, b, a in zip(lines, before, after, strict=True)]
    found = [{"name": "reward", **_change(rows, lambda verdict: verdict["score"], share=False)}]
    tags = {tag: [row for row in rows if row[0] == tag] for tag in dict.fromkeys(tag for tag, *_ in rows)}
    by_tag = {tag: _change(mine, lambda verdict: float(verdict["correct"])) for tag, mine in tags.items()}
    strict = {tag: _change(mine, lambda verdict: float(verdict["liked"])) for tag, mine in tags.items()}
    if six := [tag for tag in TAGS if tag in tags]:
        found.append({"name": "geneval", **_mean([by_tag[tag] for tag in six])})
        found.append({"name": "strict", **_mean([strict[tag] for tag in six])})
    return [*found, *({"name": tag or "correct", **by_tag[tag]} for tag in sorted(tags))]


def _change(rows: Sequence[tuple], value: Callable[[dict], float], *, share: bool = True) -> dict:
    """Of a `share` of images the error is that with one more image of each kind that changed (Bonett and Price 2012): of
    two images that both became right nobody knows much."""
    old, new = ([value(row[k]) for row in rows] for k in (1, 2))
    gaps = [b - a for a, b in zip(old, new, strict=True)]
    known = [*gaps, 1.0, -1.0] if share else gaps
    error = statistics.stdev(known) / len(known) ** 0.5 if len(known) > 1 else 1.0
    means = {"before": statistics.fmean(old), "after": statistics.fmean(new), "change": statistics.fmean(gaps)}
    return {**means, "error": error, "images": len(gaps)}


def _mean(parts: Sequence[dict]) -> dict:
    """The mean of independent changes."""
    means = {name: statistics.fmean(part[name] for part in parts) for name in ("before", "after", "change")}
    error = sum(part["error"] ** 2 for part in parts) ** 0.5 / len(parts)
    return {**means, "error": error, "images": sum(part["images"] for part in parts)}


def pairs(
    lines: Sequence[dict], before: Sequence[dict], after: Sequence[dict], opinions: Sequence[float] = ()
) -> list[dict]:
    """The pictures' images in order, row by row: `prompt`, `tag`, both verdicts, and how much better the surrogate likes
    the new image (`opinion`); None where nobody judged."""

    def at(given: Sequence, i: int) -> dict | float | None:
        return given[i] if i < len(given) else None

    return [
        {
            "prompt": line["prompt"],
            "tag": line.get("tag", ""),
            "before": at(before, i),
            "after": at(after, i),
            "opinion": at(opinions, i),
        }
        for i, line in enumerate(lines)
    ]
