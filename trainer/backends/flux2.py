"""FLUX.2 klein, distilled and base, and FLUX.2 dev."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import Flux2KleinPipeline, Flux2Pipeline
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from PIL import Image

from common.cards import EMBEDDED_GUIDANCE
from common.inputs import USED_PIXELS
from common.sizes import Size
from trainer.backends.base import Conditioning
from trainer.backends.options import ModelOptions
from trainer.backends.pipeline import FlowBackend

MOST_TOKENS = 512  # of a prompt in its chat, which is the pipelines' default


class Flux2Backend(FlowBackend):
    """What both have in common: the network gives `eps - x0` itself, for times as t. Latents are 2 × 2 patches of the
    VAE's, normalised by its batch norm, and the shift depends on the number of steps and tokens."""

    scale: float | None = None  # of guidance, where the network takes one as an input
    attention = (
        "attn.to_q",
        "attn.to_k",
        "attn.to_v",
        "attn.to_out.0",
        "attn.add_q_proj",
        "attn.add_k_proj",
        "attn.add_v_proj",
        "attn.to_add_out",
        "attn.to_qkv_mlp_proj",
    )
    sensitive = (
        "time_guidance_embed",
        "x_embedder",
        "context_embedder",
        "double_stream_modulation_img",
        "double_stream_modulation_txt",
        "single_stream_modulation",
        "norm_out",
        "proj_out",
    )
    block_lists = ("transformer_blocks", "single_transformer_blocks")

    @classmethod
    def targets(cls, network: torch.nn.Module) -> tuple[str, ...]:
        """See `PipelineBackend.targets`. "attn.to_out" is a layer in single blocks but a list of two in double ones, so
        the single blocks' are named in full."""
        blocks = len(network.single_transformer_blocks)
        return cls.attention + tuple(f"single_transformer_blocks.{i}.attn.to_out" for i in range(blocks))

    def _own_size(self) -> int:
        return self.pipeline.default_sample_size * self.pipeline.vae_scale_factor

    def _latent_shape(self, size: Size) -> tuple[int, int, int]:
        width, height = (side // self._size_step() for side in size)
        return (self.transformer.config.in_channels, height, width)

    def _mu(self, steps: int) -> float:
        return compute_empirical_mu(self._tokens(), steps)

    def _text_tokens(self) -> int:
        return min(MOST_TOKENS, self.pipeline.tokenizer.model_max_length)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """See `Backend.encode`."""
        embeds, _ = self.pipeline.encode_prompt(
            list(prompts), device=self.device, max_sequence_length=self._text_tokens()
        )
        return Conditioning(embeds.float(), torch.zeros(len(embeds), 0, device=self.device))

    def velocity(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """See `Backend.velocity`."""
        pipeline, given = self.pipeline_class, conditioning.image
        tokens, ids = pipeline._pack_latents(x), pipeline._prepare_latent_ids(x[:1])
        if given is not None:  # more tokens, in a place of their own
            tokens = torch.cat([tokens, pipeline._pack_latents(given.to(x.dtype))], 1)
            ids = torch.cat([ids, pipeline._prepare_image_ids([given[:1]])], 1)
        out = self.transformer(
            hidden_states=tokens,
            timestep=t,
            guidance=None if self.scale is None else torch.full((len(x),), self.scale, device=x.device),
            encoder_hidden_states=conditioning.embeds,
            txt_ids=pipeline._prepare_text_ids(conditioning.embeds[:1]).to(x.device),
            img_ids=ids.to(x.device),
            return_dict=False,
        )[0]
        return out[:, : x.shape[2] * x.shape[3]].transpose(1, 2).unflatten(2, x.shape[2:]).float()

    @torch.no_grad()
    def encode_input(self, image: Image.Image) -> torch.Tensor:
        """See `Backend.encode_input`; larger ones are made as small as the pipeline makes them."""
        processor, step = self.pipeline.image_processor, self._size_step()
        try:
            processor.check_image_input(image)
        except ValueError as error:
            raise ValueError(f"input_image: {error}") from error
        image = processor._resize_if_exceeds_area(image, USED_PIXELS)
        width, height = (side // step * step for side in image.size)
        pixels = processor.preprocess(image, height=height, width=width, resize_mode="crop")
        vae = self.pipeline.vae
        return self.from_vae(vae.encode(pixels.to(self.device, vae.dtype)).latent_dist.mode())[0].float()

    def blocks(self) -> list[torch.nn.Module]:
        """See `Backend.blocks`."""
        return self.streamed_blocks()

    def image_tokens(self, output: torch.Tensor | tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """See `Backend.image_tokens`; a double block gives text and image apart, a single one the text first."""
        if isinstance(output, tuple):
            return output[1]
        _, height, width = self.latent_shape
        return output[:, -height * width :]

    def _norm(self) -> tuple[torch.Tensor, torch.Tensor]:
        vae = self.pipeline.vae
        mean, variance = (b.view(1, -1, 1, 1) for b in (vae.bn.running_mean, vae.bn.running_var))
        return mean, (variance + vae.config.batch_norm_eps).sqrt()

    def to_vae(self, latents: torch.Tensor) -> torch.Tensor:
        """See `PipelineBackend.to_vae`."""
        mean, deviation = self._norm()
        return self.pipeline._unpatchify_latents(latents * deviation + mean)

    def from_vae(self, latents: torch.Tensor) -> torch.Tensor:
        """See `PipelineBackend.from_vae`."""
        mean, deviation = self._norm()
        return (self.pipeline._patchify_latents(latents) - mean) / deviation


class Flux2KleinBackend(Flux2Backend):
    """A Flux2KleinPipeline folder."""

    pipeline_class = Flux2KleinPipeline

    def __init__(self, pipeline: Flux2KleinPipeline, **options):
        super().__init__(pipeline, **options)
        self.distilled = self.distilled or bool(pipeline.config.is_distilled)


class Flux2DevBackend(Flux2Backend):
    """A Flux2Pipeline folder: guidance is distilled into the network, which takes its scale as an input, the same in all
    roles."""

    pipeline_class = Flux2Pipeline

    def __init__(self, pipeline: Flux2Pipeline, *, options: ModelOptions | None = None, **given):
        super().__init__(pipeline, options=options, **given)
        self.scale = (options.guidance if options else 0) or EMBEDDED_GUIDANCE[self.pipeline_class.__name__]
        self.distilled = True

    def encode_input(self, image: Image.Image) -> torch.Tensor:
        """See `Backend.encode_input`."""
        raise ValueError("input_image: FLUX.2 dev was not compared with its stock pipeline in this; use FLUX.2 klein")

    def stock_call(self, steps: int, guidance: float = 1.0) -> dict:
        """See `Backend.stock_call`; `guidance_scale` is the embedded one. Raises ValueError under another guidance, which
        this pipeline has not."""
        if guidance > 1:
            raise ValueError("guidance: FLUX.2 dev's pipeline has none but the embedded one; set guidance to 1")
        return super().stock_call(steps) | {"guidance_scale": self.scale, "max_sequence_length": self._text_tokens()}
