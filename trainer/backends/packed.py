"""Flow models whose transformer reads 2 × 2 patches of the VAE's latents, a row a patch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from common.sizes import Size
from trainer.backends.pipeline import FlowBackend


class PackedBackend(FlowBackend):
    """Base of FLUX.1 and Qwen-Image. The trainer keeps latents as the VAE has them; noise is the same either way."""

    def _latent_shape(self, size: Size) -> tuple[int, int, int]:
        width, height = (side // self.pipeline.vae_scale_factor for side in size)
        return (self.transformer.config.in_channels // 4, height, width)

    def blocks(self) -> list[torch.nn.Module]:
        """See `Backend.blocks`."""
        return self.streamed_blocks()

    def image_tokens(self, output: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """See `Backend.image_tokens`; every block gives text tokens first."""
        return output[1]

    def pack(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) → (B, h·w/4, 4·C), as the pipeline packs them."""
        return self.pipeline_class._pack_latents(latents, *latents.shape)

    def unpack(self, rows: torch.Tensor, sides: Sequence[int] = ()) -> torch.Tensor:
        """The inverse of `pack`, (B, C, h, w); `sides` are those of the present size unless given."""
        channels, (height, width) = rows.shape[-1] // 4, sides or self.latent_shape[1:]
        patches = rows.unflatten(1, (height // 2, width // 2)).unflatten(3, (channels, 2, 2))
        return patches.permute(0, 3, 1, 4, 2, 5).reshape(len(rows), channels, height, width)
