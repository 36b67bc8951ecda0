"""One small class per diffusers family; `load_backend` picks it by the pipeline's class."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from trainer.backends.base import Backend, Conditioning, autocast
from trainer.backends.memory import Managed, empty_pipeline, load_pipeline
from trainer.settings import MemorySettings

__all__ = ["Backend", "Conditioning", "Managed", "autocast", "load_backend"]


def load_backend(
    folder: Path | str,
    *,
    device: str = "cpu",
    memory: MemorySettings | None = None,
    shapes: FakeTensorMode | None = None,
) -> Managed:
    """The backend of a pipeline folder under memory settings. With `shapes` its parts are tensors of that mode, which have
    shapes and no values, and no weight is read. Raises ValueError when the folder is no pipeline or its family unknown."""
    folder, memory = Path(folder), memory or MemorySettings()
    index = folder / "model_index.json"
    if not index.exists():
        raise ValueError(f"model: {folder} has no model_index.json; give the folder of a saved diffusers pipeline")
    family = json.loads(index.read_text())["_class_name"]
    if family == "StableDiffusion3Pipeline":
        from trainer.backends.sd3 import SD3Backend as Family
    else:
        raise ValueError(f"model: {family} is not supported; supported is StableDiffusion3Pipeline")
    pipeline = empty_pipeline(folder, memory, shapes) if shapes else load_pipeline(folder, memory)
    with shapes or nullcontext():
        return Managed(Family(pipeline, device=torch.device(device)), folder, memory)
