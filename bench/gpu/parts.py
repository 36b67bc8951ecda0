"""What is measured. A part is a generator of results, each a dict of plain values, told as soon as it is there."""

from __future__ import annotations

import copy
import dataclasses
import functools
import gc
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.gpu.shapes import MODELS, PROMPTS, random_backend, write_model
from bench.harness import EVERY_STEP
from bench.peaks import held, peak_of
from bench.speed.step import Naive, Ours
from common.settings import DistillSettings, MemorySettings, PretrainSettings, TDMR1Settings
from trainer.backends import Managed
from trainer.cli import MODEL
from trainer.oracles import Verdict
from trainer.plan import GPUS, options_text, plan_round
from trainer.plan import rungs as ladder
from trainer.roles import STUDENT, Roles
from trainer.rounds import RoundSpec, Stages, prepare
from trainer.sampler import initial_noise, sample_latents

LORA = {"rank": 64, "alpha": 128}
BATCH = 8  # images of a prompt
TINY_SIZE = 64  # pixels
LINES = [{"prompt": prompt, "tag": "counting"} for prompt in PROMPTS]


@dataclass(frozen=True)
class Job:
    """What a part is told. `seconds` is how long it may take from `started`; `work` is a folder of its own."""

    device: torch.device
    tiny: bool
    size: int
    seconds: float
    work: Path
    started: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.seconds - (time.monotonic() - self.started)

    def share(self, of: float) -> float:
        """Seconds that timing something may take: a share of those left; a rehearsal times one call."""
        return 0.0 if self.tiny else self.left * of

    def model(self, name: str) -> Path:
        """The folder of a model of `MODELS`."""
        folder, size = self.work / name, TINY_SIZE if self.tiny else self.size
        return folder if folder.exists() else write_model(name, folder, tiny=self.tiny, size=size)

    def memory(self, **options) -> MemorySettings:
        """In bf16, with embeddings from a folder."""
        known = {"half": True, "text_encoders": "free", "embeddings": str(self.work / "embeddings")}
        return MemorySettings(**known | options)

    def round(self, model: Path, backend: Managed, name: str, **settings) -> Stages:
        """A round of this model whose rewards are made up, so that every group has signal."""
        parent = self.work / "parents" / model.name
        if not parent.exists():
            roles = Roles(backend.transformer, backend.lora_targets, roles=(STUDENT,), **LORA)
            backend.save_lora(parent, roles.state_dict(STUDENT), **LORA)
            roles.remove()
        spec = RoundSpec(
            model_dir=str(model),
            parent_dir=str(parent),
            work_dir=str(self.work / "rounds" / name),
            output_dir=str(self.work / "rounds" / name / "version"),
            train_prompts=LINES,
            reward_oracle="alternating",
            settings=round_settings(**settings).to_json(),
            memory=backend.memory.to_json(),
        )
        return prepare(spec, device=self.device.type, backend=backend, oracles=lambda name: Alternating())


def round_settings(**changes) -> TDMR1Settings:
    """Small batches: what is measured is an update's order and memory, not what is learned."""
    small = {"prompts_per_update": 2, "group_size": BATCH, "student_batch": 16, "validation_images": 0, "updates": 1000}
    return TDMR1Settings(**small | LORA | changes)


class Alternating:
    """An oracle that likes every other image."""

    name = "alternating"

    def score(self, images, prompts, metadata) -> list[Verdict]:
        """See `Oracle.score`."""
        return [Verdict(float(i % 2), bool(i % 2), "", bool(i % 2)) for i in range(len(images))]


def rungs(job: Job) -> dict[str, MemorySettings]:
    """The memory settings that `plan` tries in turn, by the options that say them."""
    tried = list(ladder(job.memory()))
    return {options_text(dataclasses.replace(memory, embeddings="")): memory for memory in tried}


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 FLOP/s of the card, as `plan` knows it; None where it does not."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device).lower().replace(" ", "-")
    known = [key for key in sorted(GPUS, key=len, reverse=True) if key in name.replace("rtx-", "rtx")]
    return GPUS[known[0]][1] * 1e12 if known else None


