"""One small class per diffusers family; `load_backend` picks it by the pipeline's class."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from trainer.backends.base import Backend, Conditioning, autocast
from trainer.backends.memory import Managed, empty_pipeline, load_pipeline
from trainer.settings import MemorySettings

__all__ = ["Backend", "Conditioning", "Managed", "autocast", "load_backend"]


def load_backend(
    folder: Path | str, *, device: str = "cpu", memory: MemorySettings | None = None, weights: bool = True
) -> Managed:
    """The backend of a pipeline folder under memory settings. Without `weights` its parts have the right shapes and types
    but no values; call it under a FakeTensorMode. Raises ValueError when the folder is no pipeline or of an unknown
    family."""
    folder, memory = Path(folder), memory or MemorySettings()
    index = folder / "model_index.json"
    if not index.exists():
        raise ValueError(f"model: {folder} has no model_index.json; give the folder of a saved diffusers pipeline")
    family = json.loads(index.read_text())["_class_name"]
    if family == "StableDiffusion3Pipeline":
        from trainer.backends.sd3 import SD3Backend as Family
    else:
        raise ValueError(f"model: {family} is not supported; supported is StableDiffusion3Pipeline")
    pipeline = load_pipeline(folder, memory) if weights else empty_pipeline(folder, memory)
    return Managed(Family(pipeline, device=torch.device(device)), folder, memory)
