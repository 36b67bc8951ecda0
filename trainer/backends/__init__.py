"""One small class per diffusers family; `load_backend` picks it by the pipeline's class."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

from trainer.backends.base import Backend, Conditioning, autocast

__all__ = ["FAMILIES", "Backend", "Conditioning", "autocast", "backend_class", "load_backend"]

# Pipeline class → module and class, imported when asked for. docs/backends.md has what each one states.
FAMILIES = {
    "StableDiffusion3Pipeline": "trainer.backends.sd3:SD3Backend",
    "ZImagePipeline": "trainer.backends.z_image:ZImageBackend",
    "Flux2KleinPipeline": "trainer.backends.flux2_klein:Flux2KleinBackend",
    "StableDiffusionXLPipeline": "trainer.backends.sdxl:SDXLBackend",
}


def backend_class(folder: Path | str) -> type:
    """The class for a pipeline folder. Raises ValueError when the folder is no pipeline or of an unknown family."""
    index = Path(folder) / "model_index.json"
    if not index.exists():
        raise ValueError(f"model: {folder} has no model_index.json; give the folder of a saved diffusers pipeline")
    try:
        family = json.loads(index.read_text())["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"model: {index} does not name a pipeline class; copy the model's folder again") from error
    if family not in FAMILIES:
        raise ValueError(f"model: {family} is not supported; supported are {', '.join(FAMILIES)}")
    module, name = FAMILIES[family].split(":")
    return getattr(importlib.import_module(module), name)


def load_backend(folder: Path | str, *, device: str = "cpu") -> Backend:
    """The backend of a pipeline folder. Raises ValueError when the folder is no pipeline, of an unknown family, or set up
    in a way that the method cannot use."""
    return backend_class(folder)(Path(folder), device=device)