def utilisation(flops: float, seconds: float, device: torch.device) -> float | None:
    """The share of the card's peak that `flops` in `seconds` are (MFU)."""
    peak = peak_flops(device)
    return flops / seconds / peak if peak else None


def wait(device: torch.device) -> None:
    """Until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def mean_seconds(run: Callable[[], object], device: torch.device, budget: float, most: int = 20) -> float:
    """Of a call of `run` after one that warms up; as many as the budget allows, one at least."""
    run()
    wait(device)
    start, count = time.perf_counter(), 0
    while not count or (count < most and time.perf_counter() - start < budget):
        run()
        wait(device)
        count += 1
    return (time.perf_counter() - start) / count


def counted_flops(run: Callable[[], object]) -> float:
    """What torch counts of one call."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def free(device: torch.device) -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def failing_alone(found: dict) -> Iterator[None]:
    """What fails inside is told in the result, and the next one is measured."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, ImportError) as error:
        found["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def memory(model: str, job: Job) -> Iterator[dict]:
    """Peak memory and seconds of an update, for each rung of the ladder."""
    for number, (options, settings) in enumerate(rungs(job).items()):
        if job.left <= 0:
            return
        found = {"model": model, "options": options}
        with failing_alone(found):
            folder = job.model(model)
            backend = random_backend(folder, settings, job.device)
            stages = job.round(folder, backend, f"memory-{number}")
            stages.step(0)  # optimizers have their states from here on
            wait(job.device)
            numbers = iter(range(1, 1000))
            there = held(backend) + states(stages) if job.device.type == "cpu" else torch.cuda.memory_allocated()

            def once(stages=stages, numbers=numbers) -> None:
                stages.step(next(numbers))
                wait(job.device)

            start = time.perf_counter()
            found["peak"] = there + peak_of(once, job.device.type)
            found["seconds"] = time.perf_counter() - start
            if job.device.type == "cuda":
                found["reserved"] = torch.cuda.max_memory_reserved()
        backend = stages = None
        free(job.device)
        yield found


def states(stages: Stages) -> int:
    """Bytes of the optimizers' states."""
    kept = (state for optimizer in stages.method.optimizers.values() for state in optimizer.state.values())
    return sum(t.nbytes for state in kept for t in state.values() if isinstance(t, torch.Tensor))


def plans(job: Job) -> Iterator[dict]:
    """What `plan` says of the same updates."""
    for model in MODELS:
        costs: dict = {}
        for options, settings in rungs(job).items():
            found = {"model": model, "options": options}
            with failing_alone(found):
                plan = plan_round(job.model(model), round_settings(), settings, device=job.device.type, costs=costs)
                found |= {"tensors": plan.tensors, "total": plan.total, "flops": plan.update_flops}
            yield found


def generation(model: str, job: Job) -> Iterator[dict]:
    """Images per second of a group of eight against the stock pipeline, called once an image. Both have the adapter, the
    embeddings and the noise; the stock pipeline is all in bf16."""
    folder = job.model(model)
    backend = random_backend(folder, job.memory(), job.device)
    roles = Roles(backend.transformer, backend.lora_targets, roles=(STUDENT,), **LORA)
    for p in roles.parameters(STUDENT):
        torch.nn.init.normal_(p, std=0.01)
    noise = initial_noise(range(BATCH), backend.latent_shape)
    conditioning, grid = backend.encode([PROMPTS[0]]), backend.grid(4)
    both = conditioning.repeat(BATCH)

    def ours() -> None:
        with roles.merged(STUDENT):
            points = sample_latents(backend, both, noise, grid, bf16=True)
        backend.decode(points[:, -1], bf16=True)

    pipeline = type(backend.pipeline)(
        **backend.pipeline.components | {"vae": copy.deepcopy(backend.pipeline.vae).bfloat16()}
    )
    pipeline.set_progress_bar_config(disable=True)

    def stock() -> None:
        roles.use(STUDENT)
        for i in range(BATCH):
            pipeline(**stock_inputs(model, conditioning), latents=noise[i : i + 1], **backend.stock_call(4))

    def hold_adapter(dtype: torch.dtype) -> None:
        for p in roles.parameters(STUDENT):
            p.data = p.data.to(dtype)

    flops = 0.0
    with torch.no_grad():
        for name, run in {"stock, per image": stock, "groups": ours}.items():
            found = {"model": model, "what": name}
            with failing_alone(found):
                hold_adapter(torch.float32 if name == "groups" else torch.bfloat16)
                if name == "groups":
                    flops = counted_flops(ours)
                seconds = mean_seconds(run, job.device, job.share(1 / 4))
                found |= {"images_per_second": BATCH / seconds}
                found |= {"mfu": utilisation(flops, seconds, job.device)} if flops else {}
            yield found
        found = {"model": model, "what": "groups, adapter folded into the weights"}
        with failing_alone(found):
            roles.fold(STUDENT)
            roles.merged = lambda role: torch.no_grad()
            seconds = mean_seconds(ours, job.device, job.share(1 / 3))
            found |= {"images_per_second": BATCH / seconds, "mfu": utilisation(flops, seconds, job.device)}
        yield found


