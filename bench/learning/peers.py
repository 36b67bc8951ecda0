"""Other ways to teach the few-step student from rewards, for `ablation.py`: the variants of TDM-R1 that its paper
ablates and the peers that it is compared with.

First what is particular to each as pure functions, then the trainers (who learns from what), then the rounds (which images,
scored when). Latents are (B, C, h, w), or (P, G, C, h, w) for P groups of G images, as in `trainer/losses.py`.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch

from common.settings import Settings, option
from trainer.advantages import group_advantages, has_signal
from trainer.backends import Conditioning
from trainer.flow import like, renoise, x0_from_velocity
from trainer.losses import mean_square, surrogate_loss
from trainer.methods.tdm_r1 import DISTRIBUTION_BETAS, SURROGATE_BETAS, TDMR1, Groups, rate_factor
from trainer.roles import FAKE, STUDENT, STUDENT_EMA, SURROGATE, SURROGATE_EMA, TDM_ROLES
from trainer.rounds import SAVE_SECONDS, RoundSpec, _Round
from trainer.sampler import related_noise
from trainer.shares import Part

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# TDMR1 loads the parent into the fake's adapter too. The peers have no fake and never train it: to them it is the student
# that they started from.
INITIAL = FAKE
KEPT = "initial"  # the same where the fake is trained
LATER_SEEDS = 2_000_000_000  # of the stochastic sampler's noise, far from those of the first noise


@dataclass(frozen=True)
class PeerSettings(Settings):
    """What the variants and peers have beside `TDMR1Settings`."""

    refresh_every: int = option(10, "Updates between two copies of the surrogate into its reference.", low=1)
    gradient_steps: int = option(2, "Gradient steps from one rollout.", low=1)
    noise_level: float = option(0.7, "a of Flow-GRPO's sigma_t = a·sqrt(t / (1 - t)).", low=0)
    ratio_clip: float = option(1e-3, "Clip range of the ratio of probabilities, which are means over pixels.", low=0)
    initial_kl: float = option(0.04, "Weight of the divergence from the initial student.", low=0)
    sibling_scale: float = option(1.0, "How far an image is pulled to its group's best; 1 is all the way.", low=0)


# --- pure functions ---------------------------------------------------------------------------------------------------


def stochastic_rollout(
    velocity: Velocity, noise: torch.Tensor, grid: torch.Tensor, draw: Callable[[], torch.Tensor]
) -> torch.Tensor:
    """Multi-step consistency sampling (Song et al. 2023, arXiv 2303.01469, algorithm 1) on a linear path: after each step
    `x0_hat` is noised again, `x_{j+1} = (1 - s_{j+1})·x0_hat + s_{j+1}·eps`. (B, K + 1, …), as `trainer.flow.rollout`.

    `draw()` gives fresh noise of `noise`'s shape. Nothing is noised at level 0, so the last step is Euler's.
    """
    levels = grid.tolist()
    points = [levels[0] * noise]
    for here, there in itertools.pairwise(levels):
        x = points[-1]
        t = torch.full((len(x),), here, device=x.device)
        x0_hat = x0_from_velocity(x, t, velocity(x, t).float())
        points.append((1 - there) * x0_hat + there * draw() if there else x0_hat)
    return torch.stack(points, 1)


def sde_transition(
    x: torch.Tensor, v: torch.Tensor, here: torch.Tensor, there: torch.Tensor, *, noise_level: float, top: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(mean, standard deviation (B,)) of Flow-GRPO's Gaussian step from levels `here` to `there`, both (B,) (arXiv
    2505.05470, section 4.2): with `dt = there - here < 0` and `sigma = a·sqrt(t / (1 - t))`, a = `noise_level`,

        mean = x·(1 + sigma²/(2t)·dt) + v·(1 + sigma²·(1 - t)/(2t))·dt,    std = sigma·sqrt(-dt)

    sigma has a pole at t = 1: there `top`, the grid's next level, stands in for t under the root, as in the authors' code.
    With a = 0 it is Euler's step. The step to level 0 is Euler's too: noise added there would stay in the image.
    """
    dt = there - here
    below = torch.where(here >= 1, torch.full_like(here, top), here)
    sigma = noise_level * (here / (1 - below)).sqrt() * (there > 0)
    drift = sigma**2 / (2 * here)
    mean = x * like(1 + drift * dt, x) + v * like((1 + drift * (1 - here)) * dt, v)
    return mean, sigma * (-dt).sqrt()


