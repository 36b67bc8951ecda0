"""TDM: distil the multi-step base into the first few-step student. The update is TDM-R1's without its reward term."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from common.files import append_line
from common.settings import DistillSettings, MemorySettings, TDMR1Settings
from common.sizes import Size, largest
from trainer.backends import load_backend
from trainer.checkpoint import load_checkpoint, save_checkpoint
from trainer.methods.base import rate_factor
from trainer.methods.tdm import TDM
from trainer.origins import hash_of, hash_of_model, refuse_another, settings_of

COOL_DOWN = 0.3  # last share of the updates over which the learning rates fall to zero


class DistillStopped(Exception):
    """The caller asked to stop; the checkpoint in `work` can be resumed."""


def distill(
    model_dir: Path,
    prompts: Callable[[random.Random], str],
    settings: DistillSettings,
    work: Path,
    output: Path,
    *,
    device: str = "cpu",
    steps: int = 4,
    start: Path | None = None,
    save_seconds: float = 120,
    memory: MemorySettings | None = None,
    drawn_from: Any = None,
    sizes: Sequence[Size] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> dict:
    """Train (or resume from `work`) and save the student's LoRA to `output`.

    The student is the bare base model at first, or the LoRA folder `start`, such as the student of an earlier base.
    `prompts(rng)` draws one training prompt, of `drawn_from` (JSON). Each rollout has one of `sizes` (none: the model's
    own) and serves `updates_per_rollout` updates, in each of which every image trains a random step. Returns the last log
    line. Raises ValueError, naming what differs, when `work` is of another model, other prompts, sizes or settings (the
    number of updates may change), and `DistillStopped` once `should_stop()`, with a checkpoint.
    """
    # A round with as many images that trains two roles more: what `auto` memory makes fit.
    like = TDMR1Settings(
        rank=settings.rank,
        alpha=settings.alpha,
        guidance=1,
        rl_cfg=1,
        student_batch=settings.batch,
        prompts_per_update=-(-settings.batch // 8),
    )
    backend = load_backend(model_dir, device=device, memory=memory, trained=like, size=largest(sizes))
    trainer = TDM(backend, settings, steps=steps, parent=start)
    work.mkdir(parents=True, exist_ok=True)
    origin = {
        "model": hash_of_model(Path(model_dir)),
        "prompts": hash_of(drawn_from),
        "steps": steps,
        "start": None if start is None else hash_of_model(start),
        **settings_of(settings.to_json(), ("updates",)),
    }
    if sizes:
        origin["sizes"] = hash_of(list(sizes))
    state = load_checkpoint(
        work / "checkpoint",
        modules=trainer.parts(),
        optimizers=trainer.optimizers,
        check=lambda values: refuse_another(
            values.get("origin", {}), origin, work / "checkpoint", plain=("steps",), what="call"
        ),
    ) or {"step": 0}
    rollouts = -(-settings.updates // settings.updates_per_rollout)
    seconds = state.get("seconds", 0.0)
    saved = tick = time.monotonic()
    line: dict = {}
    bar = tqdm(range(state["step"], rollouts), initial=state["step"], total=rollouts, desc="distill")
    for step in bar:
        rng = random.Random(f"distill-{settings.seed}-{step}")
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        conditioning = trainer.backend.encode([prompts(rng) for _ in range(settings.batch)])
        with trainer.backend.sized(rng.choice(sizes) if sizes else None):
            noise = torch.randn((settings.batch, *trainer.backend.latent_shape), generator=generator)
            trajectory = trainer.sample(conditioning, noise)
            trainer.set_rate_factor(rate_factor(step, rollouts, COOL_DOWN))
            for _ in range(settings.updates_per_rollout):
                j = torch.randint(steps, (settings.batch,), generator=generator)
                metrics = trainer.student_update(trajectory, conditioning, j, generator)
        trainer.check_weights()
        now = time.monotonic()
        seconds, tick = seconds + now - tick, now
        if step % 10 == 0 or step + 1 == rollouts:
            updates = (step + 1) * settings.updates_per_rollout
            line = {"updates": updates, "seconds": round(seconds), **{k: round(v, 5) for k, v in metrics.items()}}
            bar.set_postfix(student=f"{metrics['student']:.4f}", fake=f"{metrics['fake']:.4f}")
            append_line(work / "log.jsonl", line)
        stop = step + 1 < rollouts and should_stop()
        if stop or now - saved > save_seconds or step + 1 == rollouts:
            save_checkpoint(
                work / "checkpoint",
                step=step + 1,
                modules=trainer.parts(),
                optimizers=trainer.optimizers,
                extra={"seconds": seconds, "settings": settings.to_json(), "origin": origin},
            )
            trainer.save_student(output)
            trainer.save_fake(output)
            saved = time.monotonic()
        if stop:
            done = (step + 1) * settings.updates_per_rollout
            raise DistillStopped(f"stopped after {done} of {settings.updates} updates")
    return line
