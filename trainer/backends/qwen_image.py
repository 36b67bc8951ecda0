"""Qwen-Image, with and without the Lightning LoRA."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import QwenImagePipeline

from trainer.backends.base import Conditioning
from trainer.backends.packed import PackedBackend
from trainer.flow import guided

MOST_TOKENS = 512  # of a prompt, which is the pipeline's default
OUTLINE_TOKENS = 64  # of a prompt of about forty words, with what the chat template adds behind it


class QwenImageBackend(PackedBackend):
    """A QwenImagePipeline folder: the network gives `eps - x0` itself, for times as t, and prompts keep their own lengths.
    The VAE is one of videos: a picture is a video of one frame, and its latents are normalised channel by channel."""

    pipeline_class = QwenImagePipeline
    attention = tuple(f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj"))
    sensitive = ("time_text_embed", "img_in", "txt_in", "img_mod", "txt_mod", "norm_out", "proj_out")
    block_lists = ("transformer_blocks",)
    straighten = (
        "for a few steps save the pipeline with Lightning's: FlowMatchEulerDiscreteScheduler.from_config("
        "pipe.scheduler.config, shift_terminal=None, base_shift=math.log(3), max_shift=math.log(3))"
    )

    @classmethod
    def targets(cls, network: torch.nn.Module) -> tuple[str, ...]:
        """See `PipelineBackend.targets`."""
        heard = range(len(network.transformer_blocks) - 1)
        text = ("add_q_proj", "to_add_out")
        return cls.attention + tuple(f"transformer_blocks.{i}.attn.{name}" for i in heard for name in text)

    @classmethod
    def idle(cls, network: torch.nn.Module) -> tuple[str, ...]:
        """See `PipelineBackend.idle`; nobody asks for the text that leaves the last block. Lightning has LoRA on these."""
        last = len(network.transformer_blocks) - 1
        text = ("attn.add_q_proj", "attn.to_add_out", "txt_mlp.net.0.proj", "txt_mlp.net.2")
        return tuple(f"transformer_blocks.{last}.{name}" for name in text)

    def _own_size(self) -> int:
        return self.pipeline.default_sample_size * self.pipeline.vae_scale_factor

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """See `Backend.encode`."""
        embeds, mask = self.pipeline.encode_prompt(list(prompts), device=self.device, max_sequence_length=MOST_TOKENS)
        lengths = torch.full((len(embeds),), embeds.shape[1], device=self.device) if mask is None else mask.sum(1)
        return Conditioning(embeds.float(), torch.zeros(len(embeds), 0, device=self.device), lengths)

    @torch.no_grad()
    def outline(self, count: int) -> Conditioning:
        """See `Backend.outline`. The pipeline cuts padding off by its values; here every prompt has `OUTLINE_TOKENS`."""
        template = self.pipeline.prompt_template_encode_start_idx
        ids = torch.zeros((count, template + OUTLINE_TOKENS), dtype=torch.long, device=self.device)
        places = torch.arange(ids.shape[1], device=self.device).expand(3, count, -1)  # else made by the ids' values
        encode = self.pipeline.text_encoder
        made = encode(input_ids=ids, position_ids=places, output_hidden_states=True).hidden_states[-1]
        lengths = torch.full((count,), OUTLINE_TOKENS, device=self.device)
        return Conditioning(made[:, template:].float(), torch.zeros(count, 0, device=self.device), lengths)

    def velocity(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """See `Backend.velocity`."""
        embeds, lengths = conditioning.embeds, conditioning.lengths.tolist()
        mask = None  # attention without one is faster
        if min(lengths) < embeds.shape[1]:
            mask = torch.tensor([[i < n for i in range(embeds.shape[1])] for n in lengths], device=x.device)
        height, width = x.shape[-2:]
        rows = self.transformer(
            hidden_states=self.pack(x),
            timestep=t,
            encoder_hidden_states=embeds,
            encoder_hidden_states_mask=mask,
            img_shapes=[[(1, height // 2, width // 2)]] * len(x),
            return_dict=False,
        )[0]
        return self.unpack(rows, x.shape[-2:]).float()

    def guided(self, conditional: torch.Tensor, unconditional: torch.Tensor, scale: float) -> torch.Tensor:
        """See `Backend.guided`; each patch keeps the length that it has without guidance."""
        sharp = self.pack(guided(conditional, unconditional, scale))
        lengths = (self.pack(conditional).norm(dim=-1, keepdim=True), sharp.norm(dim=-1, keepdim=True))
        return self.unpack(sharp * (lengths[0] / lengths[1]), conditional.shape[-2:])

    def stock_call(self, steps: int, guidance: float = 1.0) -> dict:
        """See `Backend.stock_call`; this pipeline is guided where it is given a negative prompt, which may be empty."""
        call = super().stock_call(steps) | {"true_cfg_scale": float(guidance), "max_sequence_length": MOST_TOKENS}
        del call["guidance_scale"]
        return call if guidance <= 1 else call | {"negative_prompt": ""}

    def _norm(self) -> tuple[torch.Tensor, torch.Tensor]:
        config = self.pipeline.vae.config
        return tuple(
            torch.tensor(values, device=self.device).view(1, -1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )

    def to_vae(self, latents: torch.Tensor) -> torch.Tensor:
        """See `PipelineBackend.to_vae`."""
        mean, deviation = self._norm()
        return latents * deviation + mean

    def from_vae(self, latents: torch.Tensor) -> torch.Tensor:
        """See `PipelineBackend.from_vae`."""
        mean, deviation = self._norm()
        return (latents - mean) / deviation

    def vae_decode(self, latents: torch.Tensor) -> torch.Tensor:
        """See `PipelineBackend.vae_decode`."""
        return super().vae_decode(latents.unsqueeze(2)).squeeze(2)

    def vae_encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `PipelineBackend.vae_encode`."""
        return super().vae_encode(pixels.unsqueeze(2)).squeeze(2)