def stock_inputs(model: str, conditioning) -> dict:
    """The embeddings of one prompt as the stock pipeline takes them, in its bf16."""
    embeds, pooled = (t.bfloat16() for t in (conditioning.embeds, conditioning.pooled))
    if model == "z_image":
        return {"prompt": None, "prompt_embeds": [embeds[0, : int(conditioning.lengths)]]}
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


def step(model: str, job: Job) -> Iterator[dict]:
    """One trained step against the naive order of its passes, both in bf16 on the same random numbers: seconds, memory
    above the loaded model, MFU. The text encoders that the naive order asks again are shallow: its real cost is higher."""
    folder = job.model(model)
    for side in ("this trainer", "naive order"):
        found = {"model": model, "what": side}
        with failing_alone(found):
            backend = random_backend(folder, job.memory(), job.device)
            stages = job.round(folder, backend, f"step-{side.split()[0]}", **EVERY_STEP)
            one = Ours(stages, bf16=True) if side == "this trainer" else Naive(stages, bf16=True)
            numbers = iter(range(100_000))

            def run(one=one, numbers=numbers) -> None:
                one.step(next(numbers))

            run()
            wait(job.device)
            found["flops"] = counted_flops(run)
            found["peak"] = peak_of(run, job.device.type)
            seconds = mean_seconds(run, job.device, job.share(1 / 4))
            images = stages.settings.prompts_per_update * stages.settings.group_size
            found |= {"seconds": seconds, "images_per_second": images / seconds}
            found["mfu"] = utilisation(found["flops"], seconds, job.device)
        backend = stages = one = None
        free(job.device)
        yield found


