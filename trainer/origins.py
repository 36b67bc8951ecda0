"""What decides the result of a training, kept in its checkpoint: who goes on from it must be the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

EMBEDS = ("text_encoder", "tokenizer")  # parts of a model that may be gone once all prompts are embedded
SAMPLE_BYTES = 1 << 20
KIND = "settings."


def refuse_another(
    was: dict[str, Any], now: dict[str, Any], folder: Path, *, plain: Collection[str] = (), what: str = "round"
) -> None:
    """Raise ValueError, naming the first thing that differs, unless a checkpoint in `folder` is of this training. Values of
    settings and of the names in `plain` are said; the others are hashes."""
    for name in now:
        if name in was and was[name] != now[name]:
            values = f"was made with {was[name]}, this {what} says {now[name]}"
            said = values if name.startswith(KIND) or name in plain else "was made with another one"
            raise ValueError(
                f"{name.removeprefix(KIND)}: the checkpoint in {folder} {said}; set it back, or use another work folder to "
                "start over"
            )


def settings_of(values: dict[str, Any], may_change: Collection[str]) -> dict[str, Any]:
    """The settings that decide, by the names that `refuse_another` takes."""
    return {KIND + name: value for name, value in values.items() if name not in may_change}


def hash_of_model(folder: Path) -> str:
    """Changes with what updates and decoding depend on: configurations (whole) and weights (size, both ends: reading 20 GB
    would take minutes)."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name.startswith(EMBEDS) or path.suffix not in (".json", ".safetensors"):
            continue
        found.append((name, path.stat().st_size, _ends(path)))
    return hash_of(found)


def _ends(path: Path) -> str:
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file:
        digest.update(file.read(SAMPLE_BYTES))
        file.seek(max(0, size - SAMPLE_BYTES))
        digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def hash_of(value: Any) -> str:
    """Of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
