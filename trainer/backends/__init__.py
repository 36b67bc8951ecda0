"""One small class per diffusers family; `load_backend` picks it by the pipeline's class. Installed packages add families
as entry points `likestep.backends`, named by the pipeline's class."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from common.settings import MemorySettings, TDMR1Settings
from common.sizes import Size
from trainer.backends.base import Backend, Conditioning, autocast, bf16_pays, moved
from trainer.backends.memory import Managed, empty_pipeline, load_pipeline
from trainer.backends.options import ModelOptions
from trainer.plugins import offered

__all__ = [
    "FAMILIES",
    "Backend",
    "Conditioning",
    "Managed",
    "autocast",
    "backend_class",
    "bf16_pays",
    "load_backend",
    "moved",
]

# Pipeline class → module and class, imported when asked for. docs/backends.md has what each one states.
FAMILIES = {
    "StableDiffusion3Pipeline": "trainer.backends.sd3:SD3Backend",
    "ZImagePipeline": "trainer.backends.z_image:ZImageBackend",
    "Flux2KleinPipeline": "trainer.backends.flux2:Flux2KleinBackend",
    "StableDiffusionXLPipeline": "trainer.backends.sdxl:SDXLBackend",
    "FluxPipeline": "trainer.backends.flux1:Flux1Backend",
    "Flux2Pipeline": "trainer.backends.flux2:Flux2DevBackend",
    "QwenImagePipeline": "trainer.backends.qwen_image:QwenImageBackend",
}

# Pipelines that people will try and the method cannot train.
REFUSED = {
    "SanaSprintPipeline": "its sampler draws new noise at every step and its network predicts where a path ends, so there "
    "is neither a trajectory that the first noise decides nor a teacher's velocity; docs/backends.md says more"
}


def families() -> dict[str, metadata.EntryPoint]:
    """Every family by its pipeline's class. Raises ValueError when two packages, or a package and Likestep, offer one."""
    return offered("likestep.backends", "model", FAMILIES)


def backend_class(folder: Path | str) -> type:
    """The class for a pipeline folder. Raises ValueError when the folder is no pipeline or of an unknown family."""
    index = Path(folder) / "model_index.json"
    if not index.exists():
        raise ValueError(f"model: {folder} has no model_index.json; give the folder of a saved diffusers pipeline")
    try:
        family = json.loads(index.read_text())["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"model: {index} does not name a pipeline class; copy the model's folder again") from error
    if family in REFUSED:
        raise ValueError(f"model: {family} cannot be trained: {REFUSED[family]}")
    if family not in (known := families()):
        raise ValueError(f"model: {family} is not supported; supported are {', '.join(known)}")
    try:
        return known[family].load()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"model: {family} cannot be loaded from {known[family].value} ({error})") from error


def load_backend(
    folder: Path | str,
    *,
    device: str = "cpu",
    memory: MemorySettings | None = None,
    shapes: FakeTensorMode | torch.device | None = None,
    shorten: Callable[[Backend], None] = lambda inner: None,
    trained: TDMR1Settings | None = None,
    size: Size | None = None,
) -> Managed:
    """The backend of a pipeline folder under memory settings; if these are `auto`, for rounds with the settings `trained`,
    or without them for sampling, of images up to `size` (None: the model's own). With `shapes` no weight is read: under a
    mode the parts are its tensors, which have shapes and no values, and on a device they are random. `shorten` may take
    blocks out of the network before anything else is done with it. Raises ValueError when the folder is no pipeline, of an
    unknown family, or set up in a way that the method cannot use."""
    folder, memory = Path(folder), memory or MemorySettings()
    if memory.auto:
        from trainer.plan import fitted  # which needs all of the trainer

        memory = fitted(folder, memory, device, trained, size)
    family, options = backend_class(folder), ModelOptions.read(folder)
    pipeline = empty_pipeline(folder, memory, shapes) if shapes else load_pipeline(folder, memory)
    with shapes if isinstance(shapes, FakeTensorMode) else nullcontext():
        inner = family(pipeline, device=torch.device(device), options=options)
        shorten(inner)
        return Managed(inner, folder, memory)
