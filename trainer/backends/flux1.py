"""FLUX.1 dev and schnell."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import FluxPipeline

from common.cards import EMBEDDED_GUIDANCE
from trainer.backends.base import Conditioning
from trainer.backends.options import ModelOptions
from trainer.backends.packed import PackedBackend

T5_TOKENS = {True: 512, False: 256}  # of dev and schnell; each was trained with as many


class Flux1Backend(PackedBackend):
    """A FluxPipeline folder: the network gives `eps - x0` itself, for times as t. Dev takes a guidance scale as an input,
    which stays the same in all roles; schnell has none. Both are distilled, so neither can be guided any more."""

    pipeline_class = FluxPipeline
    attention = tuple(
        f"attn.{name}"
        for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    )
    # A single block's `proj_out` is not the network's own, and holds a third of it.
    sensitive = (
        "time_text_embed",
        "x_embedder",
        "context_embedder",
        "norm1",
        "norm1_context",
        "norm",
        "norm_out",
        ".proj_out",
    )
    block_lists = ("transformer_blocks", "single_transformer_blocks")

    def __init__(self, pipeline: FluxPipeline, *, options: ModelOptions | None = None, **given):
        super().__init__(pipeline, options=options, **given)
        embedded = bool(self.transformer.config.guidance_embeds)
        own = EMBEDDED_GUIDANCE[self.pipeline_class.__name__]
        self.scale = (options.guidance if options else 0) or own if embedded else None
        self.tokens = min(T5_TOKENS[embedded], pipeline.tokenizer_2.model_max_length)
        self.distilled = True

    @classmethod
    def targets(cls, network: torch.nn.Module) -> tuple[str, ...]:
        """See `PipelineBackend.targets`. Single blocks have one layer for the way out of attention and feed-forward."""
        singles = range(len(network.single_transformer_blocks))
        return cls.attention + tuple(f"single_transformer_blocks.{i}.proj_out" for i in singles)

    def _own_size(self) -> int:
        return self.pipeline.default_sample_size * self.pipeline.vae_scale_factor

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """See `Backend.encode`. T5's padding is read too, as the pipeline has it."""
        embeds, pooled, _ = self.pipeline.encode_prompt(
            list(prompts), device=self.device, max_sequence_length=self.tokens
        )
        return Conditioning(embeds.float(), pooled.float())

    def velocity(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """See `Backend.velocity`."""
        height, width = x.shape[-2:]
        rows = self.transformer(
            hidden_states=self.pack(x),
            timestep=t,
            guidance=None if self.scale is None else torch.full((len(x),), self.scale, device=x.device),
            pooled_projections=conditioning.pooled,
            encoder_hidden_states=conditioning.embeds,
            txt_ids=torch.zeros(conditioning.embeds.shape[1], 3, device=x.device),
            img_ids=self.pipeline_class._prepare_latent_image_ids(1, height // 2, width // 2, x.device, torch.float32),
            return_dict=False,
        )[0]
        return self.unpack(rows, x.shape[-2:]).float()

    def stock_call(self, steps: int, guidance: float = 1.0) -> dict:
        """See `Backend.stock_call`; `guidance_scale` is the embedded one."""
        call = super().stock_call(steps) | {"guidance_scale": self.scale or 0.0, "max_sequence_length": self.tokens}
        return call if guidance <= 1 else call | {"true_cfg_scale": guidance, "negative_prompt": ""}
