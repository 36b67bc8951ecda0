"""Checkpoints of a training loop: adapters or modules and optimizers by name, the step, and JSON values.

The loops draw data and noise from generators seeded with (seed, step), so the step is all the RNG state there is.
Safetensors and JSON only, with a checksum; written beside the old copy and renamed, so a stop at any moment leaves a whole
checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file

from common.files import sha256_of, share_as_usual, sync_folder
from common.round_folder import STATE_FILE, WEIGHTS_FILE
from trainer.finite import first_not_finite


class Stateful(Protocol):
    """A module or one role's adapter."""

    def state_dict(self) -> dict[str, torch.Tensor]: ...

    def load_state_dict(self, state: dict[str, torch.Tensor]): ...


def save_checkpoint(
    folder: Path,
    *,
    step: int,
    modules: Mapping[str, Stateful],
    optimizers: Mapping[str, torch.optim.Optimizer],
    extra: dict | None = None,
    before_replacing: Callable[[], None] = lambda: None,
) -> None:
    """Write everything under `folder`, replacing what was there. `step` is the number of steps done. If `before_replacing`
    raises, the old checkpoint stays as it is."""
    tensors: dict[str, torch.Tensor] = {}
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            tensors[f"module/{name}/{key}"] = value
    for name, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimizer/{name}/{index}/{key}"] = torch.as_tensor(value)
    old = folder.with_name(f"{folder.name}.old")
    # A name of its own: a writer that was thought lost must not write into the folder of the one that took over.
    fresh = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        fresh.mkdir(parents=True)
        save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, fresh / WEIGHTS_FILE)
        share_as_usual(fresh)
        values = {"step": step, "sha256": sha256_of(fresh / WEIGHTS_FILE), **(extra or {})}
        (fresh / STATE_FILE).write_text(json.dumps(values))
        for file in fresh.iterdir():
            with file.open("rb") as f:
                os.fsync(f.fileno())
        before_replacing()
    except BaseException:  # a full disk is not made fuller by half a checkpoint
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def whole_step(folder: Path) -> int | None:
    """How many steps the checkpoint in `folder` is of; None when there is none, or none that is whole."""
    try:
        return _values(folder)["step"]
    except (OSError, ValueError):
        return None


def _values(folder: Path) -> dict:
    try:
        values = json.loads((folder / STATE_FILE).read_text())
    except RecursionError as error:
        raise ValueError("state.json is nested too deep") from error
    step = values.get("step") if isinstance(values, dict) else None
    if type(step) is not int or not 0 <= step < 2**31:
        raise ValueError("state.json does not tell its step")
    if "sha256" in values and sha256_of(folder / WEIGHTS_FILE) != values["sha256"]:
        raise ValueError("its checksum is wrong")
    return values


def load_checkpoint(
    folder: Path,
    *,
    modules: Mapping[str, Stateful],
    optimizers: Mapping[str, torch.optim.Optimizer],
    check: Callable[[dict], None] = lambda values: None,
) -> dict | None:
    """Restore what `save_checkpoint` wrote, in place; returns its JSON values, or None when there is nothing to resume.
    `check` is given the values before anything is restored, and may raise.

    Raises ValueError, naming the folder, when the checkpoint is damaged.
    """
    for left in folder.parent.glob(f"{folder.name}.*.tmp"):  # of a writer that was killed
        shutil.rmtree(left, ignore_errors=True)
    old = folder.with_name(f"{folder.name}.old")
    if not folder.exists() and old.exists():  # stopped between the two renames
        old.rename(folder)
    if not folder.exists():
        return None
    try:
        values = _values(folder)
    except (OSError, ValueError) as error:
        raise _damaged(folder, error) from error
    check(values)
    try:
        tensors = _tensors(folder)
        states = {name: _of(tensors, f"module/{name}/") for name in modules}
        for name, module in modules.items():
            _check_module(name, states[name], module.state_dict())
        slots = {name: _slots(_of(tensors, f"optimizer/{name}/"), optimizer) for name, optimizer in optimizers.items()}
    except (OSError, ValueError) as error:
        raise _damaged(folder, error) from error
    for name, module in modules.items():
        module.load_state_dict(states[name])
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict({"state": slots[name], "param_groups": optimizer.state_dict()["param_groups"]})
    return values


def _damaged(folder: Path, error: Exception) -> ValueError:
    return ValueError(f"checkpoint: {folder} is damaged ({error}); delete it to start over")


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Everything in the checkpoint, finite."""
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except Exception as error:  # safetensors raises its own type, which it does not export as a ValueError
        raise ValueError(f"state.safetensors cannot be read: {error}") from error
    if name := first_not_finite(tensors.items()):
        raise ValueError(f"{name}: a number is not finite")
    return tensors


def _of(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def _check_module(name: str, found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """Raise ValueError unless there is one tensor of the right shape and kind of number for each of the module's."""
    if other := sorted(set(found) ^ set(wanted)):
        raise ValueError(f"{name}: {other[0]} is {'not known' if other[0] in found else 'missing'}")
    for key, value in wanted.items():
        kinds = found[key].is_floating_point(), value.is_floating_point()
        if found[key].shape != value.shape or kinds[0] != kinds[1]:
            raise ValueError(f"{name}: {key} is {tuple(found[key].shape)}, not {tuple(value.shape)}")


def _slots(tensors: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> dict[int, dict[str, torch.Tensor]]:
    """An optimizer's state by the number of its parameter, each a scalar or of the parameter's shape; else ValueError."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for full, value in tensors.items():
        index, _slash, key = full.partition("/")
        number = int(index) if index.isascii() and index.isdigit() and len(index) < 10 else len(parameters)
        if number >= len(parameters) or value.shape not in (torch.Size([]), parameters[number].shape):
            raise ValueError(f"optimizer: {full} of shape {tuple(value.shape)} fits no parameter")
        state.setdefault(number, {})[key] = value
    return state
