"""A dry run: what memory and time a round will take, from the model's shapes alone.

No weight is read. The pipeline is built from its configurations under a FakeTensorMode, whose tensors have shapes and no
values. One pass of the transformer is made at one and at two images, without adapter, with one, and with gradient; what it
allocates and computes is linear in the images. Then the trainer's own update runs on such tensors too, with a stand-in
for the transformer that allocates what was measured, and every allocation is counted.
"""

from __future__ import annotations

import dataclasses
import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from common.settings import MemorySettings, SampleSettings, TDMR1Settings
from trainer.backends import Conditioning, Managed, autocast, load_backend
from trainer.backends.base import planned_for
from trainer.backends.memory import encode_batch, text_encoders
from trainer.methods import method_class
from trainer.methods.base import Groups, Rollouts
from trainer.roles import STUDENT, SURROGATE, TEACHER
from trainer.rounds.judge import GRID_IMAGES
from trainer.rounds.sources import Scored
from trainer.rounds.update import Update
from trainer.sampler import sample_latents
from trainer.shares import Part
from trainer.watch import looks as watched

GB = 1e9
VALIDATION_BATCH = 64  # images; `evaluate.sample_images`
PROMPT = "a prompt"
CONTEXT_BYTES = 0.7 * GB  # CUDA's context and its libraries' workspaces, which no tensor accounts for
FRAGMENTS = 0.05  # of the rest: what the caching allocator holds and cannot use
UTILISATION = 0.35  # of the GPU's peak, as is usual for transformers in bf16
# Memory in GB and dense bf16 TFLOP/s with fp32 accumulation, from NVIDIA's data sheets and architecture white papers.
GPUS = {
    "rtx3090": (24, 71),
    "rtx4090": (24, 165),
    "l4": (24, 121),
    "a10": (24, 125),
    "l40s": (48, 362),
    "a100-40gb": (40, 312),
    "a100": (80, 312),
    "h100": (80, 989),
}
TYPICAL = {24: "rtx3090", 40: "a100-40gb", 48: "l40s", 80: "a100"}  # of a size, the slowest


def parse_gpu(text: str) -> tuple[float, float, str]:
    """(GB, TFLOP/s, what it was taken for) of "24GB" or a name in `GPUS`. Raises ValueError with what it could be."""
    name = text.lower().replace(" ", "").replace("_", "")
    if name in GPUS:
        return (*GPUS[name], name)
    size = re.fullmatch(r"(\d+(?:\.\d+)?)gb?", name)
    if not size or float(size[1]) <= 0:
        raise ValueError(f"gpu: {text!r} is neither a size such as 24GB nor one of {', '.join(GPUS)}")
    gigabytes = float(size[1])
    like = TYPICAL[min(TYPICAL, key=lambda known: abs(known - gigabytes))]
    return gigabytes, GPUS[like][1], like


def _attention(q, k, v, *_, **__) -> int:
    return sdpa_flop_count(q.shape, k.shape, v.shape)


def _attention_backward(gradient, q, k, v, *_, **__) -> int:
    return sdpa_backward_flop_count(gradient.shape, q.shape, k.shape, v.shape)