def transition_log_probability(there: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Log-density of points (B, …) under N(mean, std²), `std` (B,), as the mean over pixels, (B,): Flow-GRPO's code takes
    the mean, not the sum, which its clip ranges are made for."""
    z = (there - mean) / like(std, mean)
    return (-0.5 * z**2 - like(std, mean).log() - 0.5 * torch.log(torch.tensor(2 * torch.pi))).flatten(1).mean(1)


def sde_rollout(
    velocity: Velocity, noise: torch.Tensor, grid: torch.Tensor, draw: Callable[[], torch.Tensor], *, noise_level: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Flow-GRPO's sampler: the points (B, K + 1, …), and the log-probability of each step (B, K - 1); the last step has no
    noise and no probability."""
    levels = grid.tolist()
    points, log_probabilities = [levels[0] * noise], []
    for here, there in itertools.pairwise(levels):
        x = points[-1]
        t, t_next = (torch.full((len(x),), level, device=x.device) for level in (here, there))
        mean, std = sde_transition(x, velocity(x, t).float(), t, t_next, noise_level=noise_level, top=levels[1])
        points.append(mean + like(std, mean) * draw() if there else mean)
        if there:
            log_probabilities.append(transition_log_probability(points[-1], mean, std))
    return torch.stack(points, 1), torch.stack(log_probabilities, 1)


def grpo_loss(log_ratio: torch.Tensor, advantages: torch.Tensor, clip: float) -> torch.Tensor:
    """`mean(max(-A·r, -A·clamp(r, 1 - clip, 1 + clip)))` with `r = exp(log_ratio)` (Flow-GRPO, equation 5; PPO's clipped
    objective). Both (B,); an image without advantage gives no gradient."""
    ratio = log_ratio.exp()
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)).mean()


