"""Versions for other programs: a standard diffusers LoRA, or a whole pipeline with it merged in, each with its card."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from common.cards import LORA_NAME, Base, lineage, model_card
from common.files import write_atomic, write_json
from common.portable import portable_lora
from trainer.backends import load_backend
from trainer.backends.pipeline import OPTIONS_FILE


def export_lora(
    model_dir: Path, version_dir: Path, output: Path, *, dtype: str = "fp32", base: str = "", title: str = ""
) -> Path:
    """The version's LoRA and README.md in `output`; stock `pipe.load_lora_weights(output)` reads it. `base` is the base
    model's hub id where it has one. Returns the file."""
    if output.resolve() == version_dir.resolve():
        raise ValueError(f"output: {output} is the version's own folder; give another")
    title = title or version_dir.name
    pieces = portable_lora(version_dir, title=title, description=f"LoRA for {base or model_dir.name}", dtype=dtype)
    write_atomic(output / LORA_NAME, b"".join(pieces))
    _write_card(output, title, Base.of(model_dir, base), version_dir, merged=False)
    return output / LORA_NAME


def export_merged(
    model_dir: Path, version_dir: Path, output: Path, *, dtype: str = "fp32", base: str = "", title: str = ""
) -> Path:
    """A pipeline folder whose transformer (or UNet) has the version's LoRA merged in, with README.md; merged in fp32,
    written in `dtype`. Raises ValueError when the folder is not empty. Returns it."""
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"output: {output} is not empty; give a new folder")
    pipeline = load_backend(model_dir).pipeline
    pipeline.load_lora_weights(version_dir)
    pipeline.fuse_lora(components=[name for name in ("transformer", "unet") if getattr(pipeline, name, None)])
    pipeline.unload_lora_weights()
    pipeline.vae.to(memory_format=torch.contiguous_format)  # safetensors stores no other
    if dtype == "fp16":
        pipeline.to(torch.float16)
    pipeline.save_pretrained(output)
    forget_origin(output)
    if (options := model_dir / OPTIONS_FILE).exists():
        write_atomic(output / OPTIONS_FILE, options.read_bytes())
    _write_card(output, title or version_dir.name, Base.of(model_dir, base), version_dir, merged=True)
    return output


def forget_origin(pipeline_dir: Path) -> None:
    """Take out of a saved pipeline's configs the folder that it was loaded from: it means nothing elsewhere."""
    for file in (pipeline_dir / "model_index.json", *pipeline_dir.glob("*/config.json")):
        values = json.loads(file.read_text())
        if values.pop("_name_or_path", None) is not None:
            write_json(file, values)


def _write_card(output: Path, title: str, base: Base, version_dir: Path, *, merged: bool) -> None:
    write_atomic(output / "README.md", model_card(title, base, lineage(version_dir), merged=merged).encode())
