"""One small class per diffusers family; `load_backend` picks it by the pipeline's class."""

from __future__ import annotations

import json
from pathlib import Path

from trainer.backends.base import Backend, Conditioning, autocast

__all__ = ["Backend", "Conditioning", "autocast", "load_backend"]


def load_backend(folder: Path | str, *, device: str = "cpu") -> Backend:
    """The backend of a pipeline folder. Raises ValueError when the folder is no pipeline or of an unknown family."""
    folder = Path(folder)
    index = folder / "model_index.json"
    if not index.exists():
        raise ValueError(f"model: {folder} has no model_index.json; give the folder of a saved diffusers pipeline")
    family = json.loads(index.read_text())["_class_name"]
    if family == "StableDiffusion3Pipeline":
        from trainer.backends.sd3 import SD3Backend

        return SD3Backend(folder, device=device)
    raise ValueError(f"model: {family} is not supported; supported is StableDiffusion3Pipeline")
