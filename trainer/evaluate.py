"""Score a model on prompts it never trained on: GenEval's six-tag mean and word accuracy, with NFE and guidance stated."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from common.files import write_atomic, write_image
from common.round_folder import GRID_GAP
from common.sizes import Size, size_in
from trainer.backends import Backend, Conditioning
from trainer.batches import equal_parts
from trainer.demo.scenes.prompts import TAGS, WORD
from trainer.oracles import Oracle, Verdict
from trainer.oracles.geneval import result_line
from trainer.prompts import Prompt, input_size
from trainer.sampler import initial_noise, sample_latents

# First noise seed by split, far from each other and from the seeds of training and labelling.
FIRST_SEEDS = {"train": 700_000_000, "validation": 800_000_000, "test": 900_000_000}


@dataclass(frozen=True)
class Evaluation:
    """Images of the prompts with their verdicts; `scores` is what reports print. Both are empty without an oracle;
    `latents` are what the N images were decoded from, each (C, h, w) of its size, on the CPU."""

    images: list[Image.Image]
    verdicts: list[Verdict]
    scores: dict[str, float]
    latents: Sequence[torch.Tensor] = ()


def tag_scores(rows: Sequence[Prompt], verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Share of images that are correct by tag, `geneval` (mean of the six tags that are there), `strict` (the same with
    the strict verdict), `reward` (mean training reward), `word` where there are words, and `correct` over all images where
    there are prompts of no such kind."""
    scores: dict[str, float] = {}
    strict: dict[str, float] = {}
    for tag in (*TAGS, WORD):
        mine = [v for r, v in zip(rows, verdicts, strict=True) if r.tag == tag]
        if mine:
            scores[tag] = sum(v.correct for v in mine) / len(mine)
            strict[tag] = sum(v.liked for v in mine) / len(mine)
    present = [tag for tag in TAGS if tag in scores]
    if present:
        scores["geneval"] = sum(scores[tag] for tag in present) / len(present)
        scores["strict"] = sum(strict[tag] for tag in present) / len(present)
    if any(r.tag not in (*TAGS, WORD) for r in rows):
        scores["correct"] = sum(v.correct for v in verdicts) / len(verdicts)
    scores["reward"] = sum(v.score for v in verdicts) / max(1, len(verdicts))
    return scores


def clearly_worse(new: Sequence[float], old: Sequence[float]) -> bool:
    """Whether rewards of images fall behind those of other images of the same prompts and seeds by more than the standard
    error of the paired difference. Needs equally many, in the same order."""
    gaps = [a - b for a, b in zip(new, old, strict=True)]
    error = statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else 0.0
    return statistics.fmean(gaps) < -error


def sample_images(
    backend: Backend, prompts: Sequence[str], *, first_seed: int = FIRST_SEEDS["validation"], **sampling
) -> list[Image.Image]:
    """One image a prompt, the i-th from noise seed `first_seed + i` and of `sizes[i]` (None: the present size): in `steps`
    steps of the active role at `guidance`, or by `sample(conditioning, noise, grid)`, which gives whole trajectories."""
    return _sample(backend, prompts, first_seed=first_seed, **sampling)[0]


def _sample(
    backend: Backend,
    prompts: Sequence[str],
    *,
    steps: int,
    guidance: float = 1.0,
    first_seed: int,
    sizes: Sequence[Size | None] = (),
    batch: int = 64,
    bf16: bool = False,
    sample: Callable[[Conditioning, torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> tuple[list[Image.Image], list[torch.Tensor]]:
    sample = sample or partial(sample_latents, backend, guidance=guidance, bf16=bf16)
    found: dict[int, tuple[Image.Image, torch.Tensor]] = {}
    kinds = [(size, input_size(p)) for size, p in zip(sizes or [None] * len(prompts), prompts, strict=True)]
    for part in equal_parts(kinds, batch):
        with backend.sized((sizes[part[0]] if sizes else None) or backend.size):
            noise = initial_noise([first_seed + i for i in part], backend.latent_shape)
            points = sample(backend.encode([prompts[i] for i in part]), noise, backend.grid(steps))[:, -1]
            images = backend.decode(points, bf16=bf16)
        found |= zip(part, zip(images, points.cpu(), strict=True), strict=True)
    images, latents = zip(*(found[i] for i in range(len(prompts))), strict=True)
    return list(images), list(latents)


@torch.no_grad()
def evaluate(backend: Backend, rows: Sequence[Prompt], oracle: Oracle | None, **sampling) -> Evaluation:
    """Sample (see `sample_images`; the seeds are those of the first row's split, the sizes those that rows name) and judge,
    if there is an oracle; the active role is what is evaluated."""
    prompts, sizes = [r.prompt for r in rows], [size_in(r.metadata) for r in rows]
    images, latents = _sample(
        backend, prompts, **{"first_seed": FIRST_SEEDS[rows[0].split], "sizes": sizes, **sampling}
    )
    if oracle is None:
        return Evaluation(images, [], {}, latents)
    verdicts = oracle.score(images, prompts, [r.metadata for r in rows])
    return Evaluation(images, verdicts, tag_scores(rows, verdicts), latents)


def image_grid(images: Sequence[Image.Image], columns: int) -> Image.Image:
    """Images side by side, row by row, `GRID_GAP` pixels apart; smaller ones in the middle of their places."""
    width, height = cell_size(images)
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + GRID_GAP) - GRID_GAP, rows * (height + GRID_GAP) - GRID_GAP), "white")
    for i, image in enumerate(images):
        left, top = (width - image.width) // 2, (height - image.height) // 2
        sheet.paste(image, ((i % columns) * (width + GRID_GAP) + left, (i // columns) * (height + GRID_GAP) + top))
    return sheet


def cell_size(images: Sequence[Image.Image]) -> Size:
    """Of the place that each has in `image_grid`."""
    return max(image.width for image in images), max(image.height for image in images)


def write_geneval(
    folder: Path, rows: Sequence[Prompt], result: Evaluation, *, tags: Sequence[str] = TAGS
) -> Path | None:
    """Images as GenEval's scripts lay them out (`<number>/metadata.jsonl`, `<number>/samples/<number>.png`; images of one
    prompt that follow each other share a folder), and results.jsonl, which its summary_scores.py reads; returns that.
    It has the images of `tags` alone, since that script takes the mean of whatever tags it meets; None without any."""
    lines, number, sample = [], -1, 0
    for i, (row, image, verdict) in enumerate(zip(rows, result.images, result.verdicts, strict=True)):
        if i == 0 or row.metadata != rows[i - 1].metadata:
            number, sample = number + 1, 0
            write_atomic(folder / f"{number:05}" / "metadata.jsonl", json.dumps(dict(row.metadata)).encode())
        path = folder / f"{number:05}" / "samples" / f"{sample:05}.png"
        sample += 1
        write_image(path, image, "PNG")
        if row.tag in tags:
            lines.append(json.dumps(result_line(str(path), row.metadata, verdict)))
    if not lines:
        return None
    write_atomic(folder / "results.jsonl", ("\n".join(lines) + "\n").encode())
    return folder / "results.jsonl"
