"""One sampler a model and process; versions are swapped in as adapters."""

from __future__ import annotations

import functools
import json
import os

from trainer.sampler import Sampler
from trainer.settings import MemorySettings, SampleSettings


@functools.lru_cache(maxsize=2)
def sampler(model_dir: str, steps: int) -> Sampler:
    """The sampler of a model folder, loaded once a process."""
    made = Sampler(model_dir, device=device(), memory=memory())
    made.settings = SampleSettings(steps=steps)
    return made


def memory() -> MemorySettings:
    """What fits models into this machine, from LIKESTEP_MEMORY. Raises ValueError that names the variable or the field."""
    try:
        return MemorySettings.from_json(json.loads(os.environ.get("LIKESTEP_MEMORY", "").strip() or "{}"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"LIKESTEP_MEMORY: {error}") from error


def device() -> str:
    """The GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
