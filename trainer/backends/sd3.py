"""Stable Diffusion 3 and 3.5, and the demo model, which is a tiny one of the same classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image

from trainer.backends.base import Conditioning, autocast

LORA_FILE = "pytorch_lora_weights.safetensors"
SMALL_MODEL = 50_000_000  # parameters; below this every linear layer of the blocks gets LoRA, not only attention
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
FEED_FORWARD = ("net.0.proj", "net.2", "norm1.linear", "norm1_context.linear", "proj_out")


class SD3Backend:
    """A StableDiffusion3Pipeline folder: velocity prediction, times as 1000·t, 8× VAE with scale and shift."""

    def __init__(self, pipeline: StableDiffusion3Pipeline, *, device: torch.device):
        self.pipeline, self.device, self.transformer = pipeline, device, pipeline.transformer
        config = self.transformer.config
        self.latent_shape = (config.in_channels, config.sample_size, config.sample_size)
        self.shift = float(pipeline.scheduler.config.shift)
        small = sum(p.numel() for p in self.transformer.parameters()) < SMALL_MODEL
        self.lora_targets = ATTENTION + FEED_FORWARD if small else ATTENTION

    def _t5_tokens(self) -> int:
        tokenizer = self.pipeline.tokenizer_3
        return min(256, tokenizer.model_max_length) if tokenizer is not None else 0

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """See `Backend.encode`."""
        prompts = list(prompts)
        # A T5 of one token (the demo model's) says nothing; an empty prompt spares diffusers' warning about cut text.
        embeds, _, pooled, _ = self.pipeline.encode_prompt(
            prompts,
            prompts,
            [""] * len(prompts) if self._t5_tokens() == 1 else prompts,
            device=self.device,
            max_sequence_length=self._t5_tokens(),
            do_classifier_free_guidance=False,
        )
        return Conditioning(embeds.float(), pooled.float())

    def velocity(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """See `Backend.velocity`."""
        return self.transformer(
            hidden_states=x,
            timestep=t * 1000,
            encoder_hidden_states=conditioning.embeds,
            pooled_projections=conditioning.pooled,
            return_dict=False,
        )[0].float()

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, *, bf16: bool = False) -> list[Image.Image]:
        """See `Backend.decode`."""
        vae = self.pipeline.vae
        scaled = latents.to(vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor
        with autocast(self.device, bf16):
            pixels = vae.decode(scaled.contiguous(memory_format=torch.channels_last)).sample.float()
        return self.pipeline.image_processor.postprocess(pixels, output_type="pil")

    def save_lora(self, folder: Path, state: dict[str, torch.Tensor], *, rank: int, alpha: int) -> Path:
        """See `Backend.save_lora`; fp32 in, stored as given, with the PEFT config that stock loaders read."""
        folder.mkdir(parents=True, exist_ok=True)
        metadata = {"r": rank, "lora_alpha": alpha, "target_modules": list(self.lora_targets)}
        StableDiffusion3Pipeline.save_lora_weights(
            folder,
            transformer_lora_layers={k: v.contiguous() for k, v in state.items()},
            transformer_lora_adapter_metadata=metadata,
        )
        return folder / LORA_FILE

    def load_lora(self, folder: Path) -> tuple[dict[str, torch.Tensor], int, int]:
        """See `Backend.load_lora`. Raises ValueError when the folder has no LoRA."""
        if not (folder / LORA_FILE).exists():
            raise ValueError(f"version: {folder} has no {LORA_FILE}")
        state, metadata = StableDiffusion3Pipeline.lora_state_dict(
            folder, weight_name=LORA_FILE, use_safetensors=True, return_lora_metadata=True
        )
        prefix = "transformer."
        state = {k.removeprefix(prefix): v.float() for k, v in state.items() if k.startswith(prefix)}
        rank = next(v.shape[0] for k, v in state.items() if "lora_A" in k)
        alpha = (metadata or {}).get("transformer.lora_alpha", rank)
        return state, rank, int(alpha)
