"""Put trained demo weights where the product ships them: fp16 safetensors under models/, with the world's prompts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image

from common.files import sha256_of, write_image, write_json
from common.round_folder import VERSION, RoundFolder
from trainer.backends import load_backend
from trainer.demo.scenes.prompts import all_prompts
from trainer.export import save_pipeline


def release_base(source: Path, target: Path) -> None:
    """A pipeline folder in fp16, and prompts.json as the web app's seed command reads it."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(source, torch_dtype=torch.float32, use_safetensors=True)
    save_pipeline(pipeline, target, torch.float16)
    rows = [{"prompt": p.prompt, "split": p.split, "metadata": p.metadata} for p in all_prompts()]
    write_json(target / "prompts.json", rows)


def release_student(model_dir: Path, source: Path, target: Path) -> Path:
    """A LoRA folder in fp16 that rounds go on from: rank and alpha stay what they are, other than in an export."""
    backend = load_backend(model_dir)
    lora = backend.load_lora(source)
    return backend.save_lora(target, {k: v.half() for k, v in lora.state.items()}, rank=lora.rank, alpha=lora.alpha)


def release_round(model_dir: Path, work: Path, target: Path, *, parent: str, most_metrics: int = 120) -> Path:
    """What is worth showing of a finished round: its version as `release_student` keeps it, its pictures before and after,
    and round.json with its settings, scores, labels and at most about `most_metrics` lines of its log. `work` holds the
    log; its version is in `work/version`. Raises ValueError, naming the file, where the round is not finished."""
    version = work / "version"
    try:
        card = json.loads((version / VERSION).read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{version / VERSION}: it is missing; let the round finish first") from error
    file = release_student(model_dir, version, target)
    for which in ("before", "after"):
        with Image.open(RoundFolder(work).grid(which)) as picture:
            write_image(target / f"{which}.webp", picture.convert("RGB"), "WEBP", quality=90)
    shutil.copyfile(RoundFolder(work).comparison, target / "comparison.json")
    log = [json.loads(line) for line in RoundFolder(work).log.read_text().splitlines()]
    stride = -(-len(log) // most_metrics)
    kept = [m for m in log if m["step"] % stride == 0 or any(name.startswith("validation_") for name in m)]
    metrics = [{k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()} for line in kept]
    shown = {name: card[name] for name in ("settings", "scores_before", "scores_after", "steps", "labels")}
    seconds = round(card["rounds_state"]["seconds"])
    write_json(
        target / "round.json",
        {"parent": parent, "sha256": sha256_of(file), "seconds": seconds, **shown, "metrics": metrics},
    )
    return file
