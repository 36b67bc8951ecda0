"""Versions for other programs: a standard diffusers LoRA, or a whole pipeline with it merged in, each with its card."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import save_file

from common.cards import LORA_NAME, Base, lineage, model_card
from common.comfy import WORKFLOW_NAME, workflow
from common.files import share_as_usual, write_atomic, write_json
from common.hub import push
from common.portable import foreign_tensor, portable_lora
from trainer.backends import backend_class, load_backend
from trainer.backends.lora import lora_file, read_pairs
from trainer.backends.options import OPTIONS_FILE
from trainer.convert_ema import network_outline
from trainer.roles import STUDENT, Roles


@dataclass(frozen=True)
class About:
    """What a card says beside what the folders tell: the base model's hub id, a license, a title."""

    base: str = ""
    license: str = ""
    title: str = ""


def export_lora(
    model_dir: Path, version_dir: Path, output: Path, *, dtype: str = "fp32", about: About | None = None
) -> Path:
    """The version's LoRA, README.md and a ComfyUI workflow in `output`; stock `pipe.load_lora_weights(output)` reads it.
    Returns the file."""
    about = about or About()
    if output.resolve() == version_dir.resolve():
        raise ValueError(f"output: {output} is the version's own folder; give another")
    title, base = about.title or version_dir.name, Base.of(model_dir, about.base, about.license)
    with tempfile.TemporaryDirectory() as folder:
        source = _in_diffusers_names(model_dir, version_dir, Path(folder))
        write_atomic(output / LORA_NAME, b"".join(portable_lora(source, title=title, base=base, dtype=dtype)))
    _write_card(output, title, base, version_dir, merged=False)
    if nodes := workflow(base):
        write_json(output / WORKFLOW_NAME, nodes)
    return output / LORA_NAME


def share(
    model_dir: Path,
    version_dir: Path,
    repository: str,
    *,
    private: bool = True,
    dtype: str = "fp32",
    about: About | None = None,
) -> str:
    """Send what `export_lora` writes to a repository of the hub; returns its address. Raises what `hub.push` does."""
    with tempfile.TemporaryDirectory() as folder:
        export_lora(model_dir, version_dir, Path(folder), dtype=dtype, about=about)
        files = {file.name: file for file in Path(folder).iterdir()}
        return push(files, repository, message=(about or About()).title or version_dir.name, private=private)


def _in_diffusers_names(model_dir: Path, version_dir: Path, folder: Path) -> Path:
    """The version's folder; of one that another program named in its own way, `folder` with the same changes. Raises
    ValueError on what is no LoRA of the model."""
    family, file = backend_class(model_dir), lora_file(version_dir)
    network = network_outline(Path(model_dir), family.component)
    pairs = read_pairs(file, network, family.pipeline_class, family.component)
    with safe_open(file, "pt") as opened:
        if not foreign_tensor(opened.keys()):
            return version_dir
    tensors = {}
    for name, pair in pairs.items():
        tensors[f"{family.component}.{name}.lora_A.weight"] = pair.a.contiguous()
        tensors[f"{family.component}.{name}.lora_B.weight"] = (pair.b * pair.scale).contiguous()
    save_file(tensors, folder / LORA_NAME)
    stamp = file.stat().st_mtime
    os.utime(folder / LORA_NAME, (stamp, stamp))  # the header's date
    return folder


def export_merged(
    model_dir: Path, version_dir: Path, output: Path, *, dtype: str = "fp32", about: About | None = None
) -> Path:
    """A pipeline folder whose transformer (or UNet) has the version's LoRA merged in, with README.md; merged in fp32,
    written in `dtype`. Raises ValueError when the folder is not empty, or when the LoRA changes no weight. Returns it."""
    about = about or About()
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"output: {output} is not empty; give a new folder")
    backend = load_backend(model_dir)
    lora = backend.load_lora(version_dir)
    roles = Roles(backend.transformer, lora.targets, rank=lora.rank, alpha=lora.alpha, roles=(STUDENT,))
    roles.load_state_dict(STUDENT, lora.state)
    if not roles.fold(STUDENT):
        raise ValueError(
            f"version: {version_dir / LORA_NAME} changes no weight of {model_dir}; export the base as it is"
        )
    save_pipeline(backend.pipeline, output, torch.float16 if dtype == "fp16" else torch.float32)
    if (options := model_dir / OPTIONS_FILE).exists():
        write_atomic(output / OPTIONS_FILE, options.read_bytes())
    base = Base.of(model_dir, about.base, about.license)
    _write_card(output, about.title or version_dir.name, base, version_dir, merged=True)
    return output


def save_pipeline(pipeline: DiffusionPipeline, folder: Path, dtype: torch.dtype) -> None:
    """Write a pipeline folder in a precision. Whoever names none when loading it gets fp32 throughout: diffusers reads its
    parts so whatever is stored, but transformers takes what the text encoders' configs say."""
    pipeline.vae.to(memory_format=torch.contiguous_format)  # safetensors stores no other
    pipeline.to(dtype).save_pretrained(folder)
    share_as_usual(folder)
    forget_origin(folder)
    for file in folder.glob("text_encoder*/config.json"):
        write_json(file, json.loads(file.read_text()) | {"dtype": "float32"})


def forget_origin(pipeline_dir: Path) -> None:
    """Take out of a saved pipeline's configs the folder that it was loaded from: it means nothing elsewhere."""
    for file in (pipeline_dir / "model_index.json", *pipeline_dir.glob("*/config.json")):
        values = json.loads(file.read_text())
        if values.pop("_name_or_path", None) is not None:
            write_json(file, values)


def _write_card(output: Path, title: str, base: Base, version_dir: Path, *, merged: bool) -> None:
    write_atomic(output / "README.md", model_card(title, base, lineage(version_dir), merged=merged).encode())
