"""What the families have in common: a diffusers pipeline's parts, images, LoRA files and the flow models' time grid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift
from PIL import Image

from common.cards import LORA_NAME
from common.files import share_as_usual
from common.sizes import LARGEST, Size, size_text
from trainer.backends.base import Conditioning, autocast
from trainer.backends.lora import Lora, as_adapter, covering, lora_file, modules_of, read_pairs
from trainer.backends.options import OPTIONS_FILE, ModelOptions
from trainer.flow import guided, step_grid

FEW_STEPS = 4  # where a family's shift depends on the number of steps, training draws levels with the few-step one


class PipelineBackend:
    """Base of the families. A subclass sets `pipeline_class`, `component` (which part is trained), `attention`,
    `sensitive` and `block_lists` (the network's lists of blocks), and writes `encode`, `velocity`, `grid` and
    `stock_call`."""

    pipeline_class: type[DiffusionPipeline]
    component = "transformer"
    attention: tuple[str, ...] = ()
    sensitive: tuple[str, ...] = ()
    block_lists: tuple[str, ...] = ()
    default_size = 1024

    def __init__(self, pipeline: DiffusionPipeline, *, device: torch.device, options: ModelOptions | None = None):
        self.pipeline, self.device, options = pipeline, device, options or ModelOptions()
        self.transformer = pipeline.components[self.component]
        side = options.size or self._own_size()
        if side % self._size_step():
            raise ValueError(f"{OPTIONS_FILE}: size: {side} is not a multiple of {self._size_step()}")
        self.distilled = options.distilled
        self.own_size = side, side
        self._use_size(self.own_size)
        self.lora_targets = self.targets(self.transformer)

    @classmethod
    def targets(cls, network: torch.nn.Module) -> tuple[str, ...]:
        """The modules of a network of this family that get LoRA."""
        return cls.attention

    @classmethod
    def idle(cls, network: torch.nn.Module) -> tuple[str, ...]:
        """Layers whose output reaches nothing: LoRA on them changes no image and gets no gradient."""
        return ()

    @contextmanager
    def sized(self, size: Size | None) -> Iterator[None]:
        """See `Backend.sized`."""
        before = self.size
        self._use_size(size or self.own_size)
        try:
            yield
        finally:
            self._use_size(before)

    def _use_size(self, size: Size) -> None:
        step = self._size_step()
        if any(side < step or side % step for side in size):
            raise ValueError(f"size: {size_text(size)} is not of multiples of {step} pixels, as this model needs")
        if max(size) > self._most_side():
            raise ValueError(
                f"size: {size_text(size)} is beyond the {self._most_side()} pixels a side that this model knows"
            )
        self.size = size
        self.latent_shape = self._latent_shape(size)

    def size_of(self, latents: torch.Tensor | Sequence[int]) -> Size:
        """See `Backend.size_of`."""
        shape = latents.shape if isinstance(latents, torch.Tensor) else latents
        height, width = (side * self.own_size[0] // self._latent_shape(self.own_size)[-1] for side in shape[-2:])
        return width, height

    def _own_size(self) -> int:
        return self.default_size

    def _most_side(self) -> int:
        return LARGEST

    def _size_step(self) -> int:
        return 2 * self.pipeline.vae_scale_factor  # every family here patches or halves its latents by two

    def _latent_shape(self, size: Size) -> tuple[int, int, int]:
        width, height = (side // self.pipeline.vae_scale_factor for side in size)
        return (self.transformer.config.in_channels, height, width)

    def to_vae(self, latents: torch.Tensor) -> torch.Tensor:
        """The trainer's unit-variance latents → what the VAE's decoder takes."""
        config = self.pipeline.vae.config
        return latents / config.scaling_factor + (config.shift_factor or 0)

    def from_vae(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse of `to_vae`."""
        config = self.pipeline.vae.config
        return (latents - (config.shift_factor or 0)) * config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, *, bf16: bool = False) -> list[Image.Image]:
        """See `Backend.decode`."""
        vae = self.pipeline.vae
        scaled = self.to_vae(latents.to(vae.dtype)).contiguous(memory_format=torch.channels_last)
        with autocast(self.device, bf16):
            pixels = self.vae_decode(scaled).float()
        return self.pipeline.image_processor.postprocess(pixels, output_type="pil")

    def streamed_blocks(self) -> list[torch.nn.Module]:
        """See `Backend.streamed_blocks`."""
        if not self.block_lists:
            raise ValueError(f"streamed: {type(self).__name__} does not name its blocks; turn streamed off")
        return [block for name in self.block_lists for block in getattr(self.transformer, name)]

    def blocks(self) -> list[torch.nn.Module]:
        """See `Backend.blocks`."""
        raise ValueError(f"surrogate: {type(self).__name__} does not say which of its blocks a reward head can read")

    def image_tokens(self, output) -> torch.Tensor:
        """See `Backend.image_tokens`."""
        raise NotImplementedError

    def encode_input(self, image: Image.Image) -> torch.Tensor:
        """See `Backend.encode_input`."""
        raise ValueError(f"input_image: {type(self.pipeline).__name__} makes images of prompts alone")

    def outline(self, count: int) -> Conditioning:
        """See `Backend.outline`."""
        return self.encode(["a prompt"] * count)

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """See `Backend.encode_images`; the VAE's most likely latents, without its noise."""
        vae = self.pipeline.vae
        pixels = self.pipeline.image_processor.preprocess(list(images)).to(self.device, vae.dtype)
        return self.from_vae(self.vae_encode(pixels)).float()

    def vae_decode(self, latents: torch.Tensor) -> torch.Tensor:
        """What `to_vae` gave → pixels (B, 3, H, W), -1 to 1."""
        return self.pipeline.vae.decode(latents).sample

    def vae_encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels → what `from_vae` takes."""
        return self.pipeline.vae.encode(pixels).latent_dist.mode()

    def guided(self, conditional: torch.Tensor, unconditional: torch.Tensor, scale: float) -> torch.Tensor:
        """See `Backend.guided`."""
        return guided(conditional, unconditional, scale)

    def save_lora(self, folder: Path, state: dict[str, torch.Tensor], *, rank: int, alpha: float) -> Path:
        """See `Backend.save_lora`."""
        targets = covering(self.lora_targets, modules_of(state))
        return self.write_lora(folder, state, rank=rank, alpha=alpha, targets=targets)

    @classmethod
    def write_lora(cls, folder: Path, state: dict[str, torch.Tensor], *, rank: int, alpha: float, targets) -> Path:
        """Write an adapter without loading a model; stored as given, with the PEFT config that stock loaders read."""
        folder.mkdir(parents=True, exist_ok=True)
        metadata = {"r": rank, "lora_alpha": alpha, "target_modules": list(targets)}
        cls.pipeline_class.save_lora_weights(
            folder,
            **{
                f"{cls.component}_lora_layers": {k: v.contiguous() for k, v in state.items()},
                f"{cls.component}_lora_adapter_metadata": metadata,
            },
        )
        share_as_usual(folder / LORA_NAME)
        return folder / LORA_NAME

    def load_lora(self, folder: Path) -> Lora:
        """See `Backend.load_lora`."""
        pairs = read_pairs(lora_file(folder), self.transformer, self.pipeline_class, self.component)
        idle = self.idle(self.transformer)
        heard = {name: pair for name, pair in pairs.items() if name not in idle}
        return as_adapter(heard or pairs, self.transformer, self.lora_targets)


class FlowBackend(PipelineBackend):
    """Base of the rectified-flow families: levels are 1 to 0, evenly spaced before the scheduler's own shift."""

    straighten = "switch it off"  # what to do about a scheduler that bends the grid

    def __init__(self, pipeline: DiffusionPipeline, **options):
        super().__init__(pipeline, **options)
        scheduler = pipeline.scheduler
        if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            raise ValueError(
                f"scheduler: {type(scheduler).__name__} cannot be followed step by step; "
                "save the pipeline with its FlowMatchEulerDiscreteScheduler"
            )
        if scheduler.config.get("stochastic_sampling"):
            raise ValueError("scheduler: stochastic_sampling adds noise at every step; set it to false")
        bent = ("shift_terminal", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas")
        if wrong := [name for name in bent if scheduler.config.get(name)]:
            raise ValueError(f"scheduler: {wrong[0]} bends the grid in a way that is not supported; {self.straighten}")

    @property
    def shift(self) -> float:
        """See `Backend`; with a dynamic shift that of the size's tokens."""
        return self._shift(FEW_STEPS)

    def _tokens(self) -> int:
        """How many tokens an image of the present size has in the network."""
        width, height = (side // self._size_step() for side in self.size)
        return width * height

    def _mu(self, steps: int) -> float:
        """The dynamic shift's exponent, as the stock pipeline computes it."""
        config = self.pipeline.scheduler.config
        return calculate_shift(
            self._tokens(),
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )

    def _shift(self, steps: int) -> float:
        config = self.pipeline.scheduler.config
        if not config.get("use_dynamic_shifting"):
            return float(config.shift)
        mu = self._mu(steps)
        return math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else mu

    def grid(self, steps: int) -> torch.Tensor:
        """See `Backend.grid`."""
        return step_grid(steps, self._shift(steps))

    def stock_call(self, steps: int, guidance: float = 1.0) -> dict:
        """See `Backend.stock_call`."""
        return {
            "num_inference_steps": steps,
            "sigmas": [1 - j / steps for j in range(steps)],
            "guidance_scale": guidance,
            "height": self.size[1],
            "width": self.size[0],
        }
