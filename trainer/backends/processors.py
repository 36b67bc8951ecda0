"""Processors of which only the tokenizer is used."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from transformers import AutoTokenizer

from trainer.backends.folders import listed_parts


def text_alone(folder: Path) -> dict:
    """Name → tokenizer of the parts that need torchvision, where that is missing: FLUX.2 dev's comes with a processor of
    images, and prompts are read by its tokenizer."""
    if importlib.util.find_spec("torchvision") is not None:
        return {}
    parts = listed_parts(folder).items()
    processors = [name for name, (_, kind) in parts if kind == "PixtralProcessor"]
    return {name: AutoTokenizer.from_pretrained(folder / name, local_files_only=True) for name in processors}
