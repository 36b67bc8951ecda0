"""What the benches that train a student share: the same start, prompts, and tests of what came out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from trainer.backends import Backend
from trainer.cli import MODEL, STUDENT
from trainer.evaluate import FIRST_SEEDS, evaluate, sample_images
from trainer.oracles import get_oracle
from trainer.rounds import RoundSpec
from trainer.sampler import Sampler
from trainer.scenes.prompts import TAGS, evaluation_prompts, prompts
from trainer.settings import TDMR1Settings

EDGE_SHARE = 0.02  # of an image's pixels; an outlined shape or two has about as many on its edges
GROUPS_PER_TAG = 4
GROUP_SIZE = 8
DIVERSITY_SEEDS = 50_000_000  # after those of a split's evaluation


def oracle_spec(work: Path, settings: TDMR1Settings) -> RoundSpec:
    """A round of the demo student from the scene oracle: training prompts of all tags, validation prompts to choose by."""
    return RoundSpec(
        model_dir=str(MODEL),
        parent_dir=str(STUDENT),
        work_dir=str(work),
        output_dir=str(work / "version"),
        train_prompts=[p.metadata for p in prompts("train", tags=TAGS)],
        validation=[p.metadata for p in evaluation_prompts("validation", 24, tags=TAGS)],
        validation_oracle="scenes",
        reward_oracle="scenes",
        settings=settings.to_json(),
    )


def test_scores(lora: Path, per_tag: int) -> dict[str, float]:
    """The LoRA's scores on test prompts at 4 steps without guidance."""
    sampler = Sampler(MODEL)
    sampler.use_version(lora)
    return _scores(sampler.backend, "test", per_tag)[0]


def scores_and_looks(lora: Path, per_tag: int, split: str = "test") -> dict[str, float]:
    """The same on a split, with two measures that no reward asked for: `sharpness` and `diversity`."""
    sampler = Sampler(MODEL)
    sampler.use_version(lora)
    scores, images = _scores(sampler.backend, split, per_tag)
    rows = [row for row in evaluation_prompts(split, GROUPS_PER_TAG, tags=TAGS) for _ in range(GROUP_SIZE)]
    with torch.no_grad():
        groups = sample_images(
            sampler.backend,
            [row.prompt for row in rows],
            steps=4,
            bf16=True,
            first_seed=FIRST_SEEDS[split] + DIVERSITY_SEEDS,
        )
    parts = [groups[i : i + GROUP_SIZE] for i in range(0, len(groups), GROUP_SIZE)]
    return scores | {
        "sharpness": float(np.mean([sharpness(i) for i in images])),
        "diversity": float(np.mean([diversity(p) for p in parts])),
    }


def _scores(backend: Backend, split: str, per_tag: int) -> tuple[dict[str, float], list[Image.Image]]:
    result = evaluate(backend, evaluation_prompts(split, per_tag, tags=TAGS), get_oracle("scenes"), steps=4, bf16=True)
    return result.scores, result.images


def sharpness(image: Image.Image) -> float:
    """How steep the image's edges are, 0..1: the mean over its steepest `EDGE_SHARE` of pixels of the change of grey to
    the next pixel. A blurred edge is less steep, however many objects there are."""
    grey = np.asarray(image.convert("L"), float) / 255
    steep = np.hypot(np.diff(grey, axis=0)[:, :-1], np.diff(grey, axis=1)[:-1]).ravel()
    return float(np.sort(steep)[-max(1, round(EDGE_SHARE * steep.size)) :].mean())


def diversity(images: list[Image.Image]) -> float:
    """How much images of one prompt differ, 0..1: root mean square over pixels and channels, mean over pairs."""
    pixels = np.stack([np.asarray(i.convert("RGB"), float).ravel() / 255 for i in images])
    first, second = np.triu_indices(len(pixels), 1)
    return float(np.sqrt(((pixels[first] - pixels[second]) ** 2).mean(1)).mean())
