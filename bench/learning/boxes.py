"""Whether a box on what is wrong teaches more: the surrogate's loss weighed inside of boxes, for equal clicks.

    python -m bench.learning.boxes --seeds 0 1 2 --threads 1

Simulated people like or dislike groups of the demo student's images, as the strict oracle does but for one label in ten,
and draw a box around the first object that the prompt did not ask for; images where nothing such is found get none. A box
is a click like a label, so who draws boxes rates fewer groups. Rows: no boxes; boxes that weigh nothing; boxes that weigh
three and ten times; and boxes of that size at random places, which say nothing. A round of the app's default settings
learns from each, and test prompts are scored. `--table` prints the table of what is there.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from bench.harness import START, heading, make_missing, markdown, parser_of_rows, spread
from bench.learning import economy
from bench.learning.gains import GROUP_SIZE, oracle_spec, scores_and_looks
from bench.learning.label_economy import COLUMNS, gains, settings_of
from trainer.backends import Backend, load_backend
from trainer.boxes import Box
from trainer.cli import MODEL, STUDENT
from trainer.data import LabelledGroup
from trainer.oracles.geneval import Detection
from trainer.oracles.scenes import detect
from trainer.rounds import prepare, run
from trainer.sampler import load_trajectory


@dataclass(frozen=True)
class Row:
    """What people draw and what it weighs. `boxes`: "" for none, "wrong" around what is wrong, "random" anywhere."""

    title: str
    boxes: str = "wrong"
    settings: dict = field(default_factory=dict)


ROWS = {
    "none": Row("labels alone", ""),
    "unused": Row("boxes, not used"),
    "three": Row("boxes, three times", settings={"box_weight": 3.0}),
    "ten": Row("boxes, ten times", settings={"box_weight": 10.0}),
    "random": Row("boxes at random places, ten times", "random", {"box_weight": 10.0}),
}


def wrong_object(metadata: Mapping, found: Sequence[Detection]) -> Detection | None:
    """The first object that the prompt did not ask for: of another kind, in another colour, or one too many; None where
    each was asked for."""
    asked = {term["class"]: term for term in metadata["include"]}
    seen: dict[str, int] = {}
    for one in found:
        term = asked.get(one.label)
        seen[one.label] = seen.get(one.label, 0) + 1
        if term is None or seen[one.label] > term.get("count", 1) or term.get("color", one.color) != one.color:
            return one
    return None


def share_box(box: tuple[float, float, float, float], size: tuple[int, int]) -> Box:
    """Corners in pixels → left, top, width, height as shares of an image of `size` (width, height)."""
    (left, top, right, bottom), (width, height) = box, size
    return (left / width, top / height, (right - left) / width, (bottom - top) / height)


@torch.no_grad()
def boxes_of(backend: Backend, group: LabelledGroup, kind: str, rng: random.Random) -> tuple[tuple[Box, ...], ...]:
    """What is boxed of each disliked image of a group."""
    images = backend.decode(load_trajectory(Path(group.trajectory_file)).trajectory[:, -1])
    found = []
    for image, reward in zip(images, group.rewards, strict=True):
        wrong = wrong_object(group.metadata, detect(image)) if reward == 0 else None
        box = None if wrong is None else share_box(wrong.box, image.size)
        if box is not None and kind == "random":
            box = (rng.uniform(0, 1 - box[2]), rng.uniform(0, 1 - box[3]), box[2], box[3])
        found.append(() if box is None else (box,))
    return tuple(found)


def collect(row: Row, seed: int, clicks: int, folder: Path) -> tuple[list[LabelledGroup], dict]:
    """As many groups as the clicks are enough for, and what was spent on them."""
    people, backend, spent, groups = economy.PEOPLE["one"], load_backend(MODEL), {"labels": 0, "boxes": 0}, []
    rated = economy.rated_groups(STUDENT, clicks // GROUP_SIZE, GROUP_SIZE, 1.0, seed, folder)
    votes = [economy.votes_of(people, group, seed) for group in rated]
    for group in economy.labelled(rated, economy.shares(votes)):
        boxes = boxes_of(backend, group, row.boxes, random.Random(f"{seed}-{group.group}")) if row.boxes else ()
        drawn = sum(map(len, boxes))
        if spent["labels"] + spent["boxes"] + len(group.rewards) + drawn > clicks:
            break
        spent["labels"] += len(group.rewards)
        spent["boxes"] += drawn
        groups.append(replace(group, boxes=boxes))
    return groups, spent


def train(row: Row, name: str, seed: int, clicks: int, changes: dict, work: Path) -> tuple[Path, dict]:
    """Collect labels and run the row's round; returns the version's folder and what was spent."""
    home = work / f"{name}-{seed}"
    spec = oracle_spec(home, replace(settings_of(row, changes), seed=seed), parent=STUDENT)
    groups, spent = collect(row, seed, clicks, work / f"rated-{seed}")
    spent["signal"] = economy.write_groups(groups, home / "groups.jsonl")
    run(prepare(replace(spec, reward_oracle=None, groups_file=str(home / "groups.jsonl"))))
    return home / "version", spent


def table(lines: list[dict]) -> str:
    """Every row's gain on test prompts over the student that all started from."""
    out = []
    for name, row in ROWS.items():
        runs = [line for line in lines if line["row"] == name]
        if runs:
            counts = [f"{sum(run[what] for run in runs) / len(runs):.0f}" for what in ("labels", "boxes", "signal")]
            out.append([row.title, f"{len(runs)}", *counts, *(spread(gains(lines, name, "test", c)) for c in COLUMNS)])
    return markdown(["people", "seeds", "labels", "boxes", "groups with signal", *map(heading, COLUMNS)], out)


def main() -> None:
    """Make what is missing, then print the table."""
    parser = parser_of_rows(__doc__, ROWS, Path("runs") / "boxes")
    parser.add_argument("--clicks", type=int, default=1000, help="of each row: a label or a box is one")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)

    def make(name: str, seed: int) -> dict:
        version, spent = STUDENT, {}
        if name != START:
            version, spent = train(ROWS[name], name, seed, a.clicks, a.settings, a.work)
        return {**spent, "test": scores_and_looks(version, a.per_tag, "test")}

    def made_with(name: str) -> dict:
        settings = None if name == START else settings_of(ROWS[name], a.settings).to_json()
        return {"per_tag": a.per_tag, "clicks": a.clicks, "settings": settings}

    print(table(make_missing(parser, a, made_with, make)))


if __name__ == "__main__":
    main()
