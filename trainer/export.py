"""Versions for other programs: a standard diffusers LoRA, or a whole pipeline with the LoRA merged in."""

from __future__ import annotations

from pathlib import Path

import torch

from trainer.backends import load_backend


def export_lora(model_dir: Path, version_dir: Path, output: Path) -> Path:
    """The version's LoRA in fp16; stock `pipe.load_lora_weights(output)` reads it. Returns the file."""
    backend = load_backend(model_dir)
    state, rank, alpha = backend.load_lora(version_dir)
    return backend.save_lora(output, {k: v.half() for k, v in state.items()}, rank=rank, alpha=alpha)


def export_merged(model_dir: Path, version_dir: Path, output: Path) -> Path:
    """A pipeline folder whose transformer has the version's LoRA merged in. Returns the folder."""
    pipeline = load_backend(model_dir).pipeline
    pipeline.load_lora_weights(version_dir)
    pipeline.fuse_lora(components=["transformer"])
    pipeline.unload_lora_weights()
    pipeline.vae.to(memory_format=torch.contiguous_format)  # safetensors stores no other
    pipeline.save_pretrained(output)
    return output
