"""Stable Diffusion XL, for its few-step models (Turbo, Lightning), by a change of variables."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D

from trainer.backends.base import Conditioning
from trainer.backends.pipeline import PipelineBackend


class SDXLBackend(PipelineBackend):
    """A StableDiffusionXLPipeline folder: the UNet gives `eps` on the variance-preserving path of a DDPM.

    A DDPM's point is `x_vp = sqrt(abar)·x0 + sqrt(1 - abar)·eps`, with `sigma = sqrt((1 - abar)/abar)`. At the level
    `t = sigma/(1 + sigma)` the rectified-flow point of the same x0 and eps is the same point in another scale,
    `x_t = x_vp·sqrt((1 - t)² + t²)`, and the UNet's eps gives `v = eps - x0 = (eps - x_t)/(1 - t)`. An Euler step in sigma
    and one in t take the same x0 and eps to the next level, so both walk the same points. The noisiest level is not 1 but
    that of the largest sigma (.936 for SDXL, sigma 14.6), and the first point is that level times the noise.
    """

    pipeline_class = StableDiffusionXLPipeline
    component = "unet"
    attention = ("to_q", "to_k", "to_v", "to_out.0")
    sensitive = ("time_embedding", "add_embedding", "time_emb_proj", "proj_in", "proj_out")
    shift = 1.0

    def __init__(self, pipeline: StableDiffusionXLPipeline, **options):
        super().__init__(pipeline, **options)
        scheduler = pipeline.scheduler
        if not isinstance(scheduler, EulerDiscreteScheduler):
            # Turbo comes with the ancestral sampler, which adds noise at every step.
            raise ValueError(
                f"scheduler: {type(scheduler).__name__} is not the deterministic sampler that the method needs; save the "
                "pipeline with EulerDiscreteScheduler.from_config(pipe.scheduler.config, timestep_spacing='trailing')"
            )
        config = scheduler.config
        wanted = {
            "prediction_type": "epsilon",
            "timestep_spacing": "trailing",
            "final_sigmas_type": "zero",
            "rescale_betas_zero_snr": False,  # at an infinite sigma the noise says nothing of the image
        }
        for name, value in wanted.items():
            if config.get(name, value) != value:
                raise ValueError(f"scheduler: {name} is {config[name]!r}; few-step SDXL needs {value!r}")
        alphas = scheduler.alphas_cumprod.double()
        self._log_sigmas = (((1 - alphas) / alphas).log() / 2).float().to(self.device)

    def _own_size(self) -> int:
        return self.transformer.config.sample_size * self.pipeline.vae_scale_factor

    def streamed_blocks(self) -> list[torch.nn.Module]:
        """See `Backend.streamed_blocks`; the UNet's own blocks hold up to a third of it."""
        kinds = (BasicTransformerBlock, ResnetBlock2D, Downsample2D, Upsample2D)
        return [module for module in self.transformer.modules() if isinstance(module, kinds)]

    def grid(self, steps: int) -> torch.Tensor:
        """See `Backend.grid`."""
        self.pipeline.scheduler.set_timesteps(steps)
        sigmas = self.pipeline.scheduler.sigmas.double().cpu()
        return (sigmas / (1 + sigmas)).float()

    def _timestep(self, t: torch.Tensor) -> torch.Tensor:
        """The DDPM's time, 0 to 999 with fractions, of levels t: its log sigma is interpolated."""
        log_sigma = (t / (1 - t)).clamp_min(1e-6).log().clamp(self._log_sigmas[0], self._log_sigmas[-1])
        high = torch.searchsorted(self._log_sigmas, log_sigma).clamp(1, len(self._log_sigmas) - 1)
        low_value, high_value = self._log_sigmas[high - 1], self._log_sigmas[high]
        return high - 1 + (log_sigma - low_value) / (high_value - low_value)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """See `Backend.encode`."""
        prompts = list(prompts)
        embeds, _, pooled, _ = self.pipeline.encode_prompt(
            prompts, device=self.device, do_classifier_free_guidance=False
        )
        made = Conditioning(embeds.float(), pooled.float())
        if self.pipeline.config.force_zeros_for_empty_prompt:
            said = torch.tensor([prompt != "" for prompt in prompts], device=self.device)
            made = made.map(lambda t: t * said.view(-1, *(1,) * (t.ndim - 1)))
        return made

    def velocity(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """See `Backend.velocity`."""
        level = t.view(-1, 1, 1, 1)
        width, height = self.size_of(x)
        ids = torch.tensor([height, width, 0, 0, height, width], dtype=x.dtype, device=x.device)
        eps = self.transformer(
            x / ((1 - level) ** 2 + level**2).sqrt(),
            self._timestep(t),
            encoder_hidden_states=conditioning.embeds,
            added_cond_kwargs={"text_embeds": conditioning.pooled, "time_ids": ids.expand(len(x), -1)},
            return_dict=False,
        )[0].float()
        return (eps - x) / (1 - level)

    def stock_call(self, steps: int, guidance: float = 1.0) -> dict:
        """See `Backend.stock_call`."""
        width, height = self.size
        return {"num_inference_steps": steps, "guidance_scale": guidance, "height": height, "width": width}
