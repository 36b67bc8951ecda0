"""Small rounds on the tiny model: their prompts, settings, a toy reward, and fixtures that make them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import trainer.rounds.stages
from trainer.backends import load_backend
from trainer.oracles import Verdict
from trainer.roles import STUDENT, Roles
from trainer.rounds import RoundSpec
from trainer.sampler import Sampler, save_trajectory

LINES = [{"prompt": p, "tag": "colors"} for p in ("a red star", "a blue heart", "two squares", "a green cross")]
SMALL = {
    "updates": 4,
    "prompts_per_update": 3,
    "group_size": 4,
    "student_batch": 6,
    "rank": 4,
    "alpha": 8,
    "validation_images": 4,
    "validate_every": 2,
}


def redness(image):
    """Mean of red over all three channels, 0..1."""
    pixels = np.asarray(image, float)
    return float(pixels[..., 0].mean() / (pixels.mean() * 3))


class Reddish:
    """A toy reward."""

    name = "reddish"

    def score(self, images, prompts, metadata):
        # The tiny model's images differ by a hundredth; told apart, a group of them has signal.
        scores = [min(1.0, max(0.0, 0.5 + 30 * (redness(i) - 0.387))) for i in images]
        return [Verdict(s, s > 0.5, f"{s:.3f} red", s > 0.5) for s in scores]


@pytest.fixture
def reddish(monkeypatch):
    monkeypatch.setattr(trainer.rounds.stages, "get_oracle", {"reddish": Reddish()}.__getitem__)


@pytest.fixture
def parent(model_dir, tmp_path):
    torch.manual_seed(1)
    backend = load_backend(model_dir)
    state = Roles(backend.transformer, backend.lora_targets, rank=4, alpha=8).state_dict(STUDENT)
    backend.save_lora(tmp_path / "parent", state, rank=4, alpha=8)
    return tmp_path / "parent"


@pytest.fixture
def make_spec(model_dir, parent, tmp_path):
    def make(name="round", **changes):
        settings = SMALL | changes.pop("settings", {})
        values = {
            "model_dir": str(model_dir),
            "parent_dir": str(parent),
            "work_dir": str(tmp_path / name / "work"),
            "output_dir": str(tmp_path / name / "version"),
            "train_prompts": LINES,
            "validation": LINES,
            "validation_oracle": "reddish",
            "reward_oracle": "reddish",
            "settings": settings,
        }
        return RoundSpec(**values | changes)

    return make


@pytest.fixture
def groups_file(model_dir, parent, tmp_path):
    sampler = Sampler(model_dir)
    sampler.use_version(parent)
    rows = []
    for i, line in enumerate(LINES):
        group = sampler.sample_group(line["prompt"], range(10 * i, 10 * i + 4))
        file = tmp_path / f"{i}.safetensors"
        save_trajectory(file, group, prompt=line["prompt"], version="1")
        rewards = [1.0] * 4 if i == 3 else [1.0, 0.0, None, 1.0]
        row = {"group": str(i), "prompt": line["prompt"], "metadata": line, "version": "1", "rewards": rewards}
        rows.append(row | {"trajectory_file": str(file)})
    path = tmp_path / "groups.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def weights(result):
    return load_file(f"{result.version_dir}/pytorch_lora_weights.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def stop_after(count):
    calls = iter(range(1000))
    return lambda: next(calls) >= count
