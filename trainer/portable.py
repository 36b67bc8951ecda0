"""A version's LoRA for other programs, without torch, so that the web app may write it too.

Diffusers reads an adapter's alpha from the file's header. ComfyUI does not: it looks for a tensor `<module>.alpha`, which
diffusers in turn refuses for some models, and takes alpha = rank where there is none. So the scale alpha / rank is
put into the B matrices here and the header says alpha = rank: every reader, also one of tensors alone, gets the same.
"""

from __future__ import annotations

import datetime
import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from trainer.cards import LORA_NAME

ADAPTER = "lora_adapter_metadata"  # diffusers' name for the adapter's settings in the header
TYPES = {"fp32": np.float32, "fp16": np.float16}
_STORED = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(tensors as float32, header metadata) of a safetensors file; bfloat16, which numpy has not, included.

    Raises ValueError that names the file when it cannot be read.
    """
    try:
        data = path.read_bytes()
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        tensors = {}
        for name, about in header.items():
            first, last = (8 + length + offset for offset in about["data_offsets"])
            values = np.frombuffer(data[first:last], _STORED[about["dtype"]])
            if about["dtype"] == "BF16":
                values = (values.astype(np.uint32) << 16).view(np.float32)
            tensors[name] = values.astype(np.float32).reshape(about["shape"])
    except (OSError, struct.error, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"version: {path.name} cannot be read as a LoRA ({error}); restore it from a back-up"
        ) from error
    return tensors, metadata


def portable_lora(version_dir: Path, *, title: str, description: str = "", dtype: str = "fp32") -> bytes:
    """The version's LoRA as a safetensors file that diffusers and ComfyUI read alike. fp32 gives the images that the app
    shows; fp16 is half as large and may move single pixels. Raises ValueError that names the field."""
    if dtype not in TYPES:
        raise ValueError(f"dtype: {dtype!r} is not one of {', '.join(TYPES)}")
    tensors, metadata = read_tensors(version_dir / LORA_NAME)
    adapter = json.loads(metadata.get(ADAPTER, "{}"))
    ranks = {name: len(tensor) for name, tensor in tensors.items() if name.endswith("lora_A.weight")}
    if not ranks:
        raise ValueError(f"version: {LORA_NAME} has no lora_A weights; it is not a LoRA that diffusers wrote")
    out: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        if name.endswith("lora_B.weight"):
            rank = ranks[name.replace("lora_B", "lora_A")]
            alpha = adapter.get(f"{name.partition('.')[0]}.lora_alpha", rank)
            tensor = tensor * np.float32(alpha / rank)
        out[name] = tensor.astype(TYPES[dtype])
    adapter = {k: adapter.get(k.replace("lora_alpha", "r"), v) for k, v in adapter.items()}
    return _written(out, "F32" if dtype == "fp32" else "F16", _header(adapter, title, description, max(ranks.values())))


def _written(tensors: Mapping[str, np.ndarray], stored: str, metadata: dict[str, str]) -> bytes:
    """Safetensors' format. The library orders the metadata anew each time; here the same version gives the same bytes."""
    header, parts, place = {"__metadata__": metadata}, [], 0
    for name, tensor in sorted(tensors.items()):
        parts.append(tensor.tobytes())
        header[name] = {"dtype": stored, "shape": tensor.shape, "data_offsets": [place, place + tensor.nbytes]}
        place += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def _header(adapter: Mapping, title: str, description: str, rank: int) -> dict[str, str]:
    """Diffusers' adapter settings, ModelSpec's fields for user interfaces, and the rank as kohya's scripts name it."""
    return {
        "format": "pt",
        **({ADAPTER: json.dumps(adapter, indent=2, sort_keys=True)} if adapter else {}),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": title,
        "modelspec.description": description,
        "modelspec.date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "modelspec.implementation": "diffusers",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(rank),
    }
