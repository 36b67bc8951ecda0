"""A dry run: what memory and time a round will take, from the model's shapes alone.

No weight is read. The pipeline is built from its configurations under a FakeTensorMode, whose tensors have shapes and no
values. One pass of the transformer is made at one and at two images, without adapter, with one, and with gradient; what it
allocates and computes is linear in the images. Of blocks that repeat, two are kept, and what one adds is multiplied. Then
the trainer's own update runs on such tensors too, with a stand-in for the transformer that allocates what was measured,
and every allocation is counted.
"""

from __future__ import annotations

import dataclasses
import logging
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
from common.sizes import Size
from trainer.backends import Backend, Conditioning, autocast, bf16_pays, load_backend
from trainer.backends.base import planned_for
from trainer.backends.memory import ENCODERS_SENSITIVE, encode_batch, frozen_dtype, text_encoders
from trainer.backends.quantised import saved
from trainer.backends.sharded import encoder_blocks, share_of, world
from trainer.methods import method_class
from trainer.methods.base import Groups, Rollouts
from trainer.roles import STUDENT, SURROGATE, TEACHER
from trainer.rounds.judge import GRID_IMAGES
from trainer.rounds.sources import Scored
from trainer.rounds.update import Update
from trainer.sampler import sample_latents
from trainer.shares import Part
from trainer.watch import looks as watched

log = logging.getLogger(__name__)
GB = 1e9
TRANSFER = 20e9  # bytes a second from pinned memory, of the 32 that 16 lanes of PCIe 4 can do
VALIDATION_BATCH = 64  # images; `evaluate.sample_images`
PROMPT = "a prompt"
GRADIENT = ("surrogate", "student")  # the phases of training
WEIGHTS = ("none", "int8", "fp8", "nf4")
CONTEXT_BYTES = 0.7 * GB  # CUDA's context and its libraries' workspaces, which no tensor accounts for
GATHERED = 3  # blocks: FSDP2 gathers into a buffer and copies from there, while the block before it computes
FRAGMENTS = 0.05  # of the rest: what the caching allocator holds and cannot use
UTILISATION = 0.35  # of the GPU's peak, as is usual for transformers in bf16
# Memory in GB and dense bf16 TFLOP/s with fp32 accumulation, from NVIDIA's data sheets and architecture white papers.
GPUS = {
    "rtx3060": (12, 51),
    "rtx4060ti": (16, 88),
    "rtx3090": (24, 71),
    "rtx4090": (24, 165),
    "l4": (24, 121),
    "a10": (24, 125),
    "l40s": (48, 362),
    "a100-40gb": (40, 312),
    "a100": (80, 312),
    "h100": (80, 989),
}
TYPICAL = {
    12: "rtx3060",
    16: "rtx4060ti",
    24: "rtx3090",
    40: "a100-40gb",
    48: "l40s",
    80: "a100",
}  # of a size, the slowest


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

    def above(self, size: int) -> PassCost:
        """The same where each half has as many bytes more for a moment."""
        more = [Line(line.one + size, line.two + size) for line in (self.forward, self.backward)]
        return dataclasses.replace(self, forward=more[0], backward=more[1])

    def doubled(self) -> PassCost:
        """The same without gradient in fp32 instead of bf16, at most."""
        return dataclasses.replace(self, forward=Line(2 * self.forward.one, 2 * self.forward.two))


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
    streamed: tuple[int, int] = (0, 0)  # bytes of all streamed blocks, and of those that are on the device
    processes: int = 1  # that hold a share of the blocks each
    update_flops: float = 0.0
    update_passes: int = 0
    other_flops: float = 0.0  # once a round: embeddings, validations, grids

    @property
    def tensors(self) -> int:
        """Bytes of tensors at the highest peak."""
        return max(self.phases.values())

    @property
    def total(self) -> float:
        """What a CUDA device needs: tensors, the allocator's fragments and the context."""
        return self.tensors * (1 + FRAGMENTS) + CONTEXT_BYTES

    def seconds(self, tflops: float) -> tuple[float, float]:
        """Of an update and of the whole round, roughly. Blocks come while others compute, so the slower of both counts."""
        rate = tflops * 1e12 * UTILISATION
        update, other = self.update_flops / rate, self.other_flops / rate
        if self.update_flops:
            moved = self.streamed[0] * self.update_passes / TRANSFER
            slowed = max(1.0, moved / update)
            update, other = update * slowed, other * slowed
        return update, update * self.settings.updates + other

    @property
    def total_to_generate(self) -> float:
        """The same for sampling and decoding alone, by one adapter."""
        trained = self.adapters + self.optimizers
        phases = [
            size - (trained if name != "embed" else 0) for name, size in self.phases.items() if name not in GRADIENT
        ]
        return (max(phases) + self.adapters) * (1 + FRAGMENTS) + CONTEXT_BYTES

    @property
    def flops(self) -> float:
        """Of the whole round; at most, if some of its updates are the surrogate's alone."""
        return self.update_flops * self.settings.updates + self.other_flops


