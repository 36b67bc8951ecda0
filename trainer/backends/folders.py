"""What a pipeline folder must hold before anything of it is loaded.

Stock loaders make up what is missing (an empty tokenizer, random weights) or fall back to pickled files. Here each part
that `model_index.json` lists is looked at first, and the first fault is one sentence that names it and the fix.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

COPY_AGAIN = "copy the model's folder again"
PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5", ".onnx")
# A tokenizer needs one of these; transformers makes an empty one where there is none.
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model", "tekken.json")
WEIGHTS = re.compile(r"(?P<stem>diffusion_pytorch_model|model)(\.(?P<variant>[a-z]\w*))?(-\d+-of-\d+)?\.safetensors")
INDEX = re.compile(r"(?P<stem>diffusion_pytorch_model|model)\.safetensors\.index(\.(?P<variant>[a-z]\w*))?\.json")
MOST_HEADER = 100_000_000  # bytes, safetensors' own limit


def listed_parts(folder: Path) -> dict[str, tuple[str, str]]:
    """Name → (library, class) of the parts that `model_index.json` lists."""
    return {name: value for name, value in _entries(folder).items() if value[0] is not None}


def parts_gone_without(folder: Path) -> list[str]:
    """Names of the parts that are null in `model_index.json`: the model is used without them."""
    return [name for name, value in _entries(folder).items() if value[0] is None]


def _entries(folder: Path) -> dict[str, tuple]:
    index = json.loads((folder / "model_index.json").read_text())
    return {name: tuple(value) for name, value in index.items() if isinstance(value, list) and len(value) == 2}


def check_folder(folder: Path) -> dict[str, str | None]:
    """Check every listed part's files, without reading weights; returns what `check_part` says of each. Raises what it
    does."""
    return {name: check_part(folder, name) for name in listed_parts(folder)}


def check_part(folder: Path, name: str) -> str | None:
    """Check the files of one part; returns the variant of its weights ("fp16"), None for plain files and where it has none.
    Raises ValueError, naming the file, on one that is missing, cut off or pickled."""
    part = folder / name
    if not part.is_dir():
        raise ValueError(f"model: {folder} lists {name} and has no folder of that name; {COPY_AGAIN}")
    if name.startswith(("tokenizer", "processor")):
        _check_tokenizer(part)
    elif name.startswith("scheduler"):
        _require(part / "scheduler_config.json")
    elif not name.startswith(("feature_extractor", "image_processor", "safety_checker")):
        _require(part / "config.json")
        return _check_weights(part)
    return None


def _require(file: Path) -> None:
    if not file.exists():
        raise ValueError(f"model: {file} is missing; {COPY_AGAIN}")


def _check_tokenizer(part: Path) -> None:
    if not any((part / name).exists() for name in VOCABULARIES):
        raise ValueError(f"model: {part} has no vocabulary ({', '.join(VOCABULARIES)}); {COPY_AGAIN}")


def _check_weights(part: Path) -> str | None:
    """The variant of a network's weights where it has no others; plain ones win."""
    found: dict[str | None, list[Path]] = {}
    for file in sorted(part.iterdir()):
        if match := WEIGHTS.fullmatch(file.name) or INDEX.fullmatch(file.name):
            found.setdefault(match["variant"], []).append(file)
    if not found:
        pickled = sorted(file.name for file in part.iterdir() if file.suffix in PICKLED)
        if pickled:
            raise ValueError(
                f"model: {part / pickled[0]} is not safetensors, and reading it could run code; take the model's "
                "safetensors files, or convert it where you trust it: load it with diffusers and call save_pretrained"
            )
        raise ValueError(f"model: {part} has no weights (*.safetensors); {COPY_AGAIN}")
    variant = None if None in found else sorted(found)[0]
    for file in found[variant]:
        if file.suffix == ".json":
            _check_index(file)
        else:
            _check_size(file)
    return variant


def _check_index(file: Path) -> None:
    try:
        shards = set(json.loads(file.read_text())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"model: {file} is no index of weights; {COPY_AGAIN}") from error
    for shard in sorted(shards):
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise ValueError(f"model: {file} names {shard!r}, which is no file beside it; {COPY_AGAIN}")
        _require(file.parent / shard)
        _check_size(file.parent / shard)


def _check_size(file: Path) -> None:
    """A safetensors file is as long as its header says."""
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > min(size, MOST_HEADER):
                raise ValueError("its header is cut off")
            header = json.loads(opened.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        wanted = 8 + length + max(ends, default=0)
    except (struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"model: {file} is damaged; {COPY_AGAIN}") from error
    if size != wanted:
        raise ValueError(f"model: {file} has {size:,} of its {wanted:,} bytes; {COPY_AGAIN}")
