"""One sampler a model and process; versions are swapped in as adapters."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from django.conf import settings

from common.settings import SampleSettings

if TYPE_CHECKING:
    from trainer.sampler import Sampler


@functools.lru_cache(maxsize=2)
def sampler(model_dir: str, steps: int) -> Sampler:
    """The sampler of a model folder, loaded once a process."""
    from trainer.sampler import Sampler  # torch: no business of beat's and the oracle worker's

    made = Sampler(model_dir, device=device(), memory=settings.LIKESTEP_MEMORY)
    made.settings = SampleSettings(steps=steps)
    return made


def device() -> str:
    """The GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
