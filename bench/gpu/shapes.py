"""Backends of real models' shapes with random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import SD3Transformer2DModel

from bench.shapes import CLIP_TOKENS, T5_TOKENS, write
from common.settings import MemorySettings
from trainer.backends import Conditioning, Managed, load_backend
from trainer.backends.memory import EmbeddingFolder, encoders_identity

CHAT_TOKENS = 64  # of a prompt
MODELS = {"sd35": "SD3.5 Medium", "z_image": "Z-Image"}
PROMPTS = tuple(f"{count} {color} stars" for count in ("two", "three") for color in ("red", "blue", "green", "black"))


def write_model(name: str, folder: Path, *, tiny: bool, size: int) -> Path:
    """The folder of a model of `MODELS` for images of `size` pixels, whose text encoders are next to nothing. `tiny`
    shrinks all of it."""
    return write(MODELS[name], folder, size, shallow=True, tiny=tiny)


def random_backend(folder: Path, memory: MemorySettings, device: torch.device) -> Managed:
    """A model of `write_model` with random weights, made on the device; the settings must name a folder of embeddings, into
    which those of `PROMPTS` and "" are put."""
    backend = load_backend(folder, device=str(device), memory=memory, shapes=device)
    kept = EmbeddingFolder(Path(memory.embeddings), encoders_identity(folder, memory))
    generator = torch.Generator().manual_seed(0)
    for prompt in ("", *PROMPTS):
        kept.write(prompt, _embedding(backend, generator))
    return backend


def _embedding(backend: Managed, generator: torch.Generator) -> Conditioning:
    """Of one prompt, as the family's `encode` gives it."""
    config = backend.transformer.config
    if isinstance(backend.transformer, SD3Transformer2DModel):
        embeds = torch.randn((1, CLIP_TOKENS + T5_TOKENS, config.joint_attention_dim), generator=generator)
        return Conditioning(embeds, torch.randn((1, config.pooled_projection_dim), generator=generator))
    embeds = torch.randn((1, CHAT_TOKENS, config.cap_feat_dim), generator=generator)
    return Conditioning(embeds, torch.zeros(1, 0), torch.tensor([CHAT_TOKENS]))
