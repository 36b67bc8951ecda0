"""What decides a round's result, kept in its checkpoint: only the round that a checkpoint is of may go on from it.

The number of updates, what a machine saves memory by, validations and trackers may change on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.files import sha256_of
from common.settings import TDMR1Settings
from trainer.data import LabelledGroup
from trainer.origins import hash_of, hash_of_model, settings_of
from trainer.prompts import INPUT
from trainer.rounds.spec import RoundSpec

MAY_CHANGE = ("updates", "validation_images", "validate_every")  # settings
HELD_OUT = "held-out groups (alarm, validation_images)"
PLAIN = ("reward_oracle", HELD_OUT)  # what is no hash


def origin_of(spec: RoundSpec, groups: Sequence[LabelledGroup] | None, held_out: int) -> dict[str, Any]:
    """Values and hashes by the name of what they are of, as JSON. `held_out` counts labelled groups that are not taught."""
    settings = TDMR1Settings.from_json(spec.settings).to_json()
    labels = None if groups is None else [_told(g) for g in groups]
    return {
        "model_dir": hash_of_model(Path(spec.model_dir)),
        "parent_dir": hash_of([sha256_of(file) for file in sorted(Path(spec.parent_dir).glob("*.safetensors"))]),
        "reward_oracle": spec.reward_oracle,
        "groups_file": None if labels is None else hash_of(labels),
        "train_prompts": hash_of([spec.train_prompts, spec.sizes] if spec.sizes else spec.train_prompts),
        HELD_OUT: held_out,
        **settings_of(settings, MAY_CHANGE),
    }


def _told(group: LabelledGroup) -> tuple:
    image = group.metadata.get(INPUT)
    return (group.group, group.prompt, group.version, group.rewards, *([image] if image else []))


def validation_of(lines: Sequence[dict], oracle: str | None) -> str:
    """What validation scores are comparable by: prompts, in order, and who scores them."""
    return hash_of([lines, oracle])
