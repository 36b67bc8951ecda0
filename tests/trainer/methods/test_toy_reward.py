"""A toy reward goes up, and the same run with its rewards shuffled among the images does not raise it."""

import random
from pathlib import Path

import numpy as np

from trainer.demo.scenes.world import SHAPES
from trainer.evaluate import sample_images
from trainer.oracles import Verdict
from trainer.roles import STUDENT_EMA
from trainer.rounds import RoundSpec, prepare

MODELS = Path(__file__).resolve().parents[3] / "models"
LINES = [{"prompt": f"{frame} {shape}"} for shape in SHAPES for frame in ("a", "a photo of a")]
SETTINGS = {
    "updates": 16,
    "prompts_per_update": 4,
    "student_batch": 16,
    "noise_spread": 1.0,  # related noise hides a colour: with the default an eighth of it was learned
    "validation_images": 0,
    "student_lr": 8e-4,
}


def redness(image):
    """Share of the image's colour that is red: mean over pixels of red above the other channels, 0..1."""
    pixels = np.asarray(image.convert("RGB"), float) / 255
    return float((pixels[..., 0] - pixels[..., 1:].max(-1)).clip(0).mean())


class Reddish:
    """Likes red; with `shuffled`, its scores are dealt out among the images of a group at random."""

    name = "reddish"

    def __init__(self, shuffled):
        self.shuffled, self.rng = shuffled, random.Random(0)

    def score(self, images, prompts, metadata):
        scores = [min(1.0, 20 * redness(i)) for i in images]
        if self.shuffled:
            self.rng.shuffle(scores)
        return [Verdict(s, s > 0.5, f"{s:.2f} red", s > 0.5) for s in scores]


def gain(folder, *, shuffled):
    """How much redder the student's images become on fixed noise."""
    spec = RoundSpec(
        model_dir=str(MODELS / "demo"),
        parent_dir=str(MODELS / "demo-student"),
        work_dir=str(folder),
        output_dir=str(folder / "version"),
        train_prompts=LINES,
        reward_oracle="reddish",
        settings=SETTINGS,
    )
    made = prepare(spec, oracles=lambda name: Reddish(shuffled))

    def red():
        with made.method.roles.merged(STUDENT_EMA):
            images = sample_images(made.method.backend, [m["prompt"] for m in LINES] * 2, steps=4, bf16=True)
        return float(np.mean([redness(i) for i in images]))

    before = red()
    for step in range(SETTINGS["updates"]):
        made.step(step)
    return red() - before, before


def test_red_is_learned_from_true_rewards_only(tmp_path):
    true, start = gain(tmp_path / "true", shuffled=False)
    shuffled, _ = gain(tmp_path / "shuffled", shuffled=True)
    print(f"red {start:.4f}, gain {true:+.4f} with true rewards, {shuffled:+.4f} with shuffled ones")
    assert true > 0.5 * start
    assert shuffled < 0.5 * true
