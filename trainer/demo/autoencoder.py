"""Train the demo world's autoencoder: a diffusers AutoencoderKL that turns 128 × 128 images into 8 × 16 × 16 latents.

Images are drawn as they are needed and every batch is a function of (seed, step), so a resumed run sees just the data an
unbroken run would have seen.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from tqdm import tqdm

from common.files import append_line, share_as_usual, write_json
from common.settings import AutoencoderSettings
from trainer.backends import autocast
from trainer.checkpoint import load_checkpoint, save_checkpoint
from trainer.demo.scenes.draw import draw, sample_scene
from trainer.demo.scenes.prompts import sample_training_prompt


def build_autoencoder(settings: AutoencoderSettings) -> AutoencoderKL:
    """A randomly initialised autoencoder with 8× reduction."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(settings.channels),
        up_block_types=("UpDecoderBlock2D",) * len(settings.channels),
        block_out_channels=settings.channels,
        layers_per_block=1,
        latent_channels=settings.latent_channels,
        norm_num_groups=8,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=128,
    )


def to_tensor(images: list) -> torch.Tensor:
    """RGB images of one size → (B, 3, H, W) float in [-1, 1]."""
    pixels = torch.from_numpy(np.stack([np.asarray(i) for i in images]))
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def draw_batch(seed: int, step: int, size: int) -> torch.Tensor:
    """The images of one training step, (size, 3, 128, 128) in [-1, 1]."""
    rng = random.Random(f"autoencoder-{seed}-{step}")
    return to_tensor([draw(sample_scene(sample_training_prompt(rng).metadata, rng)) for _ in range(size)])


def autoencoder_loss(
    reconstruction: torch.Tensor, images: torch.Tensor, mean: torch.Tensor, logvar: torch.Tensor, kl_weight: float
) -> tuple[torch.Tensor, dict[str, float]]:
    """Mean absolute error of pixels and of their differences to the right and below (so that edges count), plus
    `kl_weight` times the mean KL divergence of a latent element from N(0, 1).

    `reconstruction`, `images`: (B, 3, H, W); `mean`, `logvar`: (B, C, h, w).
    """
    error = reconstruction - images
    pixel = error.abs().mean()
    edge = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
    return pixel + edge + kl_weight * kl, {"l1": pixel.item(), "edge": edge.item(), "kl": kl.item()}


def _learning_rate(step: int, settings: AutoencoderSettings) -> float:
    warm = min(1.0, (step + 1) / 200)
    return settings.lr * warm * 0.5 * (1 + math.cos(math.pi * step / settings.steps))


@torch.no_grad()
def latent_statistics(vae: AutoencoderKL, images: torch.Tensor) -> tuple[float, float, float]:
    """(mean, standard deviation of the latents, PSNR in dB of the reconstruction from the posterior mean)."""
    latents, errors = [], []
    for part in images.split(50):
        mean = vae.encode(part).latent_dist.mean
        latents.append(mean)
        errors.append(F.mse_loss(vae.decode(mean).sample.clamp(-1, 1), part, reduction="none").mean((1, 2, 3)))
    all_latents = torch.cat(latents)
    psnr = 10 * torch.log10(4 / torch.cat(errors)).mean()
    return all_latents.mean().item(), all_latents.std().item(), psnr.item()


def train_autoencoder(
    settings: AutoencoderSettings, work: Path, output: Path, *, save_seconds: float = 120, device: str = "cpu"
) -> dict:
    """Train (or resume from `work`) and save to `output` with scaling and shift factors that give unit latents. A batch's
    images and noise are the same on every device.

    Returns the scores that are also written to `output`/scores.json.
    """
    torch.manual_seed(settings.seed)
    vae = build_autoencoder(settings).to(device)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=settings.lr, weight_decay=1e-4, betas=(0.9, 0.99))
    work.mkdir(parents=True, exist_ok=True)
    state = load_checkpoint(work / "checkpoint", modules={"vae": vae}, optimizers={"adamw": optimizer}) or {"step": 0}
    seconds = state.get("seconds", 0.0)
    saved = tick = time.monotonic()
    bar = tqdm(range(state["step"], settings.steps), initial=state["step"], total=settings.steps, desc="autoencoder")
    for step in bar:
        images = draw_batch(settings.seed, step, settings.batch).to(device)
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step, settings)
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        with autocast(vae.device):
            posterior = vae.encode(images).latent_dist
            mean, logvar = posterior.mean.float(), posterior.logvar.float()
            noise = torch.randn(mean.shape, generator=generator).to(device)
            latents = mean + (0.5 * logvar).exp() * noise
            reconstruction = vae.decode(latents).sample
        loss, parts = autoencoder_loss(reconstruction.float(), images, mean, logvar, settings.kl_weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        now = time.monotonic()
        seconds, tick = seconds + now - tick, now
        if step % 50 == 0:
            bar.set_postfix({k: f"{v:.4f}" for k, v in parts.items()})
            append_line(work / "log.jsonl", {"step": step, "seconds": round(seconds), **parts})
        if now - saved > save_seconds or step + 1 == settings.steps:
            save_checkpoint(
                work / "checkpoint",
                step=step + 1,
                modules={"vae": vae},
                optimizers={"adamw": optimizer},
                extra={"seconds": seconds},
            )
            saved = now
    vae.cpu().eval()
    mean, std, psnr = latent_statistics(vae, draw_batch(settings.seed + 1, 0, 200))
    vae.register_to_config(scaling_factor=1 / std, shift_factor=mean)
    vae.save_pretrained(output)
    share_as_usual(output)
    scores = {"psnr_db": psnr, "latent_mean": mean, "latent_std": std, "hours": seconds / 3600, **asdict(settings)}
    write_json(output / "scores.json", scores)
    return scores