FLOPS = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class Allocations(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make, while they live, and FLOPs; `peak` since the last `reset`.

    torch's FlopCounterMode cannot be used beside it: its hooks keep tensors alive that would else be gone.

    Values are asked for here and there (to log them, or in an optimizer's step count); a tensor without any says 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.flops = 0.0
        self._sizes: dict[int, int] = {}
        self._watched: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1.0 if args[0].is_floating_point() else 1
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor, 0)  # made before the counting began, or counted already
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor, tensor.untyped_storage().nbytes())
        if count := FLOPS.get(func.overloadpacket):
            self.flops += count(*args, **(kwargs or {}), out_val=made)
        return made

    def _watch(self, tensor: torch.Tensor, size: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = size
        self._watched[key] = weakref.ref(storage, lambda _, key=key: self._gone(key))
        self.live += size
        self.peak = max(self.peak, self.live)

    def _gone(self, key: int) -> None:
        self._watched.pop(key, None)
        self.live -= self._sizes.pop(key, 0)

    def reset(self) -> None:
        """Forget the peak; what lives goes on counting."""
        self.peak = self.live

    def touch(self, size: float) -> None:
        """As if `size` bytes were allocated for a moment."""
        self.peak = max(self.peak, self.live + int(size))

    def let_go(self, tensor: torch.Tensor) -> None:
        """Count a tensor as freed from here on."""
        key = tensor.untyped_storage()._cdata
        self.live -= self._sizes[key]
        self._sizes[key] = 0


@dataclass(frozen=True)
class Line:
    """`at(n)` of something linear in n, from its values at 1 and 2."""

    one: float = 0.0
    two: float = 0.0

    def at(self, n: int) -> float:
        """The value at n, never below 0."""
        return max(0.0, self.one + (self.two - self.one) * (n - 1))


@dataclass(frozen=True)
class PassCost:
    """One pass of the transformer: bytes held for the backward pass, peaks above what lived before each half, FLOPs."""

    held: Line
    forward: Line
    backward: Line
    flops: Line
    backward_flops: Line


@dataclass
class Plan:
    """Bytes by part and by phase, FLOPs, and the settings that they are for."""

    settings: TDMR1Settings
    memory: MemorySettings
    trained: str = "transformer"  # the part of the pipeline that gets the adapters
    weights: dict[str, int] = field(default_factory=dict)  # by part of the pipeline, wherever it is
    resident: dict[str, int] = field(default_factory=dict)  # of those, in the phase with the highest peak
    adapters: int = 0
    optimizers: int = 0
    trajectories: int = 0
    decode: int = 0  # above what lives before
    activations: int = 0  # at the highest peak: all that is not weights, adapters, optimizers or trajectories
    phases: dict[str, int] = field(default_factory=dict)  # peaks, everything included
    update_flops: float = 0.0
    other_flops: float = 0.0  # once a round: embeddings, validations, grids

    @property
    def tensors(self) -> int:
        """Bytes of tensors at the highest peak."""
        return max(self.phases.values())

    @property
    def total(self) -> float:
        """What a CUDA device needs: tensors, the allocator's fragments and the context."""
        return self.tensors * (1 + FRAGMENTS) + CONTEXT_BYTES

    @property
    def flops(self) -> float:
        """Of the whole round; at most, if some of its updates are the surrogate's alone."""
        return self.update_flops * self.settings.updates + self.other_flops


class _StandIn(torch.autograd.Function):
    """Allocates what a pass of the transformer would, and computes nothing."""

    @staticmethod
    def forward(ctx, planner: _Planner, x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        cost, n = planner.costs["gradient"], len(x)
        planner.counter.touch(cost.forward.at(n))
        planner.flops += cost.flops.at(n)
        held = torch.empty(int(cost.held.at(n)), dtype=torch.uint8)
        ctx.save_for_backward(held)
        ctx.planner, ctx.n = planner, n
        ctx.shapes = [(p.shape, p.dtype) for p in parameters]
        return torch.empty(x.shape, dtype=torch.float32)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        planner, cost = ctx.planner, ctx.planner.costs["gradient"]
        planner.counter.touch(cost.backward.at(ctx.n))
        planner.flops += cost.backward_flops.at(ctx.n)
        planner.counter.let_go(ctx.saved_tensors[0])
        return None, None, *(torch.empty(shape, dtype=dtype) for shape, dtype in ctx.shapes)


@contextmanager
def _unmoved() -> Iterator[None]:
    """`Module.to` leaves everything as it is: torch cannot move modules whose tensors have no values, nor need they be."""
    to = torch.nn.Module.to
    torch.nn.Module.to = lambda self, *arguments, **options: self
    try:
        yield
    finally:
        torch.nn.Module.to = to


class _Planner:
    def __init__(self, model: Path, settings: TDMR1Settings, memory: MemorySettings, device: str, costs: dict):
        self.settings, self.memory, self.device = settings, memory, device
        self.counter, self.flops, self._known_costs = Allocations(), 0.0, costs
        # What moves between the machine's memory and the device is accounted for below, not moved; nothing is compiled.
        here = dataclasses.replace(memory, text_encoders="keep", vae_offload=False, embeddings="", compile=False)
        accelerator = Accelerator(cpu=True)
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        with _unmoved():
            self.backend: Managed = load_backend(model, memory=here, shapes=self.mode)
        self.encoders = text_encoders(model)
        weights = {name: _size(getattr(self.backend.pipeline, name)) for name in self._parts()}
        self.plan = Plan(settings, memory, trained=self.backend.component, weights=weights)
        self._encode()
        steps = SampleSettings().steps
        levels = self.backend.grid(steps)  # schedulers and the sampler read values
        # Every image may have a reward term, and every update may do all that one does.
        # A head is counted as the likelihood: it reads the same passes, of which no block can be looked into here.
        self.most = dataclasses.replace(settings, trunc_steps=steps, surrogate_first=0.0, surrogate="likelihood")
        self.backend.inner.grid = lambda steps: levels
        with _unmoved(), self.mode, self.counter:
            self.trainer = method_class(self.most)(self.backend, self.most, accelerator=accelerator)
        processor = self.backend.pipeline.image_processor
        made = processor.postprocess
        processor.postprocess = lambda pixels, **_: made(pixels, output_type="pt")  # Pillow wants values
        self.plan.adapters = sum(p.nbytes for role in self.trainer.roles.names for p in self._role(role))
        self.plan.optimizers = sum(2 * p.nbytes for role in self.trainer.optimizers for p in self._role(role))

    def _parts(self) -> list[str]:
        return [self.backend.component, "vae", *self.encoders]

    def _role(self, role: str) -> list[torch.nn.Parameter]:
        return self.trainer.roles.parameters(role)

    def _resident(self, phase: str) -> dict[str, int]:
        """Bytes of the frozen weights that are on the device in a phase, by part."""
        parts, memory, on_cpu = set(self._parts()), self.memory, self.device == "cpu"
        away = {"keep": False, "offload": not on_cpu, "free": True}[memory.text_encoders]
        if away and phase != "embed":
            parts -= set(self.encoders)
        if away and phase == "embed" and not on_cpu:
            parts.discard(self.backend.component)
        if memory.vae_offload and not on_cpu and phase != "decode":
            parts.discard("vae")
        return {name: size for name, size in self.plan.weights.items() if name in parts}

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self.counter.reset()
        before = self.counter.live
        yield
        plan, resident = self.plan, self._resident(name)
        peak = self.counter.peak + sum(resident.values())
        if peak > max(plan.phases.values(), default=0):
            plan.resident = resident
            states = plan.optimizers if name != "embed" else 0
            named = sum(resident.values()) + plan.adapters + states + plan.trajectories
            plan.activations = max(0, peak - named)
        plan.phases[name] = max(peak, plan.phases.get(name, 0))
        if name == "decode":
            plan.decode = max(plan.decode, self.counter.peak - before)

    def _count(self, run: Callable) -> float:
        before = self.counter.flops
        run()
        return self.counter.flops - before

    def _encode(self) -> None:
        """The phase of embeddings; also remembers one, which every prompt of the dry run then has."""
        with self.mode, self.counter, torch.no_grad(), self._phase("embed"):
            self.row = self.backend.inner.outline(1)
            size = encode_batch(self.device)
            self.encode_flops = self._count(lambda: self.backend.inner.outline(size)) / size

    def _conditioning(self, count: int) -> Conditioning:
        """What `Managed.encode` gives for `count` prompts."""
        self.backend._rows = dict.fromkeys(("", PROMPT), self.row)
        made = self.backend.encode([PROMPT] * count)
        if made.lengths is None:
            return made
        with unset_fake_temporarily():  # a pass reads them
            lengths = torch.full((count,), self.row.embeds.shape[1])
        return Conditioning(made.embeds, made.pooled, lengths)

    def _measure(self) -> dict[str, PassCost]:
        """The costs of a pass without adapter, with one, with gradient, and for people's eyes, which is not in bf16; and of
        decoding. What the memory settings do not change is measured once."""
        half, blocks, tiles = self.memory.half, self.memory.checkpointing, self.memory.vae_tiling
        return {
            "bare": self._once(("bare", half), lambda: self._pass(TEACHER, gradient=False)),
            "adapter": self._once(("adapter", half), lambda: self._pass(STUDENT, gradient=False)),
            "fp32": self._once(
                ("adapter" if half else "fp32", half), lambda: self._pass(STUDENT, gradient=False, bf16=half)
            ),
            "gradient": self._once(("gradient", half, blocks), lambda: self._pass(STUDENT, gradient=True)),
            "decode bf16": self._once(("decode bf16", tiles), lambda: self._decoding(bf16=True)),
            "decode fp32": self._once(("decode fp32", tiles), lambda: self._decoding(bf16=False)),
        }

    def _once(self, key: tuple, measure: Callable[[], PassCost]) -> PassCost:
        key = (self.device, *key)
        if key not in self._known_costs:
            with self.mode, self.counter:
                self._known_costs[key] = measure()
        return self._known_costs[key]

    def _pass(self, role: str, *, gradient: bool, bf16: bool = True) -> PassCost:
        found = [self._pass_at(role, n, gradient, bf16) for n in (1, 2)]
        return PassCost(*(Line(*values) for values in zip(*found, strict=True)))

    def _pass_at(self, role: str, n: int, gradient: bool, bf16: bool) -> tuple[float, float, float, float, float]:
        self.trainer.roles.use(role)
        counter = self.counter
        x, t, conditioning = torch.empty((n, *self.backend.latent_shape)), torch.empty(n), self._conditioning(n)
        made = []

        def forward() -> None:
            half = self.memory.half
            with autocast(self.backend.device, bf16, forced=half), torch.set_grad_enabled(gradient):
                made.append(self.backend.one_pass(x, t, conditioning))

        counter.reset()
        before = counter.live
        flops = self._count(forward)
        forward_peak, held = counter.peak - before, counter.live - before - made[0].nbytes
        if not gradient:
            return 0, forward_peak, 0, flops, 0
        seed = torch.empty_like(made[0])
        counter.reset()
        before = counter.live
        backward_flops = self._count(lambda: torch.autograd.grad(made.pop(), self._role(role), seed))
        return held, forward_peak, counter.peak - before, flops, backward_flops

    def _decoding(self, *, bf16: bool) -> PassCost:
        found = []
        for n in (1, 2):
            latents = torch.empty((n, *self.backend.latent_shape))
            self.counter.reset()
            before = self.counter.live
            flops = self._count(lambda latents=latents: self.backend.inner.decode(latents, bf16=bf16))
            found.append((self.counter.peak - before, flops))
        peak, flops = (Line(*values) for values in zip(*found, strict=True))
        return PassCost(Line(), peak, Line(), flops, Line())

    def _decode(self, latents: torch.Tensor, *, bf16: bool) -> list:
        cost = self.costs["decode bf16" if bf16 else "decode fp32"]
        self.counter.touch(cost.forward.at(len(latents)))
        self.flops += cost.flops.at(len(latents))
        return []

    def _stand_in(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        roles = self.trainer.roles
        if torch.is_grad_enabled():
            return _StandIn.apply(self, x, *self._role(roles.active))
        adapted = "adapter" if torch.is_autocast_enabled("cpu") else "fp32"
        cost = self.costs["bare" if roles.active == TEACHER else adapted]
        self.counter.touch(cost.forward.at(len(x)))
        self.flops += cost.flops.at(len(x))
        return torch.empty(x.shape, dtype=torch.float32)

    def run(self) -> Plan:
        """An update, once the optimizers have their states, and what is sampled for people and for validation."""
        s, plan = self.settings, self.plan
        self.costs = self._measure()
        self.backend.inner.velocity, self.backend.inner.decode = self._stand_in, self._decode
        with self.mode, self.counter:
            for role in self.trainer.optimizers:
                self.trainer.step(role, (), Part.whole(1))  # an update without gradient makes the states
            self._update()
            plan.update_flops = self.flops
            self.flops = 0.0
            self._sample_and_decode("show", GRID_IMAGES, bf16=False)
            plan.other_flops = 2 * self.flops
            if s.validation_images:
                self.flops = 0.0
                size = min(s.validation_images, VALIDATION_BATCH)
                self._sample_and_decode("validate", size)
                looks = 1 + (s.updates - 1) // s.validate_every
                sampled = self.flops / size * s.validation_images
                plan.other_flops += sampled * (1 + looks)
                if s.alarm:  # passes of about the sampler's cost: four a look and image, two of them also of the parent
                    plan.other_flops += sampled / self.trainer.steps * watched.DRAWS * (4 * looks + 2)
        plan.other_flops += self.encode_flops * s.updates * s.prompts_per_update
        return plan

    def _sample_and_decode(
        self, phase: str, count: int, each: int = 1, *, bf16: bool = True, scored: bool = False
    ) -> torch.Tensor:
        """Trajectories of `count` prompts with `each` images, of which all are decoded; the method's own if `scored`."""
        with self._phase(phase):
            noise = torch.empty((count * each, *self.backend.latent_shape))
            conditioning = self._conditioning(count).repeat(each)
            if scored:
                trajectory = self.trainer.roll_out(conditioning, noise, torch.Generator())
            elif bf16:
                trajectory = self.trainer.sample(conditioning, noise)
            else:
                trajectory = sample_latents(self.backend, conditioning, noise, self.trainer.levels)
        self.plan.trajectories = max(self.plan.trajectories, trajectory.nbytes)
        with self._phase("decode"):
            self.backend.decode(trajectory[:, -1], bf16=bf16)
        return trajectory

    def _update(self) -> None:
        """A round's own update from an oracle, on groups of which all have signal."""
        s, method = self.most, self.trainer
        p, g = s.prompts_per_update, s.group_size
        self._conditioning(1)  # from here on every prompt that is encoded is the one of `_encode`
        sampled = [self._sample_and_decode("sample", p, g, scored=True)]

        def batches() -> Iterator[Groups]:
            kept = sampled[0].unflatten(0, (p, g)).clone()
            groups = Groups(kept, method.backend.encode([PROMPT] * p), torch.empty(p, g), sampled=torch.arange(p))
            for _ in range(s.surrogate_updates_for(0)):
                yield groups

        def rollouts() -> Rollouts:
            rows = min(s.student_batch, p * g)
            chosen = sampled.pop()[torch.zeros(rows, dtype=torch.long)]
            return Rollouts(chosen, [PROMPT] * rows, Part.whole(rows))

        method.learn = self._in_phase("surrogate" if SURROGATE in method.roles.names else "student", method.learn)
        method.follow = self._in_phase("student", method.follow)
        Update(method, s).step(Scored(0, torch.Generator(), batches(), rollouts))

    def _in_phase(self, name: str, run: Callable) -> Callable:
        def counted(*arguments):
            with self._phase(name):
                return run(*arguments)

        return counted


def _size(module: torch.nn.Module) -> int:
    return sum(t.nbytes for t in (*module.parameters(), *module.buffers()))


def plan_round(
    model: Path, settings: TDMR1Settings, memory: MemorySettings, *, device: str = "cuda", costs: dict | None = None
) -> Plan:
    """Memory and work of a round from an oracle. `device` "cpu" counts the machine's memory, where nothing is elsewhere.
    `costs` keeps what was measured of passes for the next call. Raises ValueError on a folder that is no model."""
    with planned_for(device):
        return _Planner(model, settings, memory, device, {} if costs is None else costs).run()


# What to turn on, in turn, until a round fits: first what costs no time, then what computes passes again.
FREE_OF_COST = {"half": True, "text_encoders": "free", "vae_batch": 2}
STEPS = (
    {},
    {"checkpointing": True},
    {"micro_batch": 16},
    {"checkpointing": True, "micro_batch": 16},
    {"checkpointing": True, "micro_batch": 4},
    {"checkpointing": True, "micro_batch": 1, "vae_batch": 1, "vae_tiling": True, "vae_offload": True},
)


def advise(
    model: Path,
    settings: TDMR1Settings,
    memory: MemorySettings,
    limit: float,
    *,
    tell: Callable[[MemorySettings], None] = lambda tried: None,
    costs: dict | None = None,
) -> tuple[Plan, Plan | None]:
    """The plan as asked for, and the first one that fits into `limit` bytes (the same if it does, None if none does).
    `tell` hears of each attempt; `costs` as in `plan_round`."""
    costs = {} if costs is None else costs
    asked = plan_round(model, settings, memory, costs=costs)
    if asked.total <= limit:
        return asked, asked
    for step in STEPS:
        changes = {**FREE_OF_COST, **step}
        changes["vae_batch"] = min(changes["vae_batch"], memory.vae_batch)
        tried = dataclasses.replace(memory, **changes)
        tell(tried)
        plan = plan_round(model, settings, tried, costs=costs)
        if plan.total <= limit:
            return asked, plan
    return asked, None


def options_text(memory: MemorySettings, base: MemorySettings | None = None) -> str:
    """The command line's options for what differs from `base` (None: the defaults)."""
    before, after = (base or MemorySettings()).to_json(), memory.to_json()
    words = []
    for name, value in after.items():
        if value != before[name]:
            flag = name.replace("_", "-")
            words.append(f"--{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f"--{flag} {value}")
    return " ".join(words)


def table(plan: Plan, tflops: float) -> str:
    """A plan as lines of text: parts, phases, total and time."""
    dtype = "bf16" if plan.memory.half else "fp32"
    encoders = [name for name in plan.weights if name.startswith("text_encoder")]
    away = not any(name in plan.resident for name in encoders)
    rows = [
        (f"{plan.trained}, {dtype}", plan.weights[plan.trained]),
        (
            f"text encoders, {dtype}" + (", not there at the peak" if away else ""),
            sum(plan.weights[n] for n in encoders),
        ),
        ("VAE, fp32" + ("" if "vae" in plan.resident else ", not there at the peak"), plan.weights["vae"]),
        ("adapters of all roles, fp32", plan.adapters),
        ("optimizers' states, fp32", plan.optimizers),
        ("trajectories, fp32", plan.trajectories),
        ("activations at the peak", plan.activations),
        ("decoding, while it lasts", plan.decode),
    ]
    lines = [f"{name:<48}{_gb(size):>10}" for name, size in rows]
    lines += ["", *(f"peak while it does: {name:<28}{_gb(size):>10}" for name, size in plan.phases.items())]
    lines += ["", f"{'CUDA context and fragments':<48}{_gb(plan.total - plan.tensors):>10}"]
    lines += [f"{'needed':<48}{_gb(plan.total):>10}"]
    rate = tflops * 1e12 * UTILISATION
    update, everything = plan.update_flops / rate, plan.flops / rate
    lines += [
        "",
        f"time, roughly: {_duration(update)} an update, {_duration(everything)} for {plan.settings.updates} updates "
        f"({plan.flops / 1e15:.3g} PFLOP at {UTILISATION:.0%} of {tflops:g} TFLOP/s; oracles not counted)",
    ]
    return "\n".join(lines)


def _gb(size: float) -> str:
    return f"{size / GB:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
