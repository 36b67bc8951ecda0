"""What decides a round's result, kept in its checkpoint: only the round that a checkpoint is of may go on from it.

The number of updates, what a machine saves memory by, validations and trackers may change on the way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.files import sha256_of
from common.settings import TDMR1Settings
from trainer.data import LabelledGroup
from trainer.rounds.spec import RoundSpec

MAY_CHANGE = ("updates", "validation_images", "validate_every")  # settings
EMBEDS = ("text_encoder", "tokenizer")  # parts of a model that may be gone once all prompts are embedded
SAMPLE_BYTES = 1 << 20
KIND = "settings."


def origin_of(spec: RoundSpec, groups: Sequence[LabelledGroup] | None, held_out: int) -> dict[str, Any]:
    """Values and hashes by the name of what they are of, as JSON. `held_out` counts labelled groups that are not taught."""
    settings = TDMR1Settings.from_json(spec.settings).to_json()
    labels = None if groups is None else [(g.group, g.prompt, g.version, g.rewards) for g in groups]
    return {
        "model_dir": _model(Path(spec.model_dir)),
        "parent_dir": _hash([sha256_of(file) for file in sorted(Path(spec.parent_dir).glob("*.safetensors"))]),
        "reward_oracle": spec.reward_oracle,
        "groups_file": None if labels is None else _hash(labels),
        "train_prompts": _hash(spec.train_prompts),
        "held-out groups (alarm, validation_images)": held_out,
        **{KIND + name: value for name, value in settings.items() if name not in MAY_CHANGE},
    }


def refuse_another(was: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Raise ValueError, naming the first thing that differs, unless a checkpoint in `folder` is of this round."""
    for name in now:
        if name in was and was[name] != now[name]:
            plain = name.startswith(KIND) or name in ("reward_oracle", "held-out groups (alarm, validation_images)")
            what = f"was made with {was[name]}, this round says {now[name]}" if plain else "was made with another one"
            raise ValueError(
                f"{name.removeprefix(KIND)}: the checkpoint in {folder} {what}; set it back, or use another work folder to "
                "start over"
            )


def validation_of(lines: Sequence[dict], oracle: str | None) -> str:
    """What validation scores are comparable by: prompts, in order, and who scores them."""
    return _hash([lines, oracle])


def _model(folder: Path) -> str:
    """Changes with what updates and decoding depend on: configurations (whole) and weights (size, both ends: reading 20 GB
    would take minutes)."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name.startswith(EMBEDS) or path.suffix not in (".json", ".safetensors"):
            continue
        found.append((name, path.stat().st_size, _ends(path)))
    return _hash(found)


def _ends(path: Path) -> str:
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file:
        digest.update(file.read(SAMPLE_BYTES))
        file.seek(max(0, size - SAMPLE_BYTES))
        digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
