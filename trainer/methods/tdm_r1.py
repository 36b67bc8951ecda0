"""One update of TDM-R1: sample, fake, surrogate, student, in that order (arXiv 2603.07700).

Without the surrogate roles the same code is TDM, which distils the base into the first few-step student. All randomness of
update n comes from a generator seeded with (seed, n), so a resumed run repeats an unbroken one bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from common.settings import DistillSettings, TDMR1Settings
from trainer.backends import Backend, Conditioning, autocast
from trainer.flow import (
    conditional_velocity,
    guided,
    like,
    renoise,
    sample_tau,
    x0_from_velocity,
)
from trainer.losses import StudentTargets, SurrogateTerms, fake_loss, mean_square, student_loss, surrogate_loss
from trainer.roles import FAKE, STUDENT, STUDENT_EMA, SURROGATE, SURROGATE_EMA, TDM_R1_ROLES, TEACHER, Roles
from trainer.sampler import sample_latents
from trainer.shares import Part, Share

TARGET = "target"  # the conditional velocity, beside the roles' own
TAU_GAP = 0.02  # un-shifted time between a point and the level it is re-noised to
SURROGATE_BETAS = (0.9, 0.999)
DISTRIBUTION_BETAS = (0.0, 0.999)  # student and fake chase each other; momentum would lag behind


@dataclass(frozen=True)
class Groups:
    """P groups of G labelled images: trajectories (P, G, K + 1, C, h, w), one conditioning a group, advantages (P, G)."""

    trajectory: torch.Tensor
    conditioning: Conditioning
    advantages: torch.Tensor
    part: Part | None = None  # which groups of the update these are; None: all


def rate_factor(step: int, total: int, cool_down: float) -> float:
    """What the learning rates are multiplied by in step `step` (from 0) of `total`: 1, then falling in a line to 1 / n in
    the last of the n steps that the last `cool_down` (0..1) of the steps are."""
    return min(1.0, (total - step) / max(1.0, cool_down * total))


def step_orders(count: int, steps: int, generator: torch.Generator, *, rewarded: int, share: float) -> torch.Tensor:
    """In which order the steps of each trajectory are trained, (count, steps), random. With a `share` above 0, the first
    `rewarded` steps come before all others in that share of the orders, and after them in the rest."""
    orders = torch.stack([torch.randperm(steps, generator=generator) for _ in range(count)])
    if share and 0 < rewarded < steps:
        early = torch.rand(count, 1, generator=generator) < share
        later = (orders < rewarded) != early
        orders = orders.gather(1, later.int().argsort(dim=1, stable=True))
    return orders


class TDMR1:
    """The roles, their optimizers and the update's parts; loops live in `distill.py` and `rounds.py`."""

    def __init__(
        self,
        backend: Backend,
        settings: TDMR1Settings | DistillSettings,
        *,
        roles: tuple[str, ...] = TDM_R1_ROLES,
        parent: Path | None = None,
        steps: int = 4,
        accelerator: Accelerator | None = None,
        bf16: bool = True,
    ):
        """`parent` is the LoRA folder that the student starts from; its rank and alpha win over the settings'."""
        self.backend, self.settings, self.steps, self.bf16 = backend, settings, steps, bf16
        self.accelerator = accelerator or Accelerator(cpu=backend.device.type == "cpu")
        self.share = Share.of(self.accelerator)
        for name in ("guidance", "rl_cfg"):
            if backend.distilled and getattr(settings, name, 1) > 1:
                raise ValueError(
                    f"{name}: guidance is distilled into this model, so it cannot be guided; set {name} to 1"
                )
        self.levels = backend.grid(steps)  # on the CPU, where the sampler reads them one by one
        self.grid = self.levels.to(backend.device)
        state, self.rank, self.alpha = None, settings.rank, settings.alpha
        if parent is not None:
            state, self.rank, self.alpha = backend.load_lora(parent)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)  # an adapter's A matrices are random
            self.roles = Roles(backend.transformer, backend.lora_targets, rank=self.rank, alpha=self.alpha, roles=roles)
        backend.recompute = self.roles.recompute
        if state is not None:
            # The fake score starts where the student is: it must score the student's distribution, not the teacher's.
            for role in (STUDENT, STUDENT_EMA, FAKE):
                self.roles.load_state_dict(role, state)
        rates = {STUDENT: settings.student_lr, FAKE: settings.fake_lr, SURROGATE: getattr(settings, "surrogate_lr", 0)}
        self.optimizers = {
            role: torch.optim.AdamW(
                self.roles.parameters(role),
                lr=rates[role],
                betas=SURROGATE_BETAS if role == SURROGATE else DISTRIBUTION_BETAS,
                weight_decay=settings.weight_decay,
            )
            for role in roles
            if role in rates
        }
        self.rates = rates
        self.surrogate_count = 0

    def sample(self, conditioning: Conditioning, noise: torch.Tensor, *, role: str = STUDENT) -> torch.Tensor:
        """Trajectories (B, K + 1, C, h, w) of a role from `noise`."""
        with self.roles.merged(role):
            return sample_latents(self.backend, conditioning, noise, self.levels, bf16=self.bf16)

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

    def _cond_and_uncond(self, role: str, x, t, conditioning: Conditioning) -> tuple[torch.Tensor, torch.Tensor]:
        both = Conditioning.concatenate([conditioning, self.backend.encode([""]).repeat(len(conditioning))])
        return self.fixed_velocity(role, x.repeat(2, 1, 1, 1), t.repeat(2), both).chunk(2)

    def student_update(
        self,
        trajectory: torch.Tensor,
        conditioning: Conditioning,
        j: torch.Tensor,
        generator: torch.Generator,
        part: Part | None = None,
    ) -> dict[str, float]:
        """Train fake and student on step `j` (B,) of trajectories (B, K + 1, C, h, w).

        The student's pass is made once, with gradient, and serves the fake's target too; the fake and the teacher look at
        one re-noised point, so the teacher's conditional pass serves both losses. `part` tells which rows of the whole
        update these are (None: all). Returns what is worth logging.
        """
        s = self.settings
        part = part or Part.whole(len(j))
        if not len(j):  # this process holds nothing of the update, but the others wait for its gradients
            self._step(FAKE, (), part)
            self._step(STUDENT, (), part)
            self.roles.average(STUDENT, STUDENT_EMA, s.ema)
            return {}
        rows = torch.arange(len(j), device=trajectory.device)
        x_j, s_j, s_n = trajectory[rows, j], self.grid[j], self.grid[j + 1]
        v = self.velocity(STUDENT, x_j, s_j, conditioning)
        x0_hat = x0_from_velocity(x_j, s_j, v)
        x_n = (x_j - like(s_j - s_n, x_j) * v).detach()
        tau = self._tau(s_n, self._uniform(part, generator))
        x_tau = renoise(x_n, s_n, tau, self._noise(part, x_n.shape[1:], generator))
        teacher_cond, teacher_uncond = self._cond_and_uncond(TEACHER, x_tau, tau, conditioning)

        def fake_losses() -> Iterator[tuple[torch.Tensor, int]]:
            for i in self._graphs(len(j)):
                v_fake = self.velocity(FAKE, x_tau[i], tau[i], conditioning.take(i))
                held = (x_tau[i], tau[i], x0_hat[i].detach(), teacher_cond[i])
                yield fake_loss(v_fake, *held, teacher_weight=s.fake_teacher), len(v_fake)

        loss_fake = self._step(FAKE, fake_losses(), part)
        v_fake = self.fixed_velocity(FAKE, x_tau, tau, conditioning)

        x0_of = [x0_from_velocity(x_tau, tau, v) for v in (teacher_cond, teacher_uncond, v_fake)]
        if SURROGATE in self.roles.names:
            rewarded = j < s.trunc_steps
            # Where every step is rewarded no value has to be looked at, which `trainer.plan` could not do.
            where = slice(None) if s.trunc_steps >= self.steps else rewarded.nonzero().flatten()
            pair = self._reward_targets(x_n, s_n, conditioning, generator, part, where)
            targets = StudentTargets(*x0_of, **pair)
            weights = {"guidance_weight": s.guidance_weight, "reward_on": rewarded.float()}
        else:
            targets, weights = StudentTargets(*x0_of), {"guidance_weight": 1.0}
        loss, terms = student_loss(x0_hat, targets, guidance=s.guidance, **weights)
        self._step(STUDENT, [(loss, len(j))], part)
        self.roles.average(STUDENT, STUDENT_EMA, s.ema)
        return {
            "fake": loss_fake,
            "student": loss.item(),
            **{f"student_{k}": v.item() for k, v in terms.items()},
        }

    @torch.no_grad()
    def _reward_targets(self, x_n, s_n, conditioning: Conditioning, generator, part, where) -> dict[str, torch.Tensor]:
        """The reward term's pair, computed for the rows `where` (a slice or indices) and 0 elsewhere. The preference loss
        moves the surrogate's conditional and unconditional predictions alike, since one adapter makes both; its own
        guidance, which takes their difference, cancels what they share. With the teacher's guidance the whole of what was
        learned counts, `reward_scale` times."""
        s = self.settings
        tau = self._tau(s_n, self._uniform(part, generator), low=s.t_min)
        eps = self._noise(Part.whole(1), x_n.shape[1:], generator).expand_as(x_n)
        pair = {name: torch.zeros_like(x_n) for name in ("surrogate_cfg", "reference")}
        x_n, s_n, tau, eps = (values[where] for values in (x_n, s_n, tau, eps))
        if not len(x_n):
            return pair
        conditioning = conditioning.take(where)
        x_tau = renoise(x_n, s_n, tau, eps)
        if s.reward_guidance == "surrogate":
            target = guided(*self._cond_and_uncond(SURROGATE, x_tau, tau, conditioning), s.rl_cfg)
            reference = self.fixed_velocity(self.reference, x_tau, tau, conditioning)
        else:
            cond, uncond = self._cond_and_uncond(TEACHER, x_tau, tau, conditioning)
            learned = self.fixed_velocity(SURROGATE, x_tau, tau, conditioning) - cond
            target = guided(cond, uncond, s.rl_cfg) + s.reward_scale * learned
            frozen = self.reference == TEACHER
            reference = cond if frozen else self.fixed_velocity(self.reference, x_tau, tau, conditioning)
        for name, velocity in zip(pair, (target, reference), strict=True):
            pair[name][where] = x0_from_velocity(x_tau, tau, velocity)
        return pair

    @property
    def reference(self) -> str:
        """The role that the likelihood gain is measured against."""
        return SURROGATE_EMA if self.settings.reference == "ema" else TEACHER

    def surrogate_update(self, groups: Groups, generator: torch.Generator) -> dict[str, float]:
        """Train the surrogate on labelled groups by group preference, then move its EMA.

        The point of the trajectory is drawn per group, later points more often (step j with probability proportional to
        j + 1), and time and noise are shared by the group. Groups without signal must have been left out by the caller.
        """
        s = self.settings
        p, g = groups.advantages.shape
        part = groups.part or Part.whole(p)
        if not p:
            self._step(SURROGATE, (), part)
            self._follow_surrogate()
            return {}
        weights = torch.arange(1, self.steps + 1, dtype=torch.float32)
        j = part.pick(torch.multinomial(weights, part.total, replacement=True, generator=generator))
        j = j.to(self.backend.device)
        rows = torch.arange(p, device=j.device)
        x_n, s_n = groups.trajectory[rows, :, j + 1], self.grid[j + 1]
        tau = self._tau(s_n, self._uniform(part, generator), low=s.t_min)
        eps = self._noise(part, (1, *x_n.shape[2:]), generator).expand_as(x_n).flatten(0, 1)
        x_n, s_n, tau = x_n.flatten(0, 1), s_n.repeat_interleave(g), tau.repeat_interleave(g)
        x_tau = renoise(x_n, s_n, tau, eps)
        conditioning = groups.conditioning.repeat(g)
        fixed = {TARGET: conditional_velocity(x_n, s_n, tau, eps)}
        fixed |= {role: self.fixed_velocity(role, x_tau, tau, conditioning) for role in (SURROGATE_EMA, TEACHER)}
        weighted = groups.advantages * ((j + 1) / self.steps)[:, None]
        parts: list[SurrogateTerms] = []

        def losses() -> Iterator[tuple[torch.Tensor, int]]:
            for some in self._graphs(p, g):
                images = slice(some.start * g, some.stop * g)
                v = self.velocity(SURROGATE, x_tau[images], tau[images], conditioning.take(images))
                held = {name: t[images].unflatten(0, (-1, g)) for name, t in fixed.items()}
                parts.append(
                    surrogate_loss(
                        held[TARGET],
                        v.unflatten(0, (-1, g)),
                        held[self.reference],
                        held[SURROGATE_EMA],
                        held[TEACHER],
                        weighted[some],
                        beta_dpo=s.beta_dpo,
                        teacher_weight=s.surrogate_kl,
                        clip=s.clip,
                        teacher_clip_from=s.teacher_clip_from,
                        relative=s.relative,
                    )
                )
                yield parts[-1].loss, len(v) // g

        self._step(SURROGATE, losses(), part)
        self._follow_surrogate()
        terms = SurrogateTerms.join(parts)
        liked, disliked = (groups.advantages > 0).float(), (groups.advantages < 0).float()
        return {
            "surrogate": terms.loss.item(),
            "group_weight": terms.group_weight.mean().item(),
            "active": terms.active.item(),
            "distance": terms.distance.item(),
            "margin": (_mean(terms.gain, liked) - _mean(terms.gain, disliked)).item(),
        }

    def _graphs(self, count: int, images: int = 1) -> Iterator[slice]:
        """The rows of `count` units of `images` images each in parts of few images, whose passes each keep what their own
        gradient needs and no more. A loss that is a mean over units has the mean of its parts' gradients."""
        size = max(1, self.backend.graph_images // images) if self.backend.graph_images else count
        return (slice(start, min(start + size, count)) for start in range(0, count, size))

    def _follow_surrogate(self) -> None:
        self.surrogate_count += 1
        self.roles.average(SURROGATE, SURROGATE_EMA, min(0.3, 0.001 + 0.001 * self.surrogate_count))

    def _tau(self, s: torch.Tensor, u: torch.Tensor, *, low: float = 0.0) -> torch.Tensor:
        return sample_tau(s, self.backend.shift, gap=TAU_GAP, low=low, high=self.levels[0].item(), u=u)

    @torch.no_grad()
    def likelihood_gain(self, groups: Groups, *, draws: int = 4, generator: torch.Generator) -> torch.Tensor:
        """The learned reward of each image, (P, G): how much better the surrogate explains it than the teacher does,
        relative to the teacher's denoising error, averaged over `draws` times and noises of the last trajectory point."""
        p, g = groups.advantages.shape
        x0 = groups.trajectory[:, :, -1].flatten(0, 1)
        conditioning = groups.conditioning.repeat(g)
        total = torch.zeros(p, g, device=x0.device)
        for _ in range(draws):
            tau = self.draw_levels(p, generator).repeat_interleave(g)
            eps = self._noise(Part.whole(p), (1, *x0.shape[1:]), generator).expand(p, g, *x0.shape[1:]).flatten(0, 1)
            d_teacher, d_surrogate = (
                self.denoising_error(role, x0, conditioning, tau, eps).unflatten(0, (p, g))
                for role in (TEACHER, SURROGATE)
            )
            total += (d_teacher - d_surrogate) / d_teacher.mean(1, keepdim=True)
        return total / draws

    def denoising_error(
        self, role: str, x0: torch.Tensor, conditioning: Conditioning, tau: torch.Tensor, eps: torch.Tensor
    ) -> torch.Tensor:
        """`‖eps - x0 - v(x_tau)‖²`, the mean over pixels, of images (B, C, h, w) with noise `eps` at levels `tau`; (B,)."""
        x_tau = renoise(x0, torch.zeros_like(tau), tau, eps)
        return mean_square(eps - x0 - self.fixed_velocity(role, x_tau, tau, conditioning))

    def draw_orders(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """In which order the steps of `count` trajectories are trained, see `step_orders`; on the CPU."""
        s = self.settings
        return step_orders(count, self.steps, generator, rewarded=s.trunc_steps, share=s.reward_share)

    def draw_levels(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Levels (count,) that a finished image is re-noised to when the surrogate is asked about it."""
        u = self._uniform(Part.whole(count), generator)
        return self._tau(torch.zeros_like(u), u, low=self.settings.t_min)

    def draw_noise(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Noise of `count` images."""
        return self._noise(Part.whole(count), self.backend.latent_shape, generator)

    def set_rate_factor(self, factor: float) -> None:
        """Scale every role's learning rate."""
        for role, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.rates[role] * factor

    def parts(self) -> dict:
        """Every role for a checkpoint, by name."""
        return {role: self.roles.part(role) for role in self.roles.names}

    def save_student(self, folder: Path) -> Path:
        """Write the student's moving average as a standard diffusers LoRA; returns the file."""
        return self.backend.save_lora(folder, self.roles.state_dict(STUDENT_EMA), rank=self.rank, alpha=self.alpha)

    # Random numbers are drawn on the CPU, so that a seed gives the same ones on every device, and for the whole batch.
    def _noise(self, part: Part, shape, generator: torch.Generator) -> torch.Tensor:
        return part.pick(torch.randn((part.total, *shape), generator=generator)).to(self.backend.device)

    def _uniform(self, part: Part, generator: torch.Generator) -> torch.Tensor:
        return part.pick(torch.rand(part.total, generator=generator)).to(self.backend.device)

    def _step(self, role: str, losses: Iterable[tuple[torch.Tensor, int]], part: Part) -> float:
        """One step of the role's optimizer on the mean of `losses`, each with the number of units it is a mean of; a
        loss's gradient is taken before the next one is asked for. Returns the mean. Without any, the step is that of a
        process that holds nothing of the update: its gradient is zero."""
        parameters, count, mean = self.roles.parameters(role), max(1, len(part.index)), 0.0
        grads = [torch.zeros_like(p) for p in parameters]
        for loss, units in losses:
            share = units / count * part.weight(self.share.processes)
            torch._foreach_add_(grads, torch.autograd.grad(loss * share, parameters))
            mean += loss.item() * units / count
        if self.share.processes > 1:
            grads = [self.accelerator.reduce(g, "mean") for g in grads]
        for p, grad in zip(parameters, grads, strict=True):
            p.grad = grad
        torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip_norm)
        self.optimizers[role].step()
        self.optimizers[role].zero_grad(set_to_none=True)
        return mean


def _mean(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Mean of the values where `where` is 1; nan where it never is."""
    return (values * where).sum() / where.sum()
