"""One sampler a model and process; versions are swapped in as adapters."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from django.conf import settings

from common.settings import SampleSettings
from common.sizes import Size
from webapp.campaigns import sizes
from webapp.campaigns.models import Project

if TYPE_CHECKING:
    from trainer.sampler import Sampler


def sampler(project: Project) -> Sampler:
    """The sampler of a project's model, loaded once a process; once more for larger images where memory is found out."""
    size = sizes.largest_of(project) if settings.LIKESTEP_MEMORY.auto else None
    return _sampler(project.model_dir, project.steps, size)


@functools.lru_cache(maxsize=2)
def _sampler(model_dir: str, steps: int, size: Size | None) -> Sampler:
    from trainer.sampler import Sampler  # torch: no business of beat's and the oracle worker's

    made = Sampler(model_dir, device=device(), memory=settings.LIKESTEP_MEMORY, size=size)
    made.settings = SampleSettings(steps=steps)
    return made


def device() -> str:
    """The GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
