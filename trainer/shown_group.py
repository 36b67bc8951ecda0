"""Groups of which more images are made than are shown: sampled, chosen by the surrogate's opinion and latents, decoded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from trainer.backends import Conditioning
from trainer.methods.base import Groups
from trainer.sampler import SampledGroup, Sampler, initial_noise, sample_latents
from trainer.showing import choose
from trainer.surrogate_file import SURROGATE_NAME, load_surrogate

DRAWS = 2  # noises that the surrogate is asked at
log = logging.getLogger(__name__)


def sample_shown(
    sampler: Sampler, prompt: str, seeds: Sequence[int], count: int, version: Path
) -> tuple[SampledGroup, tuple[float, ...]]:
    """`count` of the images of these seeds by `version`, which the sampler uses, and each one's chance to be among them;
    the others are not decoded. The same seeds and version show the same ones. Without a surrogate in the version's folder
    latents alone decide."""
    backend, grid = sampler.backend, sampler.backend.grid(sampler.settings.steps)
    conditioning = backend.encode([prompt])
    noise = initial_noise(seeds, backend.latent_shape)
    trajectory = sample_latents(backend, conditioning.repeat(len(noise)), noise, grid).cpu()
    opinions = opinion(sampler, version, conditioning, trajectory, seed=seeds[0])
    rng = np.random.default_rng(seeds[0])
    shown = choose(trajectory[:, -1].float().numpy(), opinions, count, rng)
    kept = trajectory[list(shown.images)]
    images = backend.decode(kept[:, -1].to(backend.device), bf16=True)
    return SampledGroup(images, kept, grid, tuple(seeds[i] for i in shown.images)), shown.inclusion


def opinion(
    sampler: Sampler, version: Path, conditioning: Conditioning, trajectory: torch.Tensor, *, seed: int
) -> np.ndarray | None:
    """How much the version's surrogate likes each image (M,); None where it has none that can be read. The sampler's
    adapter makes room for it meanwhile, since both are adapters on the same model."""
    if not (version / SURROGATE_NAME).is_file():
        return None
    backend, recompute = sampler.backend, sampler.backend.recompute
    sampler.drop_version()
    try:
        method = load_surrogate(backend, version)
        advantages = torch.zeros(1, len(trajectory), device=backend.device)
        group = Groups(trajectory[None].to(backend.device), conditioning, advantages)
        generator = torch.Generator().manual_seed(seed)
        return method.learned_reward(group, draws=DRAWS, generator=generator)[0].float().cpu().numpy()
    except ValueError as error:  # images are made all the same
        log.warning("%s; images are chosen without it", error)
        return None
    finally:
        backend.transformer.unload_lora()
        backend.recompute = recompute
        sampler.use_version(version)