def demo(job: Job) -> Iterator[dict]:
    """The demo's chain: scenes drawn by all cores, latents encoded on the device, `pretrain`, `distill`, `train`."""
    from diffusers import AutoencoderKL

    from bench.learning.gains import oracle_spec
    from trainer.demo import latents
    from trainer.demo import pretrain as pretraining
    from trainer.demo.model import DemoModelSettings
    from trainer.demo.scenes.prompts import sample_training_prompt
    from trainer.methods.distill import DistillStopped, distill
    from trainer.rounds import RoundCancelled, run_round

    device, small = str(job.device), job.tiny
    if small:  # a rehearsal draws a handful
        latents.SHARD_SIZE = pretraining.SHARD_SIZE = 32
    vae = AutoencoderKL.from_pretrained(MODEL / "vae", use_safetensors=True).to(device).eval().requires_grad_(False)
    for what in ("draw and encode, with the processes' start", "draw and encode"):
        start = time.perf_counter()
        latents.ensure_shard(job.work / what.replace(" ", "-"), 1, vae, "bench", seed=0, near_misses=1.0)
        speed = latents.SHARD_SIZE / (time.perf_counter() - start)
        yield {"what": what, "images_per_second": speed, "cores": os.cpu_count()}
    del vae
    shapes = DemoModelSettings(layers=1, heads=2, head_dim=16, text_layers=1) if small else DemoModelSettings()
    batch, trial = (4, 4) if small else (256, 600)
    base = {"batch": batch, "compile": not small, "shards_at_start": 1 if small else 16, "warmup": min(300, trial // 2)}
    run = functools.partial(
        pretraining.pretrain, vae_dir=MODEL / "vae", model=shapes, device=device, save_seconds=float("inf")
    )
    seconds = min(300.0, 0.6 * job.seconds)
    started = time.monotonic()
    trained = job.work / "pretrain"
    run(PretrainSettings(steps=trial, **base), work=trained, output=trained / "model")
    speed = speed_of(trained / "log.jsonl")
    yield {"what": "pretrain", "images_per_second": speed * batch}
    steps = trial + int(speed * max(0.0, seconds - (time.monotonic() - started)) * 0.9)
    run(PretrainSettings(steps=steps, **base), work=trained, output=trained / "model")
    yield {
        "what": "base",
        "seconds": time.monotonic() - started,
        "images": steps * batch,
        **scores(trained / "model", None, job),
    }
    stops = job.left / 2
    updates = DistillSettings(updates=4 if small else 100_000, batch=4 if small else 256)
    start = time.monotonic()
    with suppress(DistillStopped):
        distill(
            trained / "model",
            lambda rng: sample_training_prompt(rng).prompt,
            updates,
            job.work / "distill",
            job.work / "student",
            device=device,
            should_stop=lambda: time.monotonic() - start > stops,
        )
    line = json.loads((job.work / "distill" / "log.jsonl").read_text().splitlines()[-1])
    rate = line["updates"] * updates.batch / (time.monotonic() - start)
    yield {
        "what": "distill",
        "images_per_second": rate,
        "updates": line["updates"],
        **scores(trained / "model", job.work / "student", job),
    }
    small_round = {"updates": 2, "prompts_per_update": 2, "group_size": 2, "student_batch": 2} if small else {}
    settings = TDMR1Settings(**{"updates": 10_000, "validation_images": 0, **small_round})
    spec = oracle_spec(job.work / "train", settings, parent=job.work / "student")
    spec = dataclasses.replace(spec, model_dir=str(trained / "model"))
    stops, moments = time.monotonic() + job.left / 2, []  # when an update was done
    with suppress(RoundCancelled):
        run_round(
            spec,
            device=device,
            trackers="none",
            on_progress=lambda progress: moments.append(time.monotonic()) if progress.step else None,
            should_stop=lambda: len(moments) > 1 and time.monotonic() > stops,
        )
    images = settings.prompts_per_update * settings.group_size * (len(moments) - 1)
    yield {"what": "train", "images_per_second": images / max(1e-9, moments[-1] - moments[0]), "updates": len(moments)}


def speed_of(log: Path) -> float:
    """Steps per second after those that compile, from pretraining's log."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    first, last = lines[len(lines) // 3], lines[-1]
    return (last["step"] - first["step"]) / max(0.1, last["seconds"] - first["seconds"]) or 1.0


def scores(model: Path, student: Path | None, job: Job) -> dict[str, float]:
    """Of the base in 40 guided steps, or of a student in four, on validation prompts."""
    from trainer.demo.scenes.prompts import TAGS, evaluation_prompts
    from trainer.evaluate import evaluate
    from trainer.oracles import get_oracle
    from trainer.sampler import Sampler

    sampler = Sampler(model, device=str(job.device))
    sampler.use_version(student)
    rows = evaluation_prompts("validation", 1 if job.tiny else 48, tags=TAGS)
    how = {"steps": 4} if student else {"steps": 2 if job.tiny else 40, "guidance": 4.5}
    found = evaluate(sampler.backend, rows, get_oracle("scenes"), batch=288, bf16=True, **how).scores
    return {name: found[name] for name in ("strict", "geneval")}


SHARES = {"sd35": 1, "z_image": 2}  # of the time: how large they are
# Name → (the part, its share of the time). The plans are made on the CPU beside all others.
PARTS: dict[str, tuple[Callable[[Job], Iterator[dict]], float]] = {
    **{
        f"{what}-{model}": (functools.partial(part, model), share * SHARES[model])
        for model in MODELS
        for what, part, share in (("memory", memory, 8), ("generation", generation, 4), ("step", step, 5))
    },
    "demo": (demo, 50),
}
