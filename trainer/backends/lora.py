"""The one reader of LoRA files. Everything that takes a LoRA takes it from here, so that all apply the same change, which
is the one that stock diffusers applies.

Files of other programs name modules and strength in their own ways: PEFT (`base_model.model.…lora_A`), kohya's scripts
(`lora_unet_…lora_down`, a tensor `alpha`), ai-toolkit (`diffusion_model.…`). Names that are a module's own, whatever stands
before them, are read here; original checkpoints' names (fused q, k and v, SDXL's input blocks) are left to diffusers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import DiffusionPipeline
from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from safetensors import SafetensorError, safe_open

from common.adapters import module_scale
from common.cards import LORA_NAME
from trainer.finite import first_not_finite

ADAPTER = "lora_adapter_metadata"  # diffusers' name for the adapter's settings in the header
_PREFIXES = ("base_model.model.", "diffusion_model.", "lora_unet_", "lora_transformer_")
_ENDINGS = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_A.default.weight": "A",
    ".lora_B.default.weight": "B",
    ".lora_down.weight": "A",
    ".lora_up.weight": "B",
    ".lora.down.weight": "A",
    ".lora.up.weight": "B",
    ".alpha": "alpha",
}
# Parts of tensors' names that tell another method.
_OTHER = {
    "DoRA": ("dora_scale", "lora_magnitude_vector"),
    "LoKr (LyCORIS)": ("lokr_",),
    "LoHa (LyCORIS)": ("hada_",),
    "LyCORIS": ("lycoris_", ".oft_", ".boft_", ".on_input", ".diff.", ".diff_b.", ".b1.weight.", "lora_mid"),
    "LoRA with a bias": ("lora_B.bias", "lora_B.default.bias", "lora_up.bias"),
}


class Lora(NamedTuple):
    """An adapter for `Roles`: PEFT's names, one rank and one alpha (the change of a module is alpha / rank · B·A), and the
    modules that it sits on, or their endings."""

    state: dict[str, torch.Tensor]
    rank: int
    alpha: float
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """One module's change, `scale`·B·A: `a` (r, in, …), `b` (out, r, …), float32."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float
    alpha: float  # as the file has it; scale · rank, but for rounding


def lora_file(folder: Path) -> Path:
    """The file of a LoRA folder. Raises ValueError when it is not there."""
    if not (folder / LORA_NAME).is_file():
        raise ValueError(f"version: {folder} has no {LORA_NAME}")
    return folder / LORA_NAME


def read_pairs(
    file: Path, network: torch.nn.Module, pipeline: type[DiffusionPipeline], component: str
) -> dict[str, Pair]:
    """Module → its change, of every module in the file. `network` may be on the meta device, and may have adapters.

    Raises ValueError, naming file and tensor, on a damaged file, values that are not finite, methods other than LoRA, and
    anything that is not for this network.
    """
    tensors, settings = _read(file, component)
    modules = _modules(network)
    found = _by_module(tensors, modules, component)
    if found is None:
        found = _converted(file, tensors, modules, network, pipeline, component)
    pairs = {}
    for name, parts in found.items():
        if "A" not in parts or "B" not in parts:
            raise ValueError(f"version: {file} has only one of the two LoRA tensors of {name}")
        pairs[name] = _pair(file, name, parts, modules[name], settings)
    if not pairs:
        raise ValueError(f"version: {file} has no LoRA of a {component}; was it for another model?")
    return pairs


def as_adapter(pairs: Mapping[str, Pair], network: torch.nn.Module, targets: tuple[str, ...]) -> Lora:
    """The same changes as one adapter on the family's `targets` and on whatever else the file has. Lower ranks and missing
    modules are filled up so that they change nothing but can be trained: B's new columns are 0, A's new rows random."""
    rank = max(p.a.shape[0] for p in pairs.values())
    scale = max(p.scale for p in pairs.values())
    said = {(p.alpha, p.a.shape[0]) for p in pairs.values()}
    alpha = next(iter(said))[0] if len(said) == 1 else scale * rank
    targets = covering(targets, pairs)
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in _modules(network).items():
        if not _is_target(name, targets):
            continue
        pair = pairs.get(name)
        a, b = _empty(shape, rank)
        bound = 1 / math.sqrt(a[0].numel())  # PEFT's own start of A
        a.uniform_(-bound, bound, generator=generator)
        if pair is not None:
            a[: pair.a.shape[0]] = pair.a
            b[:, : pair.b.shape[1]] = pair.b if pair.scale == scale else pair.b * (pair.scale / scale)
        state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"] = a, b
    return Lora(state, rank, int(alpha) if float(alpha).is_integer() else alpha, targets)


