"""What the trainer needs to know of a model family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from diffusers import DiffusionPipeline
from PIL import Image


def autocast(device: torch.device, enabled: bool = True):
    """bfloat16 autocast on the device; measured faster than fp32 on CPUs with AVX-512 BF16 and on GPUs."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


@dataclass(frozen=True)
class Conditioning:
    """Text embeddings of B prompts: `embeds` (B, T, D) and `pooled` (B, P)."""

    embeds: torch.Tensor
    pooled: torch.Tensor

    def __len__(self) -> int:
        return len(self.embeds)

    def repeat(self, times: int) -> Conditioning:
        """Each row `times` times, neighbours together: (B·times, …)."""
        return Conditioning(self.embeds.repeat_interleave(times, 0), self.pooled.repeat_interleave(times, 0))

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Conditioning:
        """The same with `function` of each tensor: `c.map(lambda t: t[rows])`."""
        return Conditioning(function(self.embeds), function(self.pooled))

    def tensors(self) -> dict[str, torch.Tensor]:
        """By name, as the constructor takes them."""
        return {"embeds": self.embeds, "pooled": self.pooled}

    @staticmethod
    def concatenate(parts: Sequence[Conditioning]) -> Conditioning:
        """Along the batch."""
        return Conditioning(torch.cat([p.embeds for p in parts]), torch.cat([p.pooled for p in parts]))


class Backend(Protocol):
    """A few-step model family as the trainer sees it. What saves memory (caches, batches, offload, precision) is not its
    business: `backends.memory.Managed` does that around any backend."""

    pipeline: DiffusionPipeline
    transformer: torch.nn.Module
    device: torch.device
    shift: float  # of the model's own time grid
    latent_shape: tuple[int, int, int]
    lora_targets: tuple[str, ...]  # module names, or their endings, that get LoRA

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Embeddings, float32; "" is the unconditional prompt. Must name `device`, since the pipeline's own guess is wrong
        while parts of it are elsewhere."""
        ...

    def velocity(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """`v = eps - x0` at (B, C, h, w) latents and times (B,) in [0, 1], float32."""
        ...

    def decode(self, latents: torch.Tensor, *, bf16: bool = False) -> list[Image.Image]:
        """Latents (B, C, h, w) → RGB images; `bf16` for images that an oracle judges, not for ones that people see."""
        ...

    def save_lora(self, folder: Path, state: dict[str, torch.Tensor], *, rank: int, alpha: int) -> Path:
        """Write an adapter as a standard diffusers LoRA; returns the file."""
        ...

    def load_lora(self, folder: Path) -> tuple[dict[str, torch.Tensor], int, int]:
        """(state in PEFT's names, rank, alpha) of a LoRA folder."""
        ...
