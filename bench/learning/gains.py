"""What the benches that train a student share: the same start, prompts, and tests of what came out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from bench.learning.curves import curve_of
from bench.learning.people import like_rates
from common.round_folder import VERSION, RoundFolder
from common.settings import TDMR1Settings
from trainer.backends import Backend
from trainer.cli import MODEL, STUDENT
from trainer.demo.scenes.prompts import TAGS, WORD, evaluation_prompts, prompts
from trainer.demo.scenes.world import COLORS
from trainer.evaluate import FIRST_SEEDS, Evaluation, evaluate, sample_images
from trainer.oracles import get_oracle
from trainer.oracles.scenes import FLAT_ERROR, FOREGROUND, background_color, detect
from trainer.prompts import Prompt
from trainer.rounds import RoundSpec, Stages, prepare, run
from trainer.sampler import Sampler
from trainer.watch.measures import as_pixels, measure_images, sharpness

GROUPS_PER_TAG = 4
GROUP_SIZE = 8
DIVERSITY_SEEDS = 50_000_000  # after those of a split's evaluation


def oracle_spec(
    work: Path, settings: TDMR1Settings, *, parent: Path = STUDENT, validation_per_tag: int = 24
) -> RoundSpec:
    """A round of the demo student from the scene oracle: training prompts of all tags, validation prompts to choose by."""
    return RoundSpec(
        model_dir=str(MODEL),
        parent_dir=str(parent),
        work_dir=str(work),
        output_dir=str(work / "version"),
        train_prompts=[p.metadata for p in prompts("train", tags=TAGS)],
        validation=[p.metadata for p in evaluation_prompts("validation", validation_per_tag, tags=TAGS)],
        validation_oracle="scenes",
        reward_oracle="scenes",
        settings=settings.to_json(),
    )


def run_once(spec: RoundSpec, *, prepare: Callable[[RoundSpec], Stages] = prepare, **how) -> tuple[Path, dict]:
    """Run or resume the round, unless it is done, `how` being `rounds.run`'s; its version's folder, what was
    spent, and `curve_of` it."""
    version = Path(spec.output_dir)
    if not (version / VERSION).exists():
        run(prepare(spec), **how)
    state = json.loads((version / VERSION).read_text())["rounds_state"]
    settings = TDMR1Settings.from_json(spec.settings)
    images = settings.prompts_per_update * settings.group_size
    curve = curve_of(RoundFolder(Path(spec.work_dir)), state["scores_before"], images)
    return version, {**{name: state[name] for name in ("images_scored", "seconds")}, "curve": curve}


def test_scores(lora: Path, per_tag: int) -> dict[str, float]:
    """The LoRA's scores on test prompts at 4 steps without guidance."""
    return _tested(_sampler(lora).backend, "test", per_tag, steps=4)[1].scores


def scores_and_looks(
    lora: Path | None, per_tag: int, split: str = "test", *, steps: int = 4, guidance: float = 1.0
) -> dict[str, float]:
    """The same on a split, with measures that no reward asked for; without a LoRA, of the base. `sharpness` and
    `diversity` (of groups of eight) are those of `trainer.watch.measures`; `overlap` and `purity` say how well-formed the
    shapes are and how true their colours; the rest is what people of a taste think of them (`people.like_rates`)."""
    backend = _sampler(lora).backend
    how = {"steps": steps, "guidance": guidance}
    tested, result = _tested(backend, split, per_tag, **how)
    images, right = result.images, [v.liked for v in result.verdicts]
    rows = [row for row in evaluation_prompts(split, GROUPS_PER_TAG, tags=TAGS) for _ in range(GROUP_SIZE)]
    names = [row.prompt for row in rows]
    seeds = FIRST_SEEDS[split] + DIVERSITY_SEEDS
    with torch.no_grad():
        groups = sample_images(backend, names, bf16=True, first_seed=seeds, **how)
    return result.scores | {
        **like_rates(images, [row.metadata for row in tested], right),
        "sharpness": float(np.mean([sharpness(as_pixels(image)) for image in images])),
        "diversity": float(measure_images(groups, names)["diversity"].mean()),
        "overlap": float(np.mean([found.confidence for image in images for found in detect(image)])),
        "purity": float(np.mean([color_purity(image) for image in images])),
    }


def word_accuracy(lora: Path | None, count: int, split: str = "test", **how) -> float:
    """Share of `count` images of quoted words that are read exactly; `how` is `sample_images`'."""
    rows = evaluation_prompts(split, count, tags=(WORD,))
    return evaluate(_sampler(lora).backend, rows, get_oracle("ocr"), bf16=True, **{"steps": 4, **how}).scores[WORD]


def _sampler(lora: Path | None) -> Sampler:
    sampler = Sampler(MODEL)
    sampler.use_version(lora)
    return sampler


def _tested(backend: Backend, split: str, per_tag: int, **how) -> tuple[list[Prompt], Evaluation]:
    rows = evaluation_prompts(split, per_tag, tags=TAGS)
    return rows, evaluate(backend, rows, get_oracle("scenes"), bf16=True, **how)


def color_purity(image: Image.Image) -> float:
    """Share of the pixels well inside what stands out from the background that are near one of the eight colours, 0..1;
    0 where nothing stands out."""
    rgb = np.asarray(image.convert("RGB"), float)
    inside = np.linalg.norm(rgb - background_color(rgb), axis=2) > FOREGROUND
    body = rgb[ndimage.binary_erosion(inside, iterations=2)]
    if not len(body):
        return 0.0
    errors = np.linalg.norm(body[:, None] - np.array([*COLORS.values()], float), axis=2).min(1)
    return float((errors <= FLAT_ERROR).mean())
