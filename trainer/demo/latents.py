"""Latents of drawn scenes, computed once and kept in shards that grow while the base model trains."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import save

from common.files import sha256_of, write_atomic
from trainer.backends import autocast
from trainer.demo.autoencoder import to_tensor
from trainer.demo.scenes.draw import draw, sample_scene
from trainer.demo.scenes.near_miss import drawn_as
from trainer.demo.scenes.prompts import sample_training_prompt

SHARD_SIZE = 4096
BATCH = 8  # images encoded at once: 64 do not fit a CPU's cache and take twice as long an image


def fingerprint(folder: Path) -> str:
    """SHA-256 of a saved model's weight file; latents are only valid for the autoencoder that made them."""
    return sha256_of(folder / "diffusion_pytorch_model.safetensors")


@torch.no_grad()
def encode(vae: AutoencoderKL, images: list) -> torch.Tensor:
    """Posterior means of RGB images, normalised as the pipeline expects: (B, C, h, w) float32, on the CPU."""
    with autocast(vae.device):
        mean = vae.encode(to_tensor(images).to(vae.device)).latent_dist.mean.float().cpu()
    return (mean - vae.config.shift_factor) * vae.config.scaling_factor


def ensure_shard(
    folder: Path, index: int, vae: AutoencoderKL, vae_hash: str, *, seed: int, near_misses: float = 0.0
) -> tuple:
    """Load shard `index`, drawing it first if it is missing: (latents (N, C, h, w) fp16, prompts: list of N). `near_misses`
    scales how many of the images are near misses of their prompts (`drawn_as`).

    Raises ValueError when the shard was made with another autoencoder.
    """
    path = folder / f"shard-{seed}-{near_misses:g}-{index:05d}.safetensors"
    if not path.exists():
        rng = random.Random(f"latents-{seed}-{index}")
        prompts = [sample_training_prompt(rng) for _ in range(SHARD_SIZE)]
        parts = []
        for start in range(0, SHARD_SIZE, BATCH):
            shown = (drawn_as(p.metadata, rng, scale=near_misses) for p in prompts[start : start + BATCH])
            parts.append(encode(vae, [draw(sample_scene(metadata, rng)) for metadata in shown]).half())
        metadata = {"vae": vae_hash, "prompts": "\n".join(p.prompt for p in prompts)}
        write_atomic(path, save({"latents": torch.cat(parts).contiguous()}, metadata=metadata))
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        if metadata["vae"] != vae_hash:
            raise ValueError(f"{path}: made with another autoencoder; delete the folder and draw it again")
        return file.get_tensor("latents"), metadata["prompts"].split("\n")
