"""Train the demo base model by flow matching: the SD3 transformer and its text encoders, from random weights.

The learning rate is constant and then falls linearly to zero over the last `decay_share` of the run (warm-up, stable,
decay). The state at the start of the decay is kept as `trunk`, so that a longer run later goes on from there instead of
from weights that already cooled down. Each batch is a function of (seed, step).
"""

from __future__ import annotations

import copy
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusion3Pipeline
from tqdm import tqdm

from common.files import append_line, share_as_usual
from common.settings import PretrainSettings
from trainer.backends import autocast, bf16_pays
from trainer.backends.cpu import plain_attention_everywhere, rewrite
from trainer.checkpoint import load_checkpoint, save_checkpoint
from trainer.demo.latents import SHARD_SIZE, ensure_shard, fingerprint
from trainer.demo.model import DemoModelSettings, build_pipeline, encode_text, tokenize

TRAINED = ("transformer", "text_encoder", "text_encoder_2")


def flow_matching_loss(velocity: torch.Tensor, x0: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Mean squared error to the rectified flow's velocity `noise - x0`; all (B, C, h, w)."""
    return F.mse_loss(velocity.float(), noise - x0)


def learning_rate_factor(step: int, settings: PretrainSettings) -> float:
    """Warm-up, constant, then linear to zero; multiplies every group's base rate."""
    start = decay_start(settings)
    falling = (settings.steps - step) / (settings.steps - start) if step >= start else 1.0
    return min(1.0, (step + 1) / settings.warmup, falling)


def decay_start(settings: PretrainSettings) -> int:
    """The step at which the learning rate begins to fall."""
    return round(settings.steps * (1 - settings.decay_share))


class LatentPool:
    """The shards available at a step, in memory; a new one joins every `steps_per_shard` steps."""

    def __init__(self, folder: Path, vae: AutoencoderKL, vae_hash: str, pipeline, settings: PretrainSettings):
        self.folder, self.vae, self.vae_hash, self.pipeline, self.settings = folder, vae, vae_hash, pipeline, settings
        self.latents: list[torch.Tensor] = []
        self.tokens: list[torch.Tensor] = []
        self.empty = tokenize(pipeline, [""])

    def _grow_to(self, count: int) -> None:
        while len(self.latents) < count:
            latents, prompts = ensure_shard(
                self.folder,
                len(self.latents),
                self.vae,
                self.vae_hash,
                seed=self.settings.seed,
                near_misses=self.settings.near_misses,
            )
            self.latents.append(latents)
            self.tokens.append(tokenize(self.pipeline, prompts))

    def batch(self, step: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """(x0 (B, C, h, w) float32, token ids (B, T)), prompts dropped at the settings' rate."""
        s = self.settings
        self._grow_to(min(s.shards_at_most, s.shards_at_start + step // s.steps_per_shard))
        index = torch.randint(len(self.latents) * SHARD_SIZE, (s.batch,), generator=generator).tolist()
        x0 = torch.stack([self.latents[i // SHARD_SIZE][i % SHARD_SIZE] for i in index]).float()
        tokens = torch.stack([self.tokens[i // SHARD_SIZE][i % SHARD_SIZE] for i in index])
        dropped = torch.rand(s.batch, generator=generator) < s.dropout
        return x0, torch.where(dropped[:, None], self.empty, tokens)


def orthogonal(
    gradient: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """The matrix (m, n) with its singular values brought near 1 by `steps` Newton-Schulz iterations, as `torch.optim.Muon`
    does it (Jordan et al. 2024), in the gradient's own precision: torch's is in bf16 always."""
    a, b, c = coefficients
    tall = gradient.shape[0] > gradient.shape[1]
    x = gradient.T if tall else gradient
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def build_optimizers(pipeline, settings: PretrainSettings) -> dict[str, torch.optim.Optimizer]:
    """AdamW for everything but, with `muon`, the attention and feed-forward matrices of the transformer's blocks."""
    blocks, rest = [], []
    for name in TRAINED:
        for key, p in getattr(pipeline, name).named_parameters():
            inside = name == "transformer" and "transformer_blocks" in key and ".norm" not in key
            (blocks if settings.muon and inside and p.ndim == 2 else rest).append(p)
    adamw = torch.optim.AdamW(rest, lr=settings.lr, betas=(0.9, 0.95), weight_decay=settings.weight_decay, fused=True)
    optimizers: dict[str, torch.optim.Optimizer] = {"adamw": adamw}
    if blocks:
        if not bf16_pays(
            "cpu"
        ):  # torch has no option for it, and its bf16 then takes twenty times as long as all the rest
            torch.optim._muon._zeropower_via_newtonschulz = orthogonal
        optimizers["muon"] = torch.optim.Muon(
            blocks, lr=settings.muon_lr, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers


def pretrain(
    settings: PretrainSettings,
    vae_dir: Path,
    work: Path,
    output: Path,
    *,
    model: DemoModelSettings | None = None,
    start: Path | None = None,
    save_seconds: float = 240,
    on_save=None,
    device: str = "cpu",
) -> dict:
    """Train (or resume from `work`) and save the EMA weights as a pipeline folder at `output` with every checkpoint.

    Weights are random at first, or those of `start`, a pipeline folder of the same shapes and autoencoder.
    `on_save(output, step)` is called after each save, e.g. to evaluate. Returns the last log line.
    """
    vae = AutoencoderKL.from_pretrained(vae_dir, use_safetensors=True).to(device).eval().requires_grad_(False)
    pipeline = build_pipeline(vae, model or DemoModelSettings(), seed=settings.seed)
    modules = {name: getattr(pipeline, name) for name in TRAINED}
    if start is not None:
        for name, module in modules.items():
            module.load_state_dict(type(module).from_pretrained(start / name, use_safetensors=True).state_dict())
    for module in modules.values():
        module.to(device)
    averages = {f"ema_{name}": copy.deepcopy(m).requires_grad_(False) for name, m in modules.items()}
    optimizers = build_optimizers(pipeline, settings)
    state = _resume(work, settings, {**modules, **averages}, optimizers)
    live = [p for m in modules.values() for p in m.parameters()]
    averaged = [p for m in averages.values() for p in m.parameters()]
    on_cpu = torch.device(device).type == "cpu"
    if on_cpu and bf16_pays("cpu"):
        rewrite(pipeline.transformer)
    velocity = torch.compile(pipeline.transformer) if settings.compile else pipeline.transformer
    pool = LatentPool(work / "latents", vae, fingerprint(vae_dir), pipeline, settings)

    seconds, running = state.get("seconds", 0.0), None
    saved = tick = time.monotonic()
    line: dict = {}
    bar = tqdm(range(state["step"], settings.steps), initial=state["step"], total=settings.steps, desc="pretrain")
    for step in bar:
        if step == decay_start(settings):
            _save(work / "trunk", step, settings, seconds, {**modules, **averages}, optimizers)
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        x0, tokens = pool.batch(step, generator)
        noise = torch.randn(x0.shape, generator=generator)
        t = torch.sigmoid(settings.time_mean + torch.randn(settings.batch, generator=generator))
        x0, tokens, noise, t = (values.to(device) for values in (x0, tokens, noise, t))
        x_t = torch.lerp(x0, noise, t[:, None, None, None])
        with autocast(x0.device), plain_attention_everywhere() if on_cpu else nullcontext():
            embeds, pooled = encode_text(pipeline, tokens)
            v = velocity(
                hidden_states=x_t,
                timestep=t * 1000,
                encoder_hidden_states=embeds,
                pooled_projections=pooled,
                return_dict=False,
            )[0]
        loss = flow_matching_loss(v, x0, noise)
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(live, 1.0)
        factor = learning_rate_factor(step, settings)
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            optimizer.step()
        torch._foreach_lerp_(averaged, live, 1 - min(settings.ema, (step + 1) / (step + 10)))

        running = loss.item() if running is None else 0.99 * running + 0.01 * loss.item()
        now = time.monotonic()
        seconds, tick = seconds + now - tick, now
        if step % 50 == 0 or step + 1 == settings.steps:
            line = {
                "step": step + 1,
                "images": (step + 1) * settings.batch,
                "seconds": round(seconds, 1),
                "loss": round(running, 5),
                "grad_norm": round(norm.item(), 4),
                "lr_factor": round(factor, 4),
            }
            bar.set_postfix(loss=f"{running:.4f}")
            append_line(work / "log.jsonl", line)
        if now - saved > save_seconds or step + 1 == settings.steps:
            _save(work / "checkpoint", step + 1, settings, seconds, {**modules, **averages}, optimizers)
            _export(pipeline, averages, output)
            if on_save is not None:
                on_save(output, step + 1)
            saved = tick = time.monotonic()
    return line


def _save(folder: Path, step: int, settings: PretrainSettings, seconds: float, modules: dict, optimizers: dict) -> None:
    extra = {"seconds": seconds, "settings": asdict(settings)}
    save_checkpoint(folder, step=step, modules=modules, optimizers=optimizers, extra=extra)


def _resume(work: Path, settings: PretrainSettings, modules: dict, optimizers: dict) -> dict:
    """The newest state that a run of this length may go on from: the checkpoint, or the trunk when the checkpoint
    already cooled down under a shorter plan."""
    work.mkdir(parents=True, exist_ok=True)
    for name in ("checkpoint", "trunk"):
        state = load_checkpoint(work / name, modules=modules, optimizers=optimizers)
        if state is None:
            continue
        made_with = PretrainSettings(**state["settings"])
        if made_with.steps == settings.steps or state["step"] <= decay_start(made_with):
            return state
    return {"step": 0}


def _export(pipeline: StableDiffusion3Pipeline, averages: dict, output: Path) -> None:
    parts = {name: averages[f"ema_{name}"] for name in TRAINED}
    StableDiffusion3Pipeline(**{**pipeline.components, **parts}).save_pretrained(output)
    share_as_usual(output)
