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

from common.files import sha256_of, sync_folder
from common.round_folder import STATE_FILE, WEIGHTS_FILE


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
        return int(_values(folder)["step"])
    except (OSError, ValueError, KeyError):
        return None


def _values(folder: Path) -> dict:
    values = json.loads((folder / STATE_FILE).read_text())
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
        raise ValueError(f"checkpoint: {folder} is damaged ({error}); delete it to start over") from error
    check(values)
    tensors = load_file(folder / WEIGHTS_FILE)
    for name, module in modules.items():
        prefix = f"module/{name}/"
        module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
    for name, optimizer in optimizers.items():
        prefix = f"optimizer/{name}/"
        state: dict[int, dict[str, torch.Tensor]] = {}
        for full, value in tensors.items():
            if full.startswith(prefix):
                index, key = full[len(prefix) :].split("/")
                state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return values
