"""One sampler a model and process; versions are swapped in as adapters."""

from __future__ import annotations

import functools
import json

from django.conf import settings

from trainer.sampler import Sampler
from trainer.settings import MemorySettings, SampleSettings


@functools.lru_cache(maxsize=2)
def sampler(model_dir: str, steps: int) -> Sampler:
    """The sampler of a model folder, loaded once a process."""
    made = Sampler(model_dir, device=device(), memory=memory())
    made.settings = SampleSettings(steps=steps)
    return made


def memory() -> MemorySettings:
    """This machine's memory settings. Raises ValueError when LIKESTEP_MEMORY cannot be used."""
    try:
        return MemorySettings.from_json(json.loads(settings.LIKESTEP_MEMORY))
    except (TypeError, ValueError) as error:
        raise ValueError(f"LIKESTEP_MEMORY: {error}; give a JSON object of the options in docs/memory.md") from error


def device() -> str:
    """The GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
