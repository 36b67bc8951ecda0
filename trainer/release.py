"""Put trained demo weights where the product ships them: fp16 safetensors under models/, with the world's prompts."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusion3Pipeline

from trainer.backends import load_backend
from trainer.export import forget_origin
from trainer.files import write_json
from trainer.scenes.prompts import all_prompts


def release_base(source: Path, target: Path) -> None:
    """A pipeline folder in fp16, and prompts.json as the web app's seed command reads it."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(source, torch_dtype=torch.float32)
    pipeline.to(torch.float16).save_pretrained(target)
    forget_origin(target)
    rows = [{"prompt": p.prompt, "split": p.split, "metadata": p.metadata} for p in all_prompts()]
    write_json(target / "prompts.json", rows)


def release_student(model_dir: Path, source: Path, target: Path) -> Path:
    """A LoRA folder in fp16 that rounds go on from: rank and alpha stay what they are, other than in an export."""
    backend = load_backend(model_dir)
    state, rank, alpha = backend.load_lora(source)
    return backend.save_lora(target, {k: v.half() for k, v in state.items()}, rank=rank, alpha=alpha)
