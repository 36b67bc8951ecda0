"""The TDM authors' released students into normal LoRA files.

Their files hold no names: `torch.save` of `{"decay": …, "ema_parameters": [tensor, …]}` (or of the list alone), in the
order in which PEFT lists the adapter's parameters, which is the order of the network's modules, A before B. Most of a
release's tensors have one of two shapes, so count and shapes catch a wrong model, rank or set of modules, but not two
modules of one shape that have changed places. A test holds diffusers' blocks to the order that the releases were made with.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import diffusers
import torch

from common.cards import LORA_NAME
from trainer.backends import backend_class


def read_ema(path: Path) -> list[torch.Tensor]:
    """The file's tensors in order. Raises ValueError, naming file or tensor, when there is anything but tensors in it;
    nothing in the file is executed."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"file: {path} does not exist") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(
            f"file: {path} is damaged or holds more than tensors and was not opened; download it again from its authors"
        ) from error
    if isinstance(content, dict):
        if "ema_parameters" not in content:
            named = ", ".join(map(str, list(content)[:3]))
            raise ValueError(f"file: {path} has no ema_parameters but {named}; give the authors' EMA file, which has")
        content = content["ema_parameters"]
    if not isinstance(content, list | tuple) or not content:
        raise ValueError(f"file: {path} holds {type(content).__name__}, not a list of tensors; give the EMA file")
    for i, tensor in enumerate(content):
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != 2 or not tensor.is_floating_point():
            raise ValueError(f"file: tensor {i} of {path} is not a matrix of a LoRA; give the EMA file")
        if not tensor.isfinite().all():
            raise ValueError(f"file: tensor {i} of {path} has values that are not finite; download it again")
    return [tensor.detach() for tensor in content]


def lora_shapes(network: torch.nn.Module, targets: Sequence[str], rank: int) -> dict[str, tuple[int, int]]:
    """PEFT's names of the adapter's tensors with their shapes, in PEFT's order; `network` may be on the meta device."""
    shapes = {}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Linear) and any(name == t or name.endswith(f".{t}") for t in targets):
            shapes[f"{name}.lora_A.weight"] = (rank, module.in_features)
            shapes[f"{name}.lora_B.weight"] = (module.out_features, rank)
    return shapes


def name_tensors(
    tensors: Sequence[torch.Tensor], network: torch.nn.Module, targets: Sequence[str]
) -> tuple[dict[str, torch.Tensor], int]:
    """(the tensors by name, their rank). Raises ValueError, naming the first tensor that does not fit and the fix."""
    rank = tensors[0].shape[0]
    shapes = lora_shapes(network, targets, rank)
    if len(tensors) != len(shapes):
        raise ValueError(
            f"targets: the file has {len(tensors)} tensors, but LoRA on {', '.join(targets)} of this model has "
            f"{len(shapes)}; give the model it was made for and the modules it was trained on (--targets)"
        )
    for i, ((name, shape), tensor) in enumerate(zip(shapes.items(), tensors, strict=True)):
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"model: tensor {i} of the file has shape {tuple(tensor.shape)}, but {name} has {shape}; "
                "give the model it was made for and the modules it was trained on (--targets)"
            )
    return dict(zip(shapes, tensors, strict=True)), rank


def convert_ema(
    file: Path, model_dir: Path, output: Path, *, alpha: int = 64, targets: Sequence[str] | None = None
) -> Path:
    """Write `file` as a normal LoRA folder for the model; returns the LoRA file.

    `targets` are the modules it was trained on, by default the family's own; `alpha` is not in the file (the authors' runs
    have 64 at rank 32). Of the model only its config is read, so this needs no more memory than the file.
    """
    if alpha < 1:
        raise ValueError(f"alpha: {alpha} is out of range; use at least 1")
    if (output / LORA_NAME).exists():
        raise ValueError(f"output: {output} has a {LORA_NAME} already; give a new folder")
    backend = backend_class(model_dir)
    network = network_outline(Path(model_dir), backend.component)
    targets = tuple(targets or backend.targets(network))
    state, rank = name_tensors(read_ema(file), network, targets)
    return backend.write_lora(output, state, rank=rank, alpha=alpha, targets=targets)


def network_outline(model_dir: Path, component: str) -> torch.nn.Module:
    """A pipeline's network without weights, on the meta device."""
    kind = getattr(diffusers, diffusers.DiffusionPipeline.load_config(model_dir)[component][1])
    config = kind.load_config(model_dir / component)
    with torch.device("meta"):
        return kind.from_config(config)
