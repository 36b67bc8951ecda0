"""Flow-GRPO: policy gradients through a stochastic sampler's steps (arXiv 2505.05470).

First its formulas as pure functions, then the method. Latents are (B, C, h, w).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch

from trainer.backends import Conditioning
from trainer.flow import like
from trainer.losses import mean_square
from trainer.methods.base import Groups
from trainer.methods.student_only import INITIAL, StudentOnly
from trainer.roles import STUDENT
from trainer.shares import Part

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


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


class FlowGRPO(StudentOnly):
    """Flow-GRPO's update on the student's own steps. A rollout is dealt out to `gradient_steps` steps: each image is used
    once, as in the paper."""

    name = "flow_grpo"
    own_images = True
    one_process = True

    @torch.no_grad()
    def roll_out(self, conditioning: Conditioning, noise: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See `Method.roll_out`: the stochastic sampler's points, whose probabilities are kept for `learn`."""

        # With the adapter beside the weights, as the gradient steps have it: merged, bf16 rounds otherwise, and the first
        # step's ratios would not be 1.
        def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return self.velocity(STUDENT, x, t, conditioning)

        def draw() -> torch.Tensor:
            return torch.randn(noise.shape, generator=generator).to(self.backend.device)

        start = noise.to(self.backend.device)
        points, self.old = sde_rollout(velocity, start, self.levels, draw, noise_level=self.settings.noise_level)
        return points

    def learn(self, groups: Groups, generator: torch.Generator) -> dict[str, float]:
        """See `Method.learn`."""
        p, g = groups.advantages.shape
        points, advantages = groups.trajectory.flatten(0, 1), groups.advantages.flatten()
        old = self.old.unflatten(0, (-1, g))[groups.sampled.to(self.old.device)].flatten(0, 1)
        conditioning = groups.conditioning.repeat(g)
        metrics: dict[str, float] = {}
        for some in torch.randperm(p * g, generator=generator).chunk(self.settings.gradient_steps):
            some = some.to(points.device)
            metrics = self.policy_step(points[some], old[some], conditioning.take(some), advantages[some])
        return metrics

    def policy_step(
        self, points: torch.Tensor, old: torch.Tensor, conditioning: Conditioning, advantages: torch.Tensor
    ) -> dict[str, float]:
        """One gradient step on all steps but the last of trajectories (B, K + 1, …), whose log-probabilities under the
        student that made them are `old` (B, K - 1); advantages (B,)."""
        s, steps = self.settings, old.shape[1]
        outside: list[torch.Tensor] = []

        def losses() -> Iterator[tuple[torch.Tensor, int]]:
            for i in self.graphs(len(old), steps):
                loss, log_ratio = self._loss(points[i], old[i], conditioning.take(i), advantages[i])
                outside.append((log_ratio.exp() - 1).abs() > s.ratio_clip)
                yield loss, len(log_ratio) // steps

        loss = self.step_student(losses(), Part.whole(len(old)))
        return {"grpo": loss, "outside": torch.cat(outside).float().mean().item()}

    def _loss(self, points, old, conditioning: Conditioning, advantages) -> tuple[torch.Tensor, torch.Tensor]:
        count, steps = old.shape
        here, there = (self.grid[a : a + steps].repeat(count) for a in (0, 1))
        x, x_next = (points[:, a : a + steps].flatten(0, 1) for a in (0, 1))
        both = conditioning.repeat(steps)
        step = {"noise_level": self.settings.noise_level, "top": self.levels[1].item()}
        mean, std = sde_transition(x, self.velocity(STUDENT, x, here, both), here, there, **step)
        log_ratio = transition_log_probability(x_next, mean, std) - old.flatten()
        loss = grpo_loss(log_ratio, advantages.repeat_interleave(steps), self.settings.ratio_clip)
        if self.settings.initial_kl:
            other, _ = sde_transition(x, self.fixed_velocity(INITIAL, x, here, both), here, there, **step)
            loss = loss + self.settings.initial_kl * transition_kl(mean, other, std).mean()
        return loss, log_ratio.detach()
