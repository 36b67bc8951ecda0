"""Why images are not liked: what is wrong with those of the demo's students and of their base.

    python -m bench.learning.failures --seeds 0 1 2

Each image of a test prompt is one of: `right` by the strict oracle; `too many` or `too few` things in it, whatever they
are; `ill-formed`, as many things as asked for, but not all of them a shape of one colour; `mixed up`, well-formed but not
what or not where the prompt says. Shapes that touch are one thing. Seeds are sets of noise, the first one the evaluations'.
Finished parts are lines of WORK/runs.jsonl and are not made again.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from bench.harness import Runs, add_work, markdown, mean_row, runs_of
from trainer.cli import AFTER, MODEL, STUDENT
from trainer.demo.scenes.prompts import TAGS, evaluation_prompts
from trainer.evaluate import FIRST_SEEDS, evaluate
from trainer.oracles import get_oracle
from trainer.oracles.scenes import FOREGROUND, SPECK, background_color, detect
from trainer.sampler import Sampler

KINDS = ("right", "too many", "too few", "ill-formed", "mixed up")
SEEDS_APART = 1_000_000
WAYS = {
    "before, 4 steps": (STUDENT, {"steps": 4}),
    "after, 4 steps": (AFTER, {"steps": 4}),
    "after, 5 steps": (AFTER, {"steps": 5}),
    "after, 8 steps": (AFTER, {"steps": 8}),
    "base, 40 steps, guided": (None, {"steps": 40, "guidance": 4.0}),
}


def things(image: Image.Image) -> int:
    """How many separate things stand out from the background, well-formed or not."""
    pixels = np.asarray(image.convert("RGB"), float)
    labels, _ = ndimage.label(np.linalg.norm(pixels - background_color(pixels), axis=2) > FOREGROUND)
    return int((np.bincount(labels.ravel())[1:] >= SPECK).sum())


def kind_of(image: Image.Image, line: Mapping, liked: bool) -> str:
    """One of `KINDS`, for an image of a GenEval line and the strict oracle's verdict."""
    if liked:
        return "right"
    wanted, seen = sum(term["count"] for term in line["include"]), things(image)
    if seen != wanted:
        return "too many" if seen > wanted else "too few"
    return "ill-formed" if len(detect(image)) < wanted else "mixed up"


def shares(lora: Path | None, seed: int, per_tag: int, how: dict) -> dict[str, dict[str, float]]:
    """The share of each kind, of all images and of each tag's."""
    sampler = Sampler(MODEL)
    sampler.use_version(lora)
    rows = evaluation_prompts("test", per_tag, tags=TAGS)
    first = FIRST_SEEDS["test"] + SEEDS_APART * seed
    result = evaluate(sampler.backend, rows, get_oracle("scenes"), bf16=True, first_seed=first, **how)
    found: dict[str, Counter] = {"all": Counter(), **{tag: Counter() for tag in TAGS}}
    for image, row, verdict in zip(result.images, rows, result.verdicts, strict=True):
        kind = kind_of(image, row.metadata, verdict.liked)
        found["all"][kind] += 1
        found[row.metadata["tag"]][kind] += 1
    return {name: {kind: count[kind] / count.total() for kind in KINDS} for name, count in found.items()}


def sections(lines: list[dict]) -> dict[str, str]:
    """A table for all images and for each tag's: the share of each kind, mean ± standard deviation over the sets."""
    found = {}
    for tag in ("all", *TAGS):
        runs = {way: [{"scores": line["scores"][tag]} for line in runs_of(lines, way)] for way in WAYS}
        rows = [[way, str(len(made)), *mean_row(made, KINDS)] for way, made in runs.items() if made]
        found[tag] = markdown([tag, "seeds", *KINDS], rows)
    return found


def main() -> None:
    """Make what is missing and print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--per-tag", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    add_work(parser, "failures")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    runs = Runs(a.work, lambda row: {"per_tag": a.per_tag})
    for seed in a.seeds:
        for way, (lora, how) in WAYS.items():
            runs.once(way, seed, lambda v=lora, s=seed, h=how: {"scores": shares(v, s, a.per_tag, h)})
    for text in sections(runs.lines).values():
        print(f"{text}\n")


if __name__ == "__main__":
    main()