class _StandIn(torch.autograd.Function):
    """Allocates what a pass of the transformer would, and computes nothing."""

    @staticmethod
    def forward(ctx, planner: _Planner, x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        cost, n = planner.costs["gradient"], planner.rows(x)
        planner.counter.touch(cost.forward.at(n))
        planner.flops += cost.flops.at(n)
        held = torch.empty(int(cost.held.at(n)), dtype=torch.uint8)
        ctx.save_for_backward(held)
        ctx.planner, ctx.n = planner, n
        ctx.shapes = [(t.shape, t.dtype) for t in (x, *parameters)]
        return torch.empty(x.shape, dtype=torch.float32)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        planner, cost = ctx.planner, ctx.planner.costs["gradient"]
        planner.counter.touch(cost.backward.at(ctx.n))
        planner.flops += cost.backward_flops.at(ctx.n)
        planner.counter.let_go(ctx.saved_tensors[0])
        asked = zip(ctx.shapes, ctx.needs_input_grad[1:], strict=True)
        return None, *(torch.empty(shape, dtype=dtype) if wanted else None for (shape, dtype), wanted in asked)


@contextmanager
def _unmoved() -> Iterator[None]:
    """`Module.to` leaves everything as it is: torch cannot move modules whose tensors have no values, nor need they be."""
    to = torch.nn.Module.to
    torch.nn.Module.to = lambda self, *arguments, **options: self
    try:
        yield
    finally:
        torch.nn.Module.to = to


@dataclass(frozen=True)
class _Run:
    """Blocks of one kind that follow each other in a list of the network, of which only the first two are kept."""

    name: str  # of the list
    second: int  # where the second one is, in what is kept
    left_out: int


def _shorten(inner: Backend) -> list[_Run]:
    """Take out of the network's lists the blocks that are as the two before them; returns what was taken."""
    runs: list[_Run] = []
    for name in getattr(inner, "block_lists", ()):
        kept, like = [], []
        for block in getattr(inner.transformer, name):
            kind = (type(block), tuple(p.shape for p in block.parameters()))
            if like[-2:] == [kind, kind]:
                if not (runs and runs[-1].name == name and runs[-1].second == len(kept) - 1):
                    runs.append(_Run(name, len(kept) - 1, 0))
                runs[-1] = dataclasses.replace(runs[-1], left_out=runs[-1].left_out + 1)
                continue
            kept.append(block)
            like.append(kind)
        setattr(inner.transformer, name, torch.nn.ModuleList(kept))
    return runs


class _Outline:
    """A model in one precision, of tensors without values, and the method on it: made once for all plans that differ in
    other options. What a pass costs is measured when it is first asked for."""

    def __init__(self, model: Path, settings: TDMR1Settings, memory: MemorySettings, device: str):
        self.device, self.counter, self.dtype = device, Allocations(), frozen_dtype(memory)
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        accelerator = Accelerator(cpu=True)
        self.runs: list[_Run] = []
        with _unmoved():
            self.backend = load_backend(
                model,
                memory=MemorySettings(half=memory.half),
                shapes=self.mode,
                shorten=lambda inner: self.runs.extend(_shorten(inner)),
            )
        self.encoders = text_encoders(model)
        pipeline, component = self.backend.pipeline, self.backend.component
        self.weights = {
            kind: {name: self._bytes(name, kind) for name in (component, "vae", *self.encoders)} for kind in WEIGHTS
        }
        self.blocks = {kind: self._blocks(kind) for kind in WEIGHTS}
        # Of each part that `shard` deals out: bytes of its blocks, and of its largest one.
        self.dealt = {component: self._dealt(self.blocks["none"])} if self.blocks["none"] else {}
        for name in self.encoders:
            blocks = encoder_blocks(getattr(pipeline, name))
            self.dealt[name] = self._dealt([sum(p.nbytes for p in block.parameters()) for block in blocks])
        largest = max(p.numel() for p in self.backend.transformer.parameters())
        # A coded layer is decoded while it computes; nf4's codes are widened for it, to two bytes a weight.
        size = largest * self.dtype.itemsize
        self.decoded = {"none": 0, "int8": size, "fp8": size, "nf4": size + 2 * largest}
        with self.mode, self.counter, torch.no_grad():
            size, rows = encode_batch(device), []
            self.encode_flops = self.count(lambda: rows.append(self.backend.inner.outline(size))) / size
            self.row = rows.pop().map(lambda t: t[:1].clone())
            self.embed_peak = self.counter.peak
        steps = SampleSettings().steps
        levels = self.backend.grid(steps)  # schedulers and the sampler read values
        self.backend.inner.grid = lambda steps: levels
        # Every image may have a reward term, and every update may do all that one does.
        self.most = dataclasses.replace(settings, trunc_steps=steps, surrogate_first=0.0)
        with _unmoved(), self.mode:
            self.method = method_class(self.most)(self.backend, self.most, accelerator=accelerator)
        processor = pipeline.image_processor
        made = processor.postprocess
        processor.postprocess = lambda pixels, **_: made(pixels, output_type="pt")  # Pillow wants values
        self._layers = {role: self.method.roles.parameters(role) for role in self.method.roles.names}
        self._merge_adapters()
        self._costs: dict[tuple, PassCost] = {}

    def _block(self, run: _Run) -> torch.nn.Module:
        return getattr(self.backend.transformer, run.name)[run.second]

    def _bytes(self, name: str, kind: str) -> int:
        """Of a part of the whole pipeline, with its frozen linear layers held as `kind`."""
        part, component = getattr(self.backend.pipeline, name), self.backend.component
        if name == "vae":
            return _size(part)
        kept = self.backend.inner.sensitive if name == component else ENCODERS_SENSITIVE
        size = _size(part) - saved(part, kind, kept)
        if name == component:
            size += sum(run.left_out * self._block_bytes(run, kind) for run in self.runs)
        return size

    def _block_bytes(self, run: _Run, kind: str) -> int:
        block = self._block(run)
        return _size(block) - saved(block, kind, self.backend.inner.sensitive, run.name)

    def _blocks(self, kind: str) -> list[int]:
        """Bytes of every streamed block, as the whole network has them; none where the family names no blocks."""
        try:
            parts = self.backend.inner.streamed_blocks()
        except ValueError:
            return []
        sizes = [_size(part) - saved(part, kind, self.backend.inner.sensitive, "blocks") for part in parts]
        return sizes + [self._block_bytes(run, kind) for run in self.runs for _ in range(run.left_out)]

    @staticmethod
    def _dealt(sizes: list[int]) -> tuple[int, int]:
        return sum(sizes), max(sizes, default=0)

    def _merge_adapters(self) -> None:
        """Give the roles one tensor each, of as many numbers as all of their layers in the whole network have: an update's
        memory is the same, and a hundred thousand operations are saved."""
        roles, sizes = self.method.roles, {}
        for role in roles.names:
            sizes[role] = sum(p.numel() for p in self._layers[role])
            for run in self.runs:
                own = {id(p) for p in self._layers[role]}
                sizes[role] += run.left_out * sum(p.numel() for p in self._block(run).parameters() if id(p) in own)
        with self.mode, self.counter:
            for role, size in sizes.items():
                roles._parameters[role] = [torch.nn.Parameter(torch.empty(size), not role.endswith("_ema"))]
            for role, optimizer in self.method.optimizers.items():
                optimizer.param_groups[0]["params"] = roles.parameters(role)
                self.method.step(role, (), Part.whole(1))  # an update without gradient makes the states

    def count(self, run: Callable) -> float:
        """FLOPs of a call."""
        before = self.counter.flops
        run()
        return self.counter.flops - before

    def conditioning(self, count: int) -> Conditioning:
        """What `Managed.encode` gives for `count` prompts."""
        self.backend._rows = dict.fromkeys(("", PROMPT), self.row)
        made = self.backend.encode([PROMPT] * count)
        if made.lengths is None:
            return made
        with unset_fake_temporarily():  # a pass reads them
            lengths = torch.full((count,), self.row.embeds.shape[1])
        return Conditioning(made.embeds, made.pooled, lengths)

    def costs(self, memory: MemorySettings) -> dict[str, PassCost]:
        """The costs of a pass without adapter, with one, with gradient, and for people's eyes, which is not in bf16; and of
        decoding. What the memory settings do not change is measured once."""
        # What moves between the machine's memory and the device is accounted for, not moved; nothing is coded or compiled.
        again = memory.checkpointing or memory.streamed > 0
        here = {"text_encoders": "keep", "vae_offload": False, "embeddings": "", "compile": False, "streamed": 0}
        here |= {"weights": "none"}
        self.backend.adapt(dataclasses.replace(memory, **here, checkpointing=again))
        adapter = self._once(("adapter",), lambda: self._pass(STUDENT, gradient=False))
        return {
            "bare": self._once(("bare",), lambda: self._pass(TEACHER, gradient=False)),
            "adapter": adapter,
            "fp32": adapter if memory.half or not bf16_pays(self.device) else adapter.doubled(),
            "gradient": self._once(("gradient", again), lambda: self._pass(STUDENT, gradient=True)),
            "decode bf16": self._once(("decode bf16", memory.vae_tiling), lambda: self._decoding(bf16=True)),
            "decode fp32": self._once(("decode fp32", memory.vae_tiling), lambda: self._decoding(bf16=False)),
        }

    def _once(self, key: tuple, measure: Callable[[], PassCost]) -> PassCost:
        if key not in self._costs:
            with self.mode, self.counter:
                self._costs[key] = measure()
        return self._costs[key]

    def _pass(self, role: str, *, gradient: bool) -> PassCost:
        found = [self._pass_at(role, n, gradient) for n in (1, 2)]
        return PassCost(*(Line(*values) for values in zip(*found, strict=True)))

    def _pass_at(self, role: str, n: int, gradient: bool) -> tuple[float, float, float, float, float]:
        self.method.roles.use(role)
        counter, half = self.counter, self.backend.memory.half
        x, t, conditioning = torch.empty((n, *self.backend.latent_shape)), torch.empty(n), self.conditioning(n)
        made = []

        def forward() -> None:
            with autocast(self.backend.device, forced=half), torch.set_grad_enabled(gradient):
                made.append(self.backend.one_pass(x, t, conditioning))

        counter.reset()
        before = counter.live
        with self._repeats() as repeated:
            flops = self.count(forward)
        forward_peak, held = counter.peak - before, counter.live - before - made[0].nbytes
        held_by_left_out, kept_by_left_out, flops_left_out = (
            sum(times * each[i] for times, each in repeated) for i in range(3)
        )
        whole_flops = flops + flops_left_out
        if not gradient:
            return 0, forward_peak + kept_by_left_out, 0, whole_flops, 0
        seed = torch.empty_like(made[0])
        counter.reset()
        before = counter.live
        # Where blocks were left out, adapters of the last one that stayed may reach nothing (Qwen-Image).
        options = {"allow_unused": bool(self.runs)}
        backward_flops = self.count(lambda: torch.autograd.grad(made.pop(), self._layers[role], seed, **options))
        backward_peak = counter.peak - before
        return (
            held + held_by_left_out,
            forward_peak + held_by_left_out,
            backward_peak,
            whole_flops,
            backward_flops * whole_flops / flops,  # a block's share of both is the same
        )

    @contextmanager
    def _repeats(self) -> Iterator[list[tuple[int, list[float]]]]:
        """Meanwhile the list gets, of each run of blocks, how many were left out, and of its second one the bytes that
        lived on after its forward pass, those that are not its output (autocast's copies of adapters), and FLOPs."""
        found: list[tuple[int, list[float]]] = []
        hooks = []
        for run in self.runs:
            each: list[float] = []
            found.append((run.left_out, each))

            def begin(module, inputs, each=each) -> None:
                each[:] = [-self.counter.live, 0.0, -self.counter.flops]

            def end(module, inputs, output, each=each) -> None:
                held = each[0] + self.counter.live
                given = sum(t.nbytes for t in tree_leaves(output) if isinstance(t, torch.Tensor))
                each[:] = [held, max(0.0, held - given), each[2] + self.counter.flops]

            block = self._block(run)
            hooks += [block.register_forward_pre_hook(begin), block.register_forward_hook(end)]
        try:
            yield found
        finally:
            for hook in hooks:
                hook.remove()

    def _decoding(self, *, bf16: bool) -> PassCost:
        found = []
        for n in (1, 2):
            latents = torch.empty((n, *self.backend.latent_shape))
            self.counter.reset()
            before = self.counter.live
            flops = self.count(lambda latents=latents: self.backend.inner.decode(latents, bf16=bf16))
            found.append((self.counter.peak - before, flops))
        peak, flops = (Line(*values) for values in zip(*found, strict=True))
        return PassCost(Line(), peak, Line(), flops, Line())


class _Planner:
    """A plan for one set of memory settings, by the trainer's own update on an outline."""

    def __init__(self, outline: _Outline, settings: TDMR1Settings, memory: MemorySettings, processes: int):
        self.outline, self.settings, self.memory, self.processes = outline, settings, memory, processes
        self.counter, self.method, self.backend, self.flops = outline.counter, outline.method, outline.backend, 0.0
        self.plan = Plan(
            settings, memory, trained=self.backend.component, weights=dict(outline.weights[memory.weights])
        )
        roles, method = self.method.roles, self.method
        own = list(method.head.parameters()) if method.explicit else []
        self.plan.adapters = sum(p.nbytes for role in roles.names for p in roles.parameters(role))
        self.plan.adapters += sum(p.nbytes for p in own)
        self.plan.optimizers = sum(2 * p.nbytes for role in method.optimizers for p in method.trained(role))
        if (memory.streamed or memory.shard) and not outline.blocks[memory.weights]:
            option = "shard" if memory.shard else "streamed"
            raise ValueError(f"{option}: {type(self.backend.inner).__name__} does not name its blocks; turn it off")
        if memory.shard:
            self.plan.processes = processes
        if memory.streamed:
            blocks = outline.blocks[memory.weights]
            self.plan.streamed = (sum(blocks), memory.streamed * max(blocks))

    def _resident(self, phase: str) -> dict[str, int]:
        """Bytes of the frozen weights that are on the device in a phase, by part; on a CPU the machine's memory is one."""
        found, memory, on_cpu = dict(self.plan.weights), self.memory, self.outline.device == "cpu"
        component = self.backend.component
        if memory.streamed:
            waiting, ring = self.plan.streamed
            found[component] += ring - (0 if on_cpu else waiting)
        gathered = 0  # what is whole for a while: the block that computes, the next one, and what it comes in
        for name, (blocks, largest) in self.outline.dealt.items() if memory.shard else ():
            found[name] -= blocks - share_of(blocks, self.processes)
            if (name == component) == (phase != "embed"):
                gathered = max(gathered, GATHERED * largest)
        away = {"keep": False, "offload": not on_cpu, "free": True}[memory.text_encoders]
        for name in self.outline.encoders if away and phase != "embed" else ():
            del found[name]
        if away and phase == "embed" and not on_cpu:
            del found[component]
        if memory.vae_offload and not on_cpu and phase != "decode":
            del found["vae"]
        if gathered:
            found["blocks gathered"] = gathered
        return found

    def rows(self, x: torch.Tensor) -> int:
        """How many of a batch this process passes through the network."""
        return share_of(len(x), self.processes) if self.memory.shard else len(x)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self.counter.reset()
        before = self.counter.live
        yield
        self._note(name, self.counter.peak)
        if name == "decode":
            self.plan.decode = max(self.plan.decode, self.counter.peak - before)

    def _note(self, name: str, peak: int) -> None:
        """Of a phase the most bytes beyond the frozen weights."""
        plan, resident = self.plan, self._resident(name)
        peak += sum(resident.values())
        if peak > max(plan.phases.values(), default=0):
            plan.resident = resident
            trained = plan.adapters + plan.optimizers if name != "embed" else 0
            plan.activations = max(0, peak - sum(resident.values()) - trained - plan.trajectories)
        plan.phases[name] = max(peak, plan.phases.get(name, 0))

    def _decode(self, latents: torch.Tensor, *, bf16: bool) -> list:
        cost = self.costs["decode bf16" if bf16 else "decode fp32"]
        self.counter.touch(cost.forward.at(len(latents)))
        self.flops += cost.flops.at(len(latents))
        return []

    def _stand_in(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        roles = self.method.roles
        self.passes += 2 if torch.is_grad_enabled() else 1  # blocks come back for the backward pass
        if torch.is_grad_enabled():
            return _StandIn.apply(self, x, *roles.parameters(roles.active))
        adapted = "adapter" if torch.is_autocast_enabled("cpu") else "fp32"
        cost = self.costs["bare" if roles.active == TEACHER else adapted]
        self.counter.touch(cost.forward.at(self.rows(x)))
        self.flops += cost.flops.at(self.rows(x))
        return torch.empty(x.shape, dtype=torch.float32)

    def _tokens_stand_in(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """What a head reads of such a pass: one number a channel of its blocks."""
        head = self.method.head
        self.method.roles.use(head.role)
        half = self.memory.half
        with autocast(self.backend.device, head.bf16 or half, forced=half):
            made = self._stand_in(x, t, conditioning)
        return made.flatten(1)[:, :1].expand(-1, head.width)

    def run(self) -> Plan:
        """An update, once the optimizers have their states, and what is sampled for people and for validation."""
        s, plan, inner = self.settings, self.plan, self.backend.inner
        decoded = self.outline.decoded[self.memory.weights]
        self.costs = {
            name: cost if name.startswith("decode") else cost.above(decoded)
            for name, cost in self.outline.costs(self.memory).items()
        }
        self._note("embed", self.outline.embed_peak + decoded)
        self.passes = 0
        inner.velocity, inner.decode = self._stand_in, self._decode
        if self.method.explicit:
            self.method.head._tokens = self._tokens_stand_in
        try:
            with self.outline.mode, self.counter:
                self._update()
                plan.update_flops, plan.update_passes = self.flops, self.passes
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
                    if (
                        s.alarm
                    ):  # passes of about the sampler's cost: four a look and image, two of them also of the parent
                        plan.other_flops += sampled / self.method.steps * watched.DRAWS * (4 * looks + 2)
        finally:
            del inner.velocity, inner.decode
            if self.method.explicit:
                del self.method.head._tokens
        if self.method.explicit:
            plan.other_flops += self._fit_flops()
        plan.other_flops += self.outline.encode_flops * s.updates * s.prompts_per_update
        return plan

    def _fit_flops(self) -> float:
        """Of the head's fit to groups that are sampled and scored for it, before the first update."""
        s, images = self.settings, self.settings.head_groups * self.settings.group_size
        sampled = self.method.steps * self.costs["adapter"].flops.at(1) + self.costs["decode bf16"].flops.at(1)
        cost = self.costs["gradient"]
        return images * (sampled + s.head_passes * (cost.flops.at(1) + cost.backward_flops.at(1)))

    def _sample_and_decode(
        self, phase: str, count: int, each: int = 1, *, bf16: bool = True, scored: bool = False
    ) -> torch.Tensor:
        """Trajectories of `count` prompts with `each` images, of which all are decoded; the method's own if `scored`."""
        with self._phase(phase):
            noise = torch.empty((count * each, *self.backend.latent_shape))
            conditioning = self.outline.conditioning(count).repeat(each)
            if scored:
                trajectory = self.method.roll_out(conditioning, noise, torch.Generator())
            elif bf16:
                trajectory = self.method.sample(conditioning, noise)
            else:
                trajectory = sample_latents(self.backend, conditioning, noise, self.method.levels)
        self.plan.trajectories = max(self.plan.trajectories, trajectory.nbytes)
        with self._phase("decode"):
            self.backend.decode(trajectory[:, -1], bf16=bf16)
        return trajectory

    def _update(self) -> None:
        """A round's own update from an oracle, on groups of which all have signal."""
        s, method = self.outline.most, self.method
        p, g = s.prompts_per_update, s.group_size
        self.outline.conditioning(1)  # from here on every prompt that is encoded is the outline's one
        sampled = [self._sample_and_decode("sample", p, g, scored=True)]

        def batches() -> Iterator[Groups]:
            kept, sampled_now, count = sampled[0].unflatten(0, (p, g)).clone(), torch.arange(p), p
            if method.explicit:  # which looks at as many old groups beside them
                kept, sampled_now, count = kept.repeat(2, 1, 1, 1, 1, 1), None, 2 * p
            conditioning, empty = method.backend.encode([PROMPT] * count), torch.empty(count, g)
            groups = Groups(kept, conditioning, empty, sampled=sampled_now, rewards=empty)
            for _ in range(s.surrogate_updates_for(0)):
                yield groups

        def rollouts() -> Rollouts:
            rows = min(s.student_batch, p * g)
            chosen = sampled.pop()[torch.zeros(rows, dtype=torch.long)]
            return Rollouts(chosen, [PROMPT] * rows, Part.whole(rows))

        method.learn = self._in_phase("surrogate" if SURROGATE in method.roles.names else "student", method.learn)
        method.follow = self._in_phase("student", method.follow)
        try:
            Update(method, s).step(Scored(0, torch.Generator(), batches(), rollouts))
        finally:
            del method.learn, method.follow

    def _in_phase(self, name: str, run: Callable) -> Callable:
        def counted(*arguments):
            with self._phase(name):
                return run(*arguments)

        return counted


def _size(module: torch.nn.Module) -> int:
    return sum(t.nbytes for t in (*module.parameters(), *module.buffers()))


def plan_round(
    model: Path,
    settings: TDMR1Settings,
    memory: MemorySettings,
    *,
    device: str = "cuda",
    size: Size | None = None,
    costs: dict | None = None,
    processes: int = 1,
) -> Plan:
    """Memory and work of a round from an oracle, of images of `size` (None: the model's own); of a round's several the
    largest decides. With `shard` of each of the `processes`. `device` "cpu" counts the machine's memory, where nothing is
    elsewhere. `costs` keeps what was measured for the next call. Raises ValueError on a folder that is no model, and on a
    size that it cannot make."""
    costs = {} if costs is None else costs
    key = (Path(model), settings, memory.half, device, size)
    with planned_for(device):
        if key not in costs:
            costs[key] = _Outline(Path(model), settings, memory, device)
        with costs[key].backend.sized(size):
            return _Planner(costs[key], settings, memory, processes).run()


# What to turn on, each beside what was turned on before, until a round fits: first what costs nothing, then what computes
# passes again, then what rounds the weights, then what moves them.
LADDER = (
    {"half": True},
    {"text_encoders": "free", "vae_batch": 2},
    {"micro_batch": 16},
    {"micro_batch": 4},
    {"micro_batch": 16, "checkpointing": True},
    {"micro_batch": 4},
    {"micro_batch": 1, "vae_batch": 1, "vae_offload": True},
    {"micro_batch": 4, "weights": "int8"},
    {"micro_batch": 1},
    {"micro_batch": 4, "streamed": 2},
    {"micro_batch": 1},
    {"weights": "nf4"},
    {"vae_tiling": True},
)


def rungs(memory: MemorySettings) -> Iterator[MemorySettings]:
    """The ladder's settings from `memory` on. What is already as thrifty stays."""
    taken: dict = {}
    for step in LADDER:
        taken |= step
        changes = dict(taken)
        changes["vae_batch"] = min(changes.get("vae_batch", memory.vae_batch), memory.vae_batch)
        if memory.micro_batch:
            changes["micro_batch"] = min(changes.get("micro_batch") or memory.micro_batch, memory.micro_batch)
        if memory.weights != "none":
            changes["weights"] = memory.weights
        if memory.streamed:
            changes["streamed"] = memory.streamed
        if memory.text_encoders == "offload":
            changes["text_encoders"] = "offload"
        if memory.shard and (changes.get("streamed") or changes.get("weights", "none") != "none"):
            continue
        if changes.get("streamed"):
            changes["compile"] = False
        yield dataclasses.replace(memory, **changes)


def advise(
    model: Path,
    settings: TDMR1Settings,
    memory: MemorySettings,
    limit: float,
    *,
    generate: bool = False,
    size: Size | None = None,
    tell: Callable[[MemorySettings], None] = lambda tried: None,
    costs: dict | None = None,
    processes: int = 1,
) -> tuple[Plan, Plan | None]:
    """The plan as asked for, and the first one up the ladder that fits into `limit` bytes (the same if it does, None if
    none does): a round, or with `generate` sampling alone. `tell` hears of each attempt; `size`, `costs` and `processes`
    as in `plan_round`."""
    costs = {} if costs is None else costs

    def fits(plan: Plan) -> bool:
        return (plan.total_to_generate if generate else plan.total) <= limit

    asked = plan_round(model, settings, memory, size=size, costs=costs, processes=processes)
    if fits(asked):
        return asked, asked
    for tried in rungs(memory):
        tell(tried)
        plan = plan_round(model, settings, tried, size=size, costs=costs, processes=processes)
        if fits(plan):
            return asked, plan
    return asked, None


def fitted(
    model: Path | str,
    memory: MemorySettings,
    device: str,
    settings: TDMR1Settings | None = None,
    size: Size | None = None,
) -> MemorySettings:
    """`memory`, and if it is `auto`, beside that what a round with these settings (None: sampling alone) of images of
    `size` (None: the model's own) needs to fit into what the device has free now. A CPU's machine takes everything as it
    is. Raises ValueError when nothing fits."""
    if not memory.auto:
        return memory
    memory = dataclasses.replace(memory, auto=False)
    if torch.device(device).type != "cuda":
        return memory
    free, _ = torch.cuda.mem_get_info(torch.device(device))
    sampling = TDMR1Settings(guidance=1, rl_cfg=1, prompts_per_update=1, student_batch=1)  # of which no gradient counts
    how = {"generate": settings is None, "size": size, "processes": world() if memory.shard else 1}
    _, found = advise(Path(model), settings or sampling, memory, free, **how)
    if found is None:
        raise ValueError(
            f"auto: {model} does not fit into the {free / GB:.1f} GB that {device} has free under any options; lower "
            "student_batch, or take a larger GPU"
        )
    log.info("memory: %s", options_text(found.memory) or "as it is")
    return found.memory


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
    coded = dtype if plan.memory.weights == "none" else f"{plan.memory.weights} and {dtype}"
    encoders = [name for name in plan.weights if name.startswith("text_encoder")]
    away = not any(name in plan.resident for name in encoders)
    rows = [
        (f"{plan.trained}, {coded}", plan.weights[plan.trained]),
        (
            f"text encoders, {coded}" + (", not there at the peak" if away else ""),
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
    if plan.memory.shard and (size := plan.resident.get(plan.trained)):
        lines.insert(1, f"{f'  of it in each of {plan.processes} processes':<48}{_gb(size):>10}")
    if plan.memory.streamed:
        waiting, ring = plan.streamed
        lines.insert(1, f"{'  of it on the device':<48}{_gb(plan.weights[plan.trained] - waiting + ring):>10}")
        lines.insert(2, f"{'  in pinned memory of the machine':<48}{_gb(waiting):>10}")
    update, everything = plan.seconds(tflops)
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