def covering(targets: tuple[str, ...], modules: Iterable[str]) -> tuple[str, ...]:
    """`targets` and those of the modules that they do not name."""
    return (*targets, *sorted(name for name in modules if not _is_target(name, targets)))


def modules_of(state: Iterable[str]) -> list[str]:
    """The modules of an adapter in PEFT's names."""
    return [key.removesuffix(".lora_A.weight") for key in state if key.endswith(".lora_A.weight")]


def _is_target(name: str, targets: Iterable[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _modules(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Name → shape of the weight of every layer that may have LoRA, by the names that it has without adapters."""
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d) and ".lora_" not in name:
            linear = isinstance(module, torch.nn.Linear)  # one of codes would decode its weight to tell its shape
            shape = (module.out_features, module.in_features) if linear else tuple(module.weight.shape)
            found[name.removesuffix(".base_layer")] = shape
    return found


def _empty(shape: tuple[int, ...], rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B for a layer's weight, of zeros: (r, in) and (out, r), or a convolution's (r, in, h, w) and (out, r, 1, 1)."""
    return torch.zeros(rank, *shape[1:]), torch.zeros(shape[0], rank, *[1] * (len(shape) - 2))


def _read(file: Path, component: str) -> tuple[dict[str, torch.Tensor], dict]:
    """(tensors, the adapter's settings), after everything that can be refused without the network."""
    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no mapping
            settings = json.loads((opened.metadata() or {}).get(ADAPTER) or "{}")
        if not isinstance(settings, dict):
            raise ValueError(f"{ADAPTER} is not a JSON object")
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"version: {file} cannot be read as a LoRA ({error}); copy it again") from error
    for name in tensors:
        for method, parts in _OTHER.items():
            if any(part in f"{name}." for part in parts):
                raise ValueError(f"version: {file} is {method} ({name}), which is not supported; give a plain LoRA")
        if name.startswith(("text_encoder", "lora_te")):
            raise ValueError(
                f"version: {file} also changes a text encoder ({name}), which rounds do not train; "
                f"give a LoRA of the {component} alone"
            )
    if name := first_not_finite(tensors.items()):
        raise ValueError(f"version: {name} in {file} has values that are not finite; give another version")
    own = {k.removeprefix(f"{component}."): v for k, v in settings.items() if k.startswith(f"{component}.")}
    if own.get("use_dora"):
        raise ValueError(f"version: {file} is DoRA (use_dora), which is not supported; give a plain LoRA")
    if own.get("lora_bias"):
        raise ValueError(f"version: {file} is LoRA with a bias (lora_bias), which is not supported; give a plain LoRA")
    return tensors, own


def _by_module(
    tensors: Mapping[str, torch.Tensor], modules: Mapping[str, tuple[int, ...]], component: str
) -> dict[str, dict[str, torch.Tensor]] | None:
    """Module → its tensors by kind; None unless every tensor's name ends in a module's own name."""
    flat = {name.replace(".", "_"): name for name in modules}
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        ending = next((e for e in _ENDINGS if key.endswith(e)), None)
        if ending is None or (module := _module(key.removesuffix(ending), modules, flat, component)) is None:
            return None
        found.setdefault(module, {})[_ENDINGS[ending]] = tensor
    return found


def _module(name: str, modules: Mapping, flat: Mapping[str, str], component: str) -> str | None:
    for prefix in (f"{component}.", f"base_model.model.{component}.", *_PREFIXES, ""):  # Lightning's have none
        if not name.startswith(prefix):
            continue
        rest = name.removeprefix(prefix)
        if rest in modules:
            return rest
        if prefix.endswith("_") and rest in flat:
            return flat[rest]
    return None


def _converted(
    file: Path,
    tensors: Mapping[str, torch.Tensor],
    modules: Mapping[str, tuple[int, ...]],
    network: torch.nn.Module,
    pipeline: type[DiffusionPipeline],
    component: str,
) -> dict[str, dict[str, torch.Tensor]]:
    """The same by diffusers' own renaming; strength is put into B first, since each family's treats it its own way."""
    options = {"unet_config": network.config} if component == "unet" else {}
    found, why = None, ""
    try:
        renamed = pipeline.lora_state_dict(_without_alphas(file, tensors), **options)
        state = renamed[0] if isinstance(renamed, tuple) else renamed
        if not any("lora_A" in key for key in state):
            state = convert_unet_state_dict_to_peft(state)
        found = _by_module(state, modules, component)
    except (ValueError, KeyError, IndexError, RuntimeError, TypeError, AttributeError) as error:
        why = f" ({' '.join(str(error).split())[:200]})"
    if found:
        return found
    unknown = [key for key in tensors if _by_module({key: tensors[key]}, modules, component) is None]
    if len(unknown) == len(tensors):
        some = f"; {unknown[0]} is none" if unknown else ""
        raise ValueError(f"version: {file} has no LoRA of a {component}{some}; was it for another model?{why}")
    raise ValueError(f"version: {unknown[0]} in {file} is no LoRA tensor of this model's {component}{why}")


def _without_alphas(file: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {k: v.float() for k, v in tensors.items() if not k.endswith(".alpha")}
    for key, alpha in tensors.items():
        if not key.endswith(".alpha"):
            continue
        name = key.removesuffix(".alpha")
        downs = [k for k in found if _ENDINGS.get(k.removeprefix(name)) == "A"]
        ups = [k for k in found if _ENDINGS.get(k.removeprefix(name)) == "B"]
        if len(downs) != 1 or len(ups) != 1:
            raise ValueError(f"version: {key} in {file} belongs to no LoRA tensors")
        found[ups[0]] = found[ups[0]] * (_alpha(file, key, alpha) / found[downs[0]].shape[0])
    return found


def _alpha(file: Path, key: str, tensor: torch.Tensor) -> float:
    if tensor.numel() != 1 or (alpha := float(tensor)) <= 0:
        raise ValueError(f"version: {key} in {file} is not a number above 0")
    return alpha


def _pair(file: Path, name: str, parts: Mapping[str, torch.Tensor], shape: tuple[int, ...], settings: Mapping) -> Pair:
    a, b = parts["A"].float(), parts["B"].float()
    rank = a.shape[0] if a.ndim else 0
    if not rank or a.ndim != b.ndim:
        raise ValueError(f"version: the tensors of {name} in {file} are no LoRA")
    if len(shape) == 2 and a.ndim == 4:  # a convolution of one pixel is a linear layer
        a, b = a.flatten(1), b.flatten(1)
    wanted_a, wanted_b = (tuple(t.shape) for t in _empty(shape, rank))
    for tensor, wanted, kind in ((a, wanted_a, "lora_A"), (b, wanted_b, "lora_B")):
        if tuple(tensor.shape) != wanted:
            raise ValueError(
                f"version: {name}.{kind} in {file} has shape {tuple(tensor.shape)}, expected {wanted}; "
                "was it made for another model?"
            )
    if "alpha" in parts:
        if settings:
            raise ValueError(f"version: {file} tells alpha twice, in its header and as a tensor of {name}; keep one")
        alpha = _alpha(file, f"{name}.alpha", parts["alpha"])
        return Pair(a, b, alpha / rank, alpha)
    try:
        scale = module_scale(settings, name, rank)
    except ValueError as error:
        raise ValueError(f"version: {file}: {error}") from error
    plain = settings.get("lora_alpha", rank)
    return Pair(a, b, scale, plain if plain / rank == scale else scale * rank)
