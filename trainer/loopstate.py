"""Save and restore a simple training loop: modules and optimizers by name, a step, and JSON values.

Used by the loops whose data and noise are functions of (seed, step) and so need no RNG state. Safetensors and JSON only,
written beside the old copy and renamed, so a stop at any moment leaves a whole checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def save_loop(
    folder: Path,
    *,
    step: int,
    modules: Mapping[str, torch.nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    extra: dict | None = None,
) -> None:
    """Write everything under `folder`, replacing what was there in one rename."""
    tensors: dict[str, torch.Tensor] = {}
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            tensors[f"module/{name}/{key}"] = value
    for name, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimizer/{name}/{index}/{key}"] = torch.as_tensor(value)
    fresh = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, fresh / "state.safetensors")
    (fresh / "state.json").write_text(json.dumps({"step": step, **(extra or {})}))
    for file in fresh.iterdir():
        with file.open("rb") as f:
            os.fsync(f.fileno())
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_loop(
    folder: Path,
    *,
    modules: Mapping[str, torch.nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> dict | None:
    """Restore what `save_loop` wrote, in place; returns its JSON values, or None when there is nothing to resume."""
    old = folder.with_name(folder.name + ".old")
    if not folder.exists() and old.exists():  # stopped between the two renames
        old.rename(folder)
    if not (folder / "state.json").exists():
        return None
    tensors = load_file(folder / "state.safetensors")
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
    return json.loads((folder / "state.json").read_text())
