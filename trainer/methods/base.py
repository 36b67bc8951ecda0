"""What every way of teaching the student shares: the roles, their optimizers, passes, random numbers and gradient steps.

A method is a class of its own below `trainer/methods`. It says which roles it needs and what it does with groups that have
signal (`learn`) and with trajectories that need no scores (`follow`); `trainer.rounds` decides when it is asked for either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from safetensors.torch import load, save

from common.files import write_atomic
from common.settings import DistillSettings, TDMR1Settings
from common.sizes import Size
from trainer.backends import Backend, Conditioning, autocast, moved
from trainer.backends.lora import Lora
from trainer.data import GroupStore
from trainer.finite import first_not_finite
from trainer.flow import sample_tau
from trainer.losses import SurrogateTerms, denoising_error, surrogate_loss
from trainer.oracles.base import OracleError
from trainer.roles import FAKE, STUDENT, STUDENT_EMA, SURROGATE, Roles
from trainer.sampler import sample_latents
from trainer.shares import Part, Share

FAKE_NAME = "fake.safetensors"  # beside a version's LoRA
TAU_GAP = 0.02  # un-shifted time between a point and the level it is re-noised to
SURROGATE_BETAS = (0.9, 0.999)
DISTRIBUTION_BETAS = (0.0, 0.999)  # student and fake chase each other; momentum would lag behind


class NotFinite(ValueError):
    """A role's loss, gradient or weights hold a NaN or an infinity; what was saved before is still good."""

    def __init__(self, role: str, what: str, update: int | None = None):
        self.role, self.what = role, what
        when = "" if update is None else f" in update {update}"
        verb = "are" if what == "weights" else "is"
        super().__init__(
            f"{role}: its {what} {verb} not finite{when}, so the training stopped and the last checkpoint stays as it was; "
            f"start over with a lower {role}_lr, or look for a damaged model, image or reward"
        )


@dataclass(frozen=True)
class Groups:
    """P groups of G labelled images: trajectories (P, G, K + 1, C, h, w), one conditioning a group, advantages (P, G).
    `rewards` (P, G), NaN where nobody decided, and `prompts` are for methods that learn what a like is, not only which of a
    group's images is better."""

    trajectory: torch.Tensor
    conditioning: Conditioning
    advantages: torch.Tensor
    part: Part | None = None  # which groups of the update these are; None: all
    sampled: torch.Tensor | None = None  # (P,): which groups of the last `roll_out`; None: stored ones
    rewards: torch.Tensor | None = None
    prompts: tuple[str, ...] = ()
    imported: torch.Tensor | None = None  # (P,): of which every point is the image, as nobody knows others; None: none

    def each(self, times: int) -> Groups:
        """Every group `times` times, neighbours together."""
        part = self.part or Part.whole(len(self.advantages))
        sampled = None if self.sampled is None else self.sampled.repeat_interleave(times)
        return Groups(
            self.trajectory.repeat_interleave(times, 0),
            self.conditioning.repeat(times),
            self.advantages.repeat_interleave(times, 0),
            part.each(times),
            sampled,
            None if self.rewards is None else self.rewards.repeat_interleave(times, 0),
            tuple(prompt for prompt in self.prompts for _ in range(times)),
            None if self.imported is None else self.imported.repeat_interleave(times, 0),
        )


def read(values: Mapping[str, torch.Tensor | float]) -> dict[str, float]:
    """The values as numbers. Those that are tensors come over together: each by itself would wait for the device."""
    tensors = {name: value.detach().float() for name, value in values.items() if isinstance(value, torch.Tensor)}
    numbers = dict(zip(tensors, torch.stack(list(tensors.values())).tolist(), strict=True)) if tensors else {}
    return {name: numbers.get(name, value) for name, value in values.items()}


def rate_factor(step: int, total: int, cool_down: float) -> float:
    """What the learning rates are multiplied by in step `step` (from 0) of `total`: 1, then falling in a line to 1 / n in
    the last of the n steps that the last `cool_down` (0..1) of the steps are."""
    return min(1.0, (total - step) / max(1.0, cool_down * total))


