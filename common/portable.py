"""A version's LoRA for other programs, without torch, so that the web app may write it too.

Diffusers reads an adapter's alpha from the file's header. ComfyUI does not: it looks for a tensor `<module>.alpha`, which
diffusers in turn refuses for some models, and takes alpha = rank where there is none. So the scale alpha / rank is
put into the B matrices here and the header says alpha = rank: every reader, also one of tensors alone, gets the same.
"""

from __future__ import annotations

import datetime
import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.adapters import module_scale
from common.cards import LORA_NAME, Base

ADAPTER = "lora_adapter_metadata"  # diffusers' name for the adapter's settings in the header
A, B = ".lora_A.weight", ".lora_B.weight"
NETWORKS = ("transformer.", "unet.")
# ModelSpec's name of each family.
ARCHITECTURES = {
    "StableDiffusion3Pipeline": "stable-diffusion-3",
    "StableDiffusionXLPipeline": "stable-diffusion-xl-v1-base",
    "ZImagePipeline": "z-image",
    "Flux2KleinPipeline": "flux-2-klein",
    "Flux2Pipeline": "flux-2-dev",
    "FluxPipeline": "flux-1-dev",
    "QwenImagePipeline": "qwen-image",
}
TYPES = {"fp32": np.float32, "fp16": np.float16}
_STORED = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a safetensors file, not read yet."""

    path: Path
    kind: str  # the format's name of its type
    shape: tuple[int, ...]
    place: int  # of its first byte in the file

    def read(self) -> np.ndarray:
        """As float32; bfloat16, which numpy has not, included."""
        stored = np.dtype(_STORED[self.kind])
        values = np.fromfile(self.path, stored, count=math.prod(self.shape), offset=self.place)
        if self.kind == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32, copy=False).reshape(self.shape)


def read_tensors(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """(tensors, header metadata) of a safetensors file, of which only the header is read.

    Raises ValueError that names the file when its header or its length is not right.
    """
    try:
        size, tensors = path.stat().st_size, {}
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size:
                raise ValueError("its header is cut off")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        for name, about in header.items():
            first, last = (8 + length + offset for offset in about["data_offsets"])
            found = StoredTensor(path, about["dtype"], tuple(about["shape"]), first)
            wanted = math.prod(found.shape) * np.dtype(_STORED[found.kind]).itemsize
            if last - first != wanted or not 0 <= first <= last <= size:
                raise ValueError(f"tensor {name} is cut off")
            tensors[name] = found
    except (OSError, struct.error, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"version: {path.name} cannot be read as a LoRA ({error}); restore it from a back-up"
        ) from error
    return tensors, metadata


def portable_lora(version_dir: Path, *, title: str, base: Base | None = None, dtype: str = "fp32") -> Iterator[bytes]:
    """The version's LoRA as a safetensors file that diffusers and ComfyUI read alike, in pieces of at most a tensor, so
    that a web server never holds the whole. fp32 gives the images that the app shows; fp16 is half as large and may move
    single pixels. Raises ValueError that names the field, before the first piece."""
    if dtype not in TYPES:
        raise ValueError(f"dtype: {dtype!r} is not one of {', '.join(TYPES)}")
    file = version_dir / LORA_NAME
    tensors, metadata = read_tensors(file)
    adapter = json.loads(metadata.get(ADAPTER, "{}"))
    ranks = {name: tensor.shape[0] for name, tensor in tensors.items() if name.endswith(A)}
    if not ranks:
        raise ValueError(f"version: {LORA_NAME} has no lora_A weights; it is not a LoRA that diffusers wrote")
    if foreign := foreign_tensor(tensors):
        raise ValueError(
            f"version: {foreign} in {LORA_NAME} is not named as diffusers names a LoRA's tensors; "
            "export the version by the command line, which reads other programs' files"
        )
    scales = {}
    for name in ranks:
        part, _, module = name.removesuffix(A).partition(".")
        own = {k.removeprefix(f"{part}."): v for k, v in adapter.items() if k.startswith(f"{part}.")}
        try:
            scales[name.removesuffix(A) + B] = module_scale(own, module, ranks[name])
        except ValueError as error:
            raise ValueError(f"version: {LORA_NAME}: {error}") from error
    day = datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.UTC).date()
    return _pieces(tensors, scales, dtype, _header(_unscaled(adapter), title, base, max(ranks.values()), day))


def foreign_tensor(names: Iterable[str]) -> str:
    """The first name that is not diffusers' own of a LoRA on one network, such as `transformer.<module>.lora_A.weight`; ""
    when all are."""
    return next((n for n in names if not (n.endswith((A, B)) and n.startswith(NETWORKS))), "")


def _unscaled(adapter: Mapping) -> dict:
    """The adapter's settings with every module's alpha its rank: its strength is in the B matrices."""
    kept = {k: v for k, v in adapter.items() if not k.endswith((".use_rslora", ".alpha_pattern"))}
    kept = {k: kept.get(k.replace("lora_alpha", "r"), v) for k, v in kept.items()}
    patterns = {k: v for k, v in adapter.items() if k.endswith(".rank_pattern") and v}
    return kept | {k.replace("rank_pattern", "alpha_pattern"): v for k, v in patterns.items()}


def _pieces(
    tensors: Mapping[str, StoredTensor], scales: Mapping[str, float], dtype: str, metadata: dict[str, str]
) -> Iterator[bytes]:
    """Safetensors' format. The library orders the metadata anew each time; here the same version gives the same bytes."""
    kind, stored = np.dtype(TYPES[dtype]), "F32" if dtype == "fp32" else "F16"
    header, place = {"__metadata__": metadata}, 0
    for name, tensor in sorted(tensors.items()):
        end = place + math.prod(tensor.shape) * kind.itemsize
        header[name] = {"dtype": stored, "shape": tensor.shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name, tensor in sorted(tensors.items()):
        yield (tensor.read() * np.float32(scales.get(name, 1.0))).astype(kind).tobytes()


def _header(adapter: Mapping, title: str, base: Base | None, rank: int, day: datetime.date) -> dict[str, str]:
    """Diffusers' adapter settings, ModelSpec's fields for user interfaces where the base is known, and the rank as kohya's
    scripts name it."""
    known = base is not None and base.pipeline in ARCHITECTURES
    return {
        "format": "pt",
        **({ADAPTER: json.dumps(adapter, indent=2, sort_keys=True)} if adapter else {}),
        **(_model_spec(title, base, day) if known else {}),
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(rank),
    }


def _model_spec(title: str, base: Base, day: datetime.date) -> dict[str, str]:
    """Stability-AI/ModelSpec 1.0.0: all that it requires of an image model, and what it recommends where it is known."""
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{ARCHITECTURES[base.pipeline]}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": title,
        "modelspec.resolution": f"{base.pixels}x{base.pixels}",
        "modelspec.description": f"LoRA for {base.name}",
        "modelspec.date": day.isoformat(),
        **({"modelspec.license": base.license} if base.license else {}),
    }
