"""A toy reward goes up, and the same run with the opposite reward takes it down: what moves is what the rewards say."""

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
    """Likes red; with `against`, likes what is not red."""

    name = "reddish"

    def __init__(self, against):
        self.against = against

    def score(self, images, prompts, metadata):
        scores = [min(1.0, 20 * redness(i)) for i in images]
        if self.against:
            scores = [1 - s for s in scores]
        return [Verdict(s, s > 0.5, f"{s:.2f}", s > 0.5) for s in scores]


def gain(folder, *, against):
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
    made = prepare(spec, oracles=lambda name: Reddish(against))

    def red():
        with made.method.roles.merged(STUDENT_EMA):
            images = sample_images(made.method.backend, [m["prompt"] for m in LINES] * 2, steps=4, bf16=True)
        return float(np.mean([redness(i) for i in images]))

    before = red()
    for step in range(SETTINGS["updates"]):
        made.step(step)
    return red() - before, before


def test_red_follows_what_the_rewards_say(tmp_path):
    liked, start = gain(tmp_path / "liked", against=False)
    disliked, _ = gain(tmp_path / "disliked", against=True)
    print(f"red {start:.4f}, gain {liked:+.4f} with rewards for it, {disliked:+.4f} with rewards against it")
    assert liked > 0.5 * start
    # What both runs have in common, such as rounding on this processor, is no effect of the rewards.
    assert liked - disliked > start