@dataclass(frozen=True)
class Rollouts:
    """Trajectories (B, K + 1, C, h, w) of prompts (B) that the student made, for what needs no scores; `part` says which of
    the update's these are."""

    trajectory: torch.Tensor
    prompts: list[str]
    part: Part
    sampled: torch.Tensor | None = (
        None  # (B,): which images of the last `roll_out`; None: they were made for this alone
    )


def read_fake(file: Path) -> dict[str, torch.Tensor]:
    """What `Method.save_fake` wrote. Raises ValueError, naming the file, when it is damaged or not finite."""
    try:
        state = load(file.read_bytes())
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"fake_start: {file} cannot be read ({error}); delete it, or use fake_start teacher"
        ) from error
    if name := first_not_finite(state.items()):
        raise ValueError(f"fake_start: {name} in {file} is not finite; delete it, or use fake_start teacher")
    return state


class Method:
    """How the student is taught: the roles with their optimizers, and an update's two halves, `learn` and `follow`.

    A round asks `roll_out` for images, has them scored, gives the groups with signal to `learn` and, if the method
    `follows`, trajectories to `follow`. With stored labels it asks `learn` alone, or with trajectories made for `follow`.
    """

    name: ClassVar[str]
    roles_needed: ClassVar[tuple[str, ...]]  # trained, or averages; the teacher is always there
    follows: ClassVar[bool] = True  # has a half that needs no scores
    explicit: ClassVar[bool] = False  # its surrogate is a head that scores images, not a likelihood
    takes_imported: ClassVar[bool] = False  # may learn from own images: they never teach the student itself
    own_images: ClassVar[bool] = False  # learns only from images of the update itself, not from stored labels
    one_process: ClassVar[bool] = False  # its update cannot be dealt out to several
    starts_as_student: ClassVar[tuple[str, ...]] = (STUDENT, STUDENT_EMA)
    betas: ClassVar[dict[str, tuple[float, float]]] = {
        STUDENT: DISTRIBUTION_BETAS,
        FAKE: DISTRIBUTION_BETAS,
        SURROGATE: SURROGATE_BETAS,
    }

    def __init__(
        self,
        backend: Backend,
        settings: TDMR1Settings | DistillSettings,
        *,
        parent: Path | None = None,
        steps: int = 4,
        accelerator: Accelerator | None = None,
        bf16: bool = True,
    ):
        """`parent` is the LoRA folder that the student starts from; its rank and alpha win over the settings'. Raises
        ValueError, naming the setting, on what the model or the number of processes does not allow."""
        self.backend, self.settings, self.steps, self.bf16 = backend, settings, steps, bf16
        self.accelerator = accelerator or Accelerator(cpu=backend.device.type == "cpu")
        # Processes that hold a share of the weights act as one: each makes the whole update.
        self.as_one = backend.memory.shard
        self.share = Share(0, 1) if self.as_one else Share.of(self.accelerator)
        if self.one_process and self.share.processes > 1:
            raise ValueError(f"method: {self.name} runs in one process, not in {self.share.processes}")
        if SURROGATE not in self.roles_needed and getattr(settings, "surrogate_first", 0):
            raise ValueError(f"surrogate_first: {self.name} trains no surrogate; set it to 0")
        for name in ("guidance", "rl_cfg"):
            if backend.distilled and getattr(settings, name, 1) > 1:
                raise ValueError(
                    f"{name}: guidance is distilled into this model, so it cannot be guided; set {name} to 1"
                )
        self._grids: dict[Size, tuple[torch.Tensor, torch.Tensor]] = {}  # (on the CPU, on the device)
        lora = Lora({}, settings.rank, settings.alpha, backend.lora_targets)
        if parent is not None:
            lora = backend.load_lora(parent)
        self.rank, self.alpha = lora.rank, lora.alpha
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)  # an adapter's A matrices are random
            self.roles = Roles(
                backend.transformer,
                lora.targets,
                rank=self.rank,
                alpha=self.alpha,
                roles=self.roles_needed,
                gaussian=getattr(settings, "lora_init", "") == "gaussian",
            )
        backend.recompute = self.roles.recompute
        if parent is not None:
            for role in self.starts_as_student:
                self.roles.load_state_dict(role, lora.state)
            if FAKE in self.roles_needed:
                self._start_fake(parent, lora.state)
        rates = {STUDENT: settings.student_lr, FAKE: settings.fake_lr, SURROGATE: getattr(settings, "surrogate_lr", 0)}
        self.optimizers = {
            role: torch.optim.AdamW(
                self.trained(role),
                lr=rates[role],
                betas=self.betas[role],
                weight_decay=settings.weight_decay,
                fused=backend.device.type == "cuda" or None,
            )
            for role in self.roles_needed
            if role in rates
        }
        self.rates = rates
        self._sound: dict[str, torch.Tensor] = {}  # whether a role's weights are finite, since nobody has looked
        # What a resumed round sets beside weights: updates of the surrogate, prompts of groups that are looked at again.
        self.surrogate_count = 0
        self.replayed: list[str] = []

    def _start_fake(self, parent: Path, student: dict[str, torch.Tensor]) -> None:
        """The fake scores the student's images. It starts where the parent's round left it, or at the teacher: from there
        it needs a third of the updates that it needs from the student, which is no score of its own images."""
        start = getattr(self.settings, "fake_start", "carried")
        if start == "student":
            self.roles.load_state_dict(FAKE, student)
        elif start == "carried" and (parent / FAKE_NAME).is_file():
            self.roles.load_state_dict(FAKE, read_fake(parent / FAKE_NAME))

    @property
    def levels(self) -> torch.Tensor:
        """The present size's grid (K + 1,) on the CPU, where the sampler reads its levels one by one."""
        return self._both_grids()[0]

    @property
    def grid(self) -> torch.Tensor:
        """The same on the device."""
        return self._both_grids()[1]

    def _both_grids(self) -> tuple[torch.Tensor, torch.Tensor]:
        if (size := self.backend.size) not in self._grids:
            levels = self.backend.grid(self.steps)
            self._grids[size] = levels, levels.to(self.backend.device)
        return self._grids[size]

    def sized_as(self, latents: torch.Tensor) -> AbstractContextManager[None]:
        """Meanwhile grid, levels and noise are for images of the size of these latents (…, h, w)."""
        return self.backend.sized(self.backend.size_of(latents))

    def trained(self, role: str) -> list[torch.nn.Parameter]:
        """What a step of the role's optimizer moves."""
        return self.roles.parameters(role)

    def by_main(self, make: Callable[[], list[float]]) -> list[float]:
        """What `make` gives; where processes act as one, what it gives in the main one. Raises the main one's OracleError
        in all."""
        if not self.as_one:
            return make()
        told: list = [None, None]
        if self.accelerator.is_main_process:
            try:
                told[0] = make()
            except OracleError as error:
                told[1] = str(error)
        made, error = broadcast_object_list(told)
        if error is not None:
            raise OracleError(error)
        return made

    def use_labels(self, store: GroupStore | None, taught: torch.Tensor | None, *, sampled: bool) -> None:
        """Told before a checkpoint is loaded: the round's stored groups, of which `taught` (n,) may be learned from (None:
        all), and whether its updates make groups of their own, which are `sampled` and scored."""

    def begin(self, sample: Callable[[int], Iterator[Groups]]) -> dict[str, float]:
        """What comes before a round's first update; returns what is worth logging. `sample(count)` gives the groups with
        signal among `count` new ones that are sampled and scored, none where all labels are stored."""
        return {}

    def learn(self, groups: Groups, generator: torch.Generator) -> dict[str, float]:
        """Learn from groups that all have signal; returns what is worth logging. A process that holds none of the update's
        is asked too, since the others wait for its gradients."""
        raise NotImplementedError

    def follow(self, rollouts: Rollouts, generator: torch.Generator) -> dict[str, float]:
        """The half that needs no scores, where the method `follows`; returns what is worth logging."""
        raise NotImplementedError

    def roll_out(self, conditioning: Conditioning, noise: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The trajectories (B, K + 1, C, h, w) of an update, from its first noise."""
        return self.sample(conditioning, noise)

    def sample(self, conditioning: Conditioning, noise: torch.Tensor, *, role: str = STUDENT) -> torch.Tensor:
        """Trajectories (B, K + 1, C, h, w) of a role from `noise`."""
        with self.roles.merged(role):
            solver = getattr(self.settings, "solver", "euler")
            return sample_latents(self.backend, conditioning, noise, self.levels, bf16=self.bf16, solver=solver)

    def velocity(self, role: str, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """A role's velocity, float32; with gradient unless called under no_grad."""
        self.roles.use(role)
        with autocast(self.backend.device, self.bf16):
            return self.backend.velocity(x, t, conditioning)

    @torch.no_grad()
    def fixed_velocity(self, role: str, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """A role's velocity without gradient, float32."""
        with self.roles.merged(role), autocast(self.backend.device, self.bf16):
            return self.backend.velocity(x, t, conditioning)

    def both_branches(self, role: str, x, t, conditioning: Conditioning) -> tuple[torch.Tensor, torch.Tensor]:
        """The same with the prompt and without it."""
        both = conditioning.beside_empty(self.backend.encode([""]))
        return self.fixed_velocity(role, x.repeat(2, 1, 1, 1), t.repeat(2), both).chunk(2)

    def graphs(self, count: int, images: int = 1) -> Iterator[slice]:
        """The rows of `count` units of `images` images each in parts of few images, whose passes each keep what their own
        gradient needs and no more. A loss that is a mean over units has the mean of its parts' gradients."""
        size = max(1, self.backend.graph_images // images) if self.backend.graph_images else count
        return (slice(start, min(start + size, count)) for start in range(0, count, size))

    def tau(self, s: torch.Tensor, u: torch.Tensor, *, low: float = 0.0) -> torch.Tensor:
        """Levels (B,) to re-noise points at levels `s` (B,) to, from uniform numbers `u` (B,); never below `low`."""
        return sample_tau(s, self.backend.shift, gap=TAU_GAP, low=low, high=self.levels[0].item(), u=u)

    def denoising_error(
        self, role: str, x0: torch.Tensor, conditioning: Conditioning, tau: torch.Tensor, eps: torch.Tensor
    ) -> torch.Tensor:
        """See `losses.denoising_error`; (B,)."""
        return denoising_error(lambda x, t: self.fixed_velocity(role, x, t, conditioning), x0, tau, eps)

    def preference_loss(
        self,
        v_star: torch.Tensor,
        v: torch.Tensor,
        reference: torch.Tensor,
        old: torch.Tensor,
        teacher: torch.Tensor,
        advantages: torch.Tensor,
        j: torch.Tensor,
    ) -> SurrogateTerms:
        """`losses.surrogate_loss` by the round's settings, of groups whose points step `j` (P,) led to: later ones count
        more."""
        s, later = self.settings, (j + 1) / self.steps
        whole = s.step_weight == "loss"
        return surrogate_loss(
            v_star,
            v,
            reference,
            old,
            teacher,
            advantages if whole else advantages * later[:, None],
            weights=later if whole else None,
            teacher_clip=s.teacher_clip,
            beta_dpo=s.beta_dpo,
            teacher_weight=s.surrogate_kl,
            clip=s.clip,
            teacher_clip_from=s.teacher_clip_from,
            relative=s.relative,
        )

    def draw_levels(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Levels (count,) that a finished image is re-noised to when the surrogate is asked about it."""
        u = self.uniform(Part.whole(count), generator)
        return self.tau(torch.zeros_like(u), u, low=self.settings.surrogate_t_min)

    def draw_noise(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Noise of `count` images."""
        return self.noise(Part.whole(count), self.backend.latent_shape, generator)

    def set_rate_factor(self, factor: float) -> None:
        """Scale every role's learning rate."""
        for role, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.rates[role] * factor * group.get("times", 1.0)

    def parts(self) -> dict:
        """Every role for a checkpoint, by name."""
        return {role: self.roles.part(role) for role in self.roles.names}

    @contextmanager
    def as_parent(self, folder: Path) -> Iterator[None]:
        """The student's average is the LoRA in this folder meanwhile."""
        now = self.roles.state_dict(STUDENT_EMA)
        self.roles.load_state_dict(STUDENT_EMA, self.backend.load_lora(folder).state)
        try:
            yield
        finally:
            self.roles.load_state_dict(STUDENT_EMA, now)

    def save_student(self, folder: Path) -> Path:
        """Write the student's moving average as a standard diffusers LoRA; returns the file."""
        return self.backend.save_lora(folder, self.roles.state_dict(STUDENT_EMA), rank=self.rank, alpha=self.alpha)

    def save_fake(self, folder: Path) -> None:
        """Write the fake, where there is one, for the round that starts from this version."""
        if FAKE in self.roles_needed:
            write_atomic(folder / FAKE_NAME, save({k: v.cpu() for k, v in self.roles.state_dict(FAKE).items()}))

    # Random numbers are drawn on the CPU, so that a seed gives the same ones on every device, and for the whole batch.
    def noise(self, part: Part, shape, generator: torch.Generator) -> torch.Tensor:
        """This process' rows of normal noise (total, *shape)."""
        return moved(part.pick(torch.randn((part.total, *shape), generator=generator)), self.backend.device)

    def uniform(self, part: Part, generator: torch.Generator) -> torch.Tensor:
        """This process' rows of uniform numbers (total,)."""
        return moved(part.pick(torch.rand(part.total, generator=generator)), self.backend.device)

    def step(self, role: str, losses: Iterable[tuple[torch.Tensor, float]], part: Part) -> float:
        """One step of the role's optimizer on the mean of `losses`, each with the number of units it is a mean of; a
        loss's gradient is taken before the next one is asked for. Returns the mean. Without any, the step is that of a
        process that holds nothing of the update: its gradient is zero. Raises NotFinite on a loss or a gradient;
        `check_weights` looks at what the step came to."""
        parameters, count = self.trained(role), max(1, len(part.index))
        total = parameters[0].new_zeros(())
        grads = [torch.zeros_like(p) for p in parameters]
        for loss, units in losses:
            share = units / count * part.weight(self.share.processes)
            # A head reads no further than its last tap: what comes after has no gradient.
            torch._foreach_add_(grads, torch.autograd.grad(loss * share, parameters, materialize_grads=self.explicit))
            total = total + loss.detach() * (units / count)
        if self.share.processes > 1:
            grads = [self.accelerator.reduce(g, "mean") for g in grads]
        elif self.as_one:  # each has passed its share of the rows
            grads = [self.accelerator.reduce(g, "sum") for g in grads]
        for p, grad in zip(parameters, grads, strict=True):
            p.grad = grad
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip_norm)
        # The one time that a step waits for the device: whether it may be made at all.
        numbers = read({"loss": total, "gradient": norm})
        for what, number in numbers.items():
            if not math.isfinite(number):
                raise NotFinite(role, what)
        self.optimizers[role].step()
        self.optimizers[role].zero_grad(set_to_none=True)
        self._sound[role] = torch.stack(torch._foreach_norm(parameters)).isfinite().all()
        return numbers["loss"]

    def check_weights(self) -> None:
        """Look at the weights of all roles that were trained since the last look, once. Raises NotFinite."""
        sound, self._sound = self._sound, {}
        for role, finite in read(sound).items():
            if not finite:
                raise NotFinite(role, "weights")
