"""What a round takes on this machine, or what makes it fit onto a card: the trainer's plan, and how fast the machine
multiplies."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from django.conf import settings

from common.settings import MemorySettings, TDMR1Settings
from common.sizes import Size
from trainer.plan import GB, UTILISATION, Plan, advise, parse_gpu, plan_round
from webapp.rounds.plans import WORKER

SIZE = {"cuda": 4096, "cpu": 512}  # of the matrices
REPEATED = 8


def plan(model_dir: str, values: dict, device: str, chosen: dict, card: str = "", size: Size | None = None) -> dict:
    """`{bytes, has, flops, seconds}` of a round with these settings, of images of `size` at most, on `device`, where the
    project has `chosen` what saves memory; with a `card` the same on it and `options`, what the first rung of the ladder
    that fits has beside the machine's own (None: none does). Raises ValueError on a folder that is no model."""
    model, round_settings, own = Path(model_dir), TDMR1Settings.from_json(values), settings.LIKESTEP_MEMORY.to_json()
    if card:
        return _on_card(model, round_settings, MemorySettings.from_json(own | {"auto": False}), device, card, size)
    memory = MemorySettings.from_json(own | chosen)
    has = _has(device)
    if memory.auto and device == "cuda":
        asked, fits = advise(model, round_settings, memory, has, size=size)
        found = fits or asked
    else:
        found = plan_round(model, round_settings, memory, device=device, size=size)
    return _values(found, device, has, found.flops / (_flops_a_second(device) * UTILISATION))


def _on_card(
    model: Path, round_settings: TDMR1Settings, own: MemorySettings, device: str, card: str, size: Size | None
) -> dict:
    """See `plan`. On a CPU the machine's memory is one, so nothing but fewer images at once would help, and nothing is
    changed."""
    if card == WORKER:
        has, tflops = _has(device), _flops_a_second(device) / 1e12
    else:
        gigabytes, tflops, _ = parse_gpu(card)
        has, device = gigabytes * GB, "cuda"
    if device == "cpu":
        asked = plan_round(model, round_settings, own, device=device, size=size)
        fits = asked if asked.tensors <= has else None
    else:
        asked, fits = advise(model, round_settings, own, has, size=size)
    found, before = fits or asked, own.to_json()
    options = {name: value for name, value in found.memory.to_json().items() if value != before[name]}
    return _values(found, device, has, found.seconds(tflops)[1]) | {"options": options if fits else None}


def _values(found: Plan, device: str, has: float, seconds: float) -> dict:
    needed = found.total if device == "cuda" else found.tensors
    return {"bytes": needed, "has": has, "flops": found.flops, "seconds": seconds}


def _has(device: str) -> int:
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
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
