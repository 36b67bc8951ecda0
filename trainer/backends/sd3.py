"""Stable Diffusion 3 and 3.5, and the demo model, which is a tiny one of the same classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import StableDiffusion3Pipeline

from trainer.backends.base import Conditioning
from trainer.backends.pipeline import FlowBackend

SMALL_MODEL = 50_000_000  # parameters; below this every linear layer of the blocks gets LoRA, not only attention
FEED_FORWARD = ("net.0.proj", "net.2", "norm1.linear", "norm1_context.linear", "proj_out")


class SD3Backend(FlowBackend):
    """A StableDiffusion3Pipeline folder: the network gives `eps - x0` itself, for times as 1000·t."""

    pipeline_class = StableDiffusion3Pipeline
    # The joint attention only, as in the paper: SD3.5 Medium's second attention (`attn2`) has none.
    attention = tuple(
        f"attn.{name}"
        for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    )
    sensitive = ("time_text_embed", "context_embedder", "norm1", "norm1_context", "norm_out", "proj_out")
    block_lists = ("transformer_blocks",)

    @classmethod
    def targets(cls, network: torch.nn.Module) -> tuple[str, ...]:
        """See `PipelineBackend.targets`."""
        small = sum(p.numel() for p in network.parameters()) < SMALL_MODEL
        return cls.attention + FEED_FORWARD if small else cls.attention

    def _own_size(self) -> int:
        return self.transformer.config.sample_size * self.pipeline.vae_scale_factor

    def _most_side(self) -> int:
        return self.transformer.config.pos_embed_max_size * self._size_step()

    def _t5_tokens(self) -> int:
        tokenizer = self.pipeline.tokenizer_3
        return min(256, tokenizer.model_max_length) if tokenizer is not None else 256

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

    def blocks(self) -> list[torch.nn.Module]:
        """See `Backend.blocks`."""
        return list(self.transformer.transformer_blocks)

    def image_tokens(self, output: tuple[torch.Tensor | None, torch.Tensor]) -> torch.Tensor:
        """See `Backend.image_tokens`; a joint block gives text tokens first."""
        return output[1]

    def stock_call(self, steps: int, guidance: float = 1.0) -> dict:
        """See `Backend.stock_call`."""
        return super().stock_call(steps, guidance) | {"max_sequence_length": self._t5_tokens()}