def transition_kl(mean: torch.Tensor, other: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Divergence of two Gaussian steps of equal `std` (B,), `|mean - other|² / (2·std²)`, as the mean over pixels, (B,)
    (Flow-GRPO, section 4.1)."""
    return mean_square(mean - other) / (2 * std**2)


def best_siblings(x: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """Each image's group's best one: (P, G, …) and rewards (P, G) → (P, G, …). The first of several that are equally
    good; an image that is as good as that is its own."""
    best = rewards.argmax(1)
    chosen = x[torch.arange(len(x)), best].unsqueeze(1).expand_as(x)
    as_good = (rewards >= rewards.amax(1, keepdim=True)).reshape(*rewards.shape, *(1,) * (x.ndim - 2))
    return torch.where(as_good, x, chosen)


# --- trainers ---------------------------------------------------------------------------------------------------------


class HardRefresh(TDMR1):
    """The reference is a copy of the surrogate, taken every `refresh_every` of its updates. Needs `reference = "ema"`,
    since that is the role the copy is kept in."""

    peer: PeerSettings

    def _follow_surrogate(self) -> None:
        self.surrogate_count += 1
        if self.surrogate_count % self.peer.refresh_every == 0:
            self.roles.copy(SURROGATE, SURROGATE_EMA)


class StudentOnly(TDMR1):
    """Base of the peers that train the student and nothing else: no teacher term, no fake, no surrogate."""

    peer: PeerSettings
    initial = INITIAL
    betas = SURROGATE_BETAS  # nothing chases the student here, so momentum does not lag behind

    def __init__(self, backend, settings, *, roles=TDM_ROLES, **options):
        super().__init__(backend, settings, roles=roles, **options)
        for group in self.optimizers[STUDENT].param_groups:
            group["betas"] = self.betas

    def step_student(self, loss: torch.Tensor) -> None:
        """One gradient step, and the average follows."""
        self._step(STUDENT, [(loss, 1)], Part.whole(1))
        self.roles.average(STUDENT, STUDENT_EMA, self.settings.ema)


class GroupPreferenceStudent(StudentOnly):
    """The group preference loss straight on the student: it is its own surrogate, at the levels that it samples at. The
    reference and the pull (`surrogate_kl`) are to the initial student; the old copy is the student's moving average."""

    def update(self, groups: Groups, generator: torch.Generator) -> dict[str, float]:
        """One gradient step: level s_j a group, later ones more often, and one noise a group, as the surrogate's update."""
        s = self.settings
        p, g = groups.advantages.shape
        j = torch.multinomial(torch.arange(1.0, self.steps + 1), p, replacement=True, generator=generator)
        tau = self.grid[j].repeat_interleave(g)
        x0 = groups.trajectory[:, :, -1].flatten(0, 1)
        eps = torch.randn((p, 1, *x0.shape[1:]), generator=generator).expand(p, g, *x0.shape[1:]).flatten(0, 1)
        x_tau = renoise(x0, torch.zeros_like(tau), tau, eps)
        conditioning = groups.conditioning.repeat(g)
        initial, old = (self.fixed_velocity(role, x_tau, tau, conditioning) for role in (self.initial, STUDENT_EMA))
        own = self.velocity(STUDENT, x_tau, tau, conditioning)
        target, own, initial, old = (v.unflatten(0, (p, g)) for v in (eps - x0, own, initial, old))
        terms = surrogate_loss(
            target,
            own,
            initial,
            old,
            initial,
            groups.advantages * ((j + 1) / self.steps)[:, None],
            beta_dpo=s.beta_dpo,
            teacher_weight=s.surrogate_kl,
            clip=s.clip,
            teacher_clip_from=s.teacher_clip_from,
            relative=s.relative,
        )
        self.step_student(terms.loss)
        return {"preference": terms.loss.item(), "active": terms.active.item(), "distance": terms.distance.item()}


class DistilledPreferenceStudent(GroupPreferenceStudent):
    """The same, while the distillation goes on: what TDM-R1 is without its surrogate."""

    initial = KEPT
    betas = DISTRIBUTION_BETAS

    def __init__(self, backend, settings, **options):
        super().__init__(backend, settings, roles=(*TDM_ROLES, KEPT), **options)
        self.roles.load_state_dict(KEPT, self.roles.state_dict(STUDENT))


class FlowMatchingStudent(StudentOnly):
    """Best-of-group fine-tuning: flow matching on the best images, at the levels that the student samples at."""

    def update(self, x0: torch.Tensor, conditioning: Conditioning, generator: torch.Generator) -> dict[str, float]:
        """One gradient step on images (B, C, h, w): `|v_student(x_tau, tau) - (eps - x0)|²` at a random level each."""
        tau = self.grid[torch.randint(self.steps, (len(x0),), generator=generator)]
        eps = torch.randn(x0.shape, generator=generator)
        v = self.velocity(STUDENT, renoise(x0, torch.zeros_like(tau), tau, eps), tau, conditioning)
        loss = mean_square(v - (eps - x0)).mean()
        self.step_student(loss)
        return {"flow_matching": loss.item()}


class SiblingTargets(TDMR1):
    """TDM-R1 without a learned reward: in its place the student's `x0_hat` is pulled from its own image to the best one of
    the group. The terms for guidance and against the fake stay, and the adapter of the surrogate is not trained."""

    peer: PeerSettings
    siblings: tuple[torch.Tensor, torch.Tensor]  # own and best images of the batch that `student_update` is given

    @torch.no_grad()
    def _reward_targets(self, x_n, s_n, conditioning, generator, part, where) -> dict[str, torch.Tensor]:
        own, best = self.siblings
        return {"surrogate_cfg": own + self.peer.sibling_scale * (best - own), "reference": own}


class FlowGRPO(StudentOnly):
    """Flow-GRPO's update (arXiv 2505.05470) on the student's own steps."""

    @torch.no_grad()
    def rollout(self, conditioning: Conditioning, noise: torch.Tensor, draw) -> tuple[torch.Tensor, torch.Tensor]:
        """Points and log-probabilities, see `sde_rollout`."""
        # With the adapter beside the weights, as the gradient steps have it: merged, bf16 rounds otherwise, and the first
        # step's ratios would not be 1.
        return sde_rollout(
            lambda x, t: self.velocity(STUDENT, x, t, conditioning),
            noise,
            self.levels,
            draw,
            noise_level=self.peer.noise_level,
        )

    def update(
        self, points: torch.Tensor, old: torch.Tensor, conditioning: Conditioning, advantages: torch.Tensor
    ) -> dict[str, float]:
        """One gradient step on all steps but the last of trajectories (B, K + 1, …), whose log-probabilities under the
        student that made them are `old` (B, K - 1); advantages (B,)."""
        count, steps = old.shape
        here, there = (self.grid[a : a + steps].repeat(count) for a in (0, 1))
        x, x_next = (points[:, a : a + steps].flatten(0, 1) for a in (0, 1))
        both = conditioning.repeat(steps)
        step = {"noise_level": self.peer.noise_level, "top": self.levels[1].item()}
        mean, std = sde_transition(x, self.velocity(STUDENT, x, here, both), here, there, **step)
        log_ratio = transition_log_probability(x_next, mean, std) - old.flatten()
        loss = grpo_loss(log_ratio, advantages.repeat_interleave(steps), self.peer.ratio_clip)
        if self.peer.initial_kl:
            other, _ = sde_transition(x, self.fixed_velocity(INITIAL, x, here, both), here, there, **step)
            loss = loss + self.peer.initial_kl * transition_kl(mean, other, std).mean()
        self.step_student(loss)
        outside = (log_ratio.detach().exp() - 1).abs() > self.peer.ratio_clip
        return {"grpo": loss.item(), "outside": outside.float().mean().item()}


# --- rounds -----------------------------------------------------------------------------------------------------------


class PeerRound(_Round):
    """A round with a trainer of its own, in one process; `peer` are the settings that only it has."""

    def __init__(self, spec: RoundSpec, peer: PeerSettings):
        super().__init__(spec, lambda progress: None, lambda: False, "cpu", SAVE_SECONDS, "none")
        self.peer = self.trainer.peer = peer


class HardRefreshRound(PeerRound):
    """See `HardRefresh`."""

    trainer_class = HardRefresh


class StochasticRound(PeerRound):
    """TDM-R1 on trajectories of the stochastic sampler. A group shares as much of the later noise as of the first."""

    def _update(self, step: int) -> dict[str, float]:
        self.later = torch.Generator().manual_seed(LATER_SEEDS + self.settings.seed * 1_000_003 + step)
        return super()._update(step)

    def _rollout(self, prompts: list[str], noise: torch.Tensor) -> torch.Tensor:
        trainer, s = self.trainer, self.settings
        conditioning = trainer.backend.encode(prompts)

        def draw() -> torch.Tensor:
            return related_noise(len(noise) // s.group_size, s.group_size, noise.shape[1:], s.noise_spread, self.later)

        return stochastic_rollout(
            lambda x, t: trainer.fixed_velocity(STUDENT, x, t, conditioning), noise, trainer.levels, draw
        )


@dataclass(frozen=True)
class Scored:
    """The images of an update, P groups of G: prompts (P), trajectories (P·G, K + 1, …), rewards and advantages (P, G)."""

    prompts: list[str]
    trajectory: torch.Tensor
    rewards: torch.Tensor
    advantages: torch.Tensor

    @property
    def loud(self) -> torch.Tensor:
        """(P,) bool: the groups that teach something."""
        return has_signal(self.rewards)


class ScoredRound(PeerRound):
    """A round whose every update samples groups, has them scored and learns from them in its own way."""

    def _update(self, step: int) -> dict[str, float]:
        s = self.settings
        generator = torch.Generator().manual_seed(s.seed * 1_000_003 + step)
        self.trainer.set_rate_factor(rate_factor(step, s.updates, s.cool_down))
        scored = self.score(self._random(step), generator)
        metrics = {"reward": scored.rewards.mean().item(), "signal": scored.loud.float().mean().item()}
        return metrics | (self.learn(scored, generator) if scored.loud.any() else {})

    def score(self, rng: random.Random, generator: torch.Generator) -> Scored:
        """Prompts and noise as TDM-R1's own rounds draw them."""
        s, backend = self.settings, self.trainer.backend
        rows = self._prompts(rng, s.prompts_per_update)
        lines = [row for row in rows for _ in range(s.group_size)]
        prompts = [line["prompt"] for line in lines]
        noise = related_noise(len(rows), s.group_size, backend.latent_shape, s.noise_spread, generator)
        trajectory = self.roll_out(prompts, noise, generator)
        verdicts = self.oracle.score(backend.decode(trajectory[:, -1], bf16=self.trainer.bf16), prompts, lines)
        rewards = torch.tensor([v.score for v in verdicts]).unflatten(0, (len(rows), s.group_size))
        self.state.images_scored += rewards.numel()
        advantages = group_advantages(rewards, torch.ones_like(rewards, dtype=torch.bool))
        scored = Scored([row["prompt"] for row in rows], trajectory, rewards, advantages)
        self.state.silent_groups += int((~scored.loud).sum())
        return scored

    def roll_out(self, prompts: list[str], noise: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The trajectories whose images are scored."""
        return self._rollout(prompts, noise)

    def learn(self, scored: Scored, generator: torch.Generator) -> dict[str, float]:
        """Train on groups of which at least one has signal; returns what is worth logging."""
        raise NotImplementedError

    def groups(self, scored: Scored) -> Groups:
        """The groups with signal."""
        loud = scored.loud
        names = [prompt for prompt, is_loud in zip(scored.prompts, loud.tolist(), strict=True) if is_loud]
        points = scored.trajectory.unflatten(0, scored.rewards.shape)[loud]
        return Groups(points, self.trainer.backend.encode(names), scored.advantages[loud])

    def choose(self, scored: Scored, generator: torch.Generator) -> torch.Tensor:
        """Indices of as many images as the student's update takes in TDM-R1's own rounds."""
        return torch.randperm(len(scored.trajectory), generator=generator)[: self.settings.student_batch]

    def follow(self, scored: Scored, chosen: torch.Tensor, generator: torch.Generator) -> dict[str, float]:
        """The student's and the fake's update on the chosen images, each at a random step."""
        trainer = self.trainer
        prompts = [scored.prompts[i // self.settings.group_size] for i in chosen.tolist()]
        j = torch.randint(trainer.steps, (len(chosen),), generator=generator)
        return trainer.student_update(scored.trajectory[chosen], trainer.backend.encode(prompts), j, generator)


class GroupPreferenceRound(ScoredRound):
    """See `GroupPreferenceStudent`; each gradient step has levels and noise of its own."""

    trainer_class = GroupPreferenceStudent

    def learn(self, scored: Scored, generator: torch.Generator) -> dict[str, float]:
        """See `ScoredRound.learn`."""
        groups = self.groups(scored)
        return [self.trainer.update(groups, generator) for _ in range(self.peer.gradient_steps)][-1]


class DistilledPreferenceRound(GroupPreferenceRound):
    """See `DistilledPreferenceStudent`: the preference's gradient steps, then one of TDM on as many images as in TDM-R1."""

    trainer_class = DistilledPreferenceStudent

    def learn(self, scored: Scored, generator: torch.Generator) -> dict[str, float]:
        """See `ScoredRound.learn`."""
        metrics = super().learn(scored, generator)
        return metrics | self.follow(scored, self.choose(scored, generator), generator)


class FlowMatchingRound(ScoredRound):
    """See `FlowMatchingStudent`. One image of each group with signal: the best, the first of equally good ones."""

    trainer_class = FlowMatchingStudent

    def learn(self, scored: Scored, generator: torch.Generator) -> dict[str, float]:
        """See `ScoredRound.learn`."""
        groups = self.groups(scored)
        best = scored.rewards[scored.loud].argmax(1)
        images = groups.trajectory[torch.arange(len(best)), best, -1]
        # Of each image as many copies, at levels and noise of their own, as fill a batch of the student's.
        copies = max(1, self.settings.student_batch // len(images))
        images, conditioning = images.repeat_interleave(copies, 0), groups.conditioning.repeat(copies)
        steps = range(self.peer.gradient_steps)
        return [self.trainer.update(images, conditioning, generator) for _ in steps][-1]


class SiblingRound(ScoredRound):
    """See `SiblingTargets`. The student trains on as many images, at random steps, as in TDM-R1's own rounds."""

    trainer_class = SiblingTargets

    def learn(self, scored: Scored, generator: torch.Generator) -> dict[str, float]:
        """See `ScoredRound.learn`."""
        images = scored.trajectory[:, -1]
        best = best_siblings(images.unflatten(0, scored.rewards.shape), scored.rewards).flatten(0, 1)
        chosen = self.choose(scored, generator)
        self.trainer.siblings = (images[chosen], best[chosen])
        return self.follow(scored, chosen, generator)


class FlowGRPORound(ScoredRound):
    """See `FlowGRPO`. A rollout is dealt out to `gradient_steps` steps: each image is used once, as in the paper."""

    trainer_class = FlowGRPO

    def roll_out(self, prompts: list[str], noise: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See `ScoredRound.roll_out`."""
        conditioning = self.trainer.backend.encode(prompts)
        points, self.old = self.trainer.rollout(
            conditioning, noise, lambda: torch.randn(noise.shape, generator=generator)
        )
        return points

    def learn(self, scored: Scored, generator: torch.Generator) -> dict[str, float]:
        """See `ScoredRound.learn`."""
        prompts = [prompt for prompt in scored.prompts for _ in range(self.settings.group_size)]
        advantages = scored.advantages.flatten()
        useful = scored.loud.repeat_interleave(self.settings.group_size).nonzero().flatten()
        order = useful[torch.randperm(len(useful), generator=generator)]
        metrics: dict[str, float] = {}
        for part in order.chunk(self.peer.gradient_steps):
            conditioning = self.trainer.backend.encode([prompts[i] for i in part.tolist()])
            metrics = self.trainer.update(scored.trajectory[part], self.old[part], conditioning, advantages[part])
        return metrics
