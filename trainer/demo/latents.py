"""Latents of drawn scenes, computed once and kept in shards that grow while the base model trains."""

from __future__ import annotations

import functools
import multiprocessing
import os
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save

from common.files import sha256_of, write_atomic
from trainer.backends import autocast
from trainer.demo.autoencoder import to_tensor
from trainer.demo.scenes.draw import draw, sample_scene
from trainer.demo.scenes.near_miss import drawn_as
from trainer.demo.scenes.prompts import NEAR_MISS_MIX, TRAINING_MIX, sample_training_prompt
from trainer.demo.scenes.world import Scene, WordScene

SHARD_SIZE = 4096
BATCH = 8  # images encoded at once: 64 do not fit a CPU's cache and take twice as long an image
DEVICE_BATCH = 512  # the same elsewhere


def fingerprint(folder: Path) -> str:
    """SHA-256 of a saved model's weight file; latents are only valid for the autoencoder that made them."""
    return sha256_of(folder / "diffusion_pytorch_model.safetensors")


@torch.no_grad()
def encode(vae: AutoencoderKL, images: list) -> torch.Tensor:
    """Posterior means of RGB images, normalised as the pipeline expects: (B, C, h, w) float32, on the CPU."""
    with autocast(vae.device):
        mean = vae.encode(to_tensor(images).to(vae.device)).latent_dist.mean.float().cpu()
    return (mean - vae.config.shift_factor) * vae.config.scaling_factor


@functools.cache
def _drawers() -> ProcessPoolExecutor:
    """A process a core. They are started anew: one that is forked beside a GPU's threads may hang."""
    return ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn"))


def draw_scenes(scenes: Sequence[Scene | WordScene], device: torch.device) -> list[Image.Image]:
    """Their images, drawn by all cores unless a CPU is the device, whose cores have other work."""
    if device.type == "cpu":
        return [draw(scene) for scene in scenes]
    return list(_drawers().map(draw, scenes, chunksize=16))


def ensure_shard(
    folder: Path, index: int, vae: AutoencoderKL, vae_hash: str, *, seed: int, near_misses: float = 0.0
) -> tuple:
    """Load shard `index`, drawing it first if it is missing: (latents (N, C, h, w) fp16, prompts: list of N). `near_misses`
    scales how many of the images are near misses of their prompts (`drawn_as`); the tags' shares differ with and without.

    Raises ValueError when the shard was made with another autoencoder.
    """
    path = folder / f"shard-{seed}-{near_misses:g}-{index:05d}.safetensors"
    if not path.exists():
        rng = random.Random(f"latents-{seed}-{index}")
        mix = NEAR_MISS_MIX if near_misses else TRAINING_MIX
        prompts = [sample_training_prompt(rng, mix) for _ in range(SHARD_SIZE)]
        scenes = [sample_scene(drawn_as(p.metadata, rng, scale=near_misses), rng) for p in prompts]
        size = BATCH if vae.device.type == "cpu" else DEVICE_BATCH
        chunks = (scenes[start : start + size] for start in range(0, SHARD_SIZE, size))
        parts = [encode(vae, draw_scenes(chunk, vae.device)).half() for chunk in chunks]
        metadata = {"vae": vae_hash, "prompts": "\n".join(p.prompt for p in prompts)}
        write_atomic(path, save({"latents": torch.cat(parts).contiguous()}, metadata=metadata))
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        if metadata["vae"] != vae_hash:
            raise ValueError(f"{path}: made with another autoencoder; delete the folder and draw it again")
        return file.get_tensor("latents"), metadata["prompts"].split("\n")
