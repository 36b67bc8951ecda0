"""What a round takes on this machine: the trainer's plan, and how fast the machine multiplies."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from django.conf import settings

from common.settings import TDMR1Settings
from trainer.plan import UTILISATION, plan_round

SIZE = {"cuda": 4096, "cpu": 512}  # of the matrices
REPEATED = 8


def plan(model_dir: str, values: dict, device: str) -> dict:
    """`{bytes, has, flops, seconds}` of a round with these settings on `device`. Raises ValueError on a folder that is no
    model."""
    found = plan_round(Path(model_dir), TDMR1Settings.from_json(values), settings.LIKESTEP_MEMORY, device=device)
    on_gpu = device == "cuda"
    return {
        "bytes": found.total if on_gpu else found.tensors,
        "has": torch.cuda.get_device_properties(0).total_memory if on_gpu else _memory(),
        "flops": found.flops,
        "seconds": found.flops / (_flops_a_second(device) * UTILISATION),
    }


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _flops_a_second(device: str) -> float:
    """Of products of matrices, in the type that training computes in there."""
    size, dtype = SIZE[device], torch.bfloat16 if device == "cuda" else torch.float32
    a = torch.ones(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(REPEATED):
        start = time.perf_counter()
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
