"""Methods that no round offers, for `ablation.py`: what the paper of TDM-R1 ablates, and what else might work.

First what is particular to each as pure functions, then the methods, which a round is given in place of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from common.settings import Settings, option
from trainer.flow import x0_from_velocity
from trainer.methods.base import DISTRIBUTION_BETAS, Groups, Rollouts
from trainer.methods.dgpo import DGPO
from trainer.methods.student_only import INITIAL
from trainer.methods.tdm import TDM
from trainer.methods.tdm_r1 import TDMR1
from trainer.roles import FAKE, STUDENT, SURROGATE, SURROGATE_EMA, TDM_ROLES
from trainer.sampler import related_noise

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

LATER_SEEDS = 2_000_000_000  # of the stochastic sampler's noise, far from those of the first noise


@dataclass(frozen=True)
class PeerSettings(Settings):
    """What the variants have beside `TDMR1Settings`."""

    refresh_every: int = option(
        10, "Updates between two copies of the surrogate into its reference.", low=1, high=100_000
    )
    sibling_scale: float = option(
        1.0, "How far an image is pulled to its group's best; 1 is all the way.", low=0, high=100
    )


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


def best_siblings(x: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """Each image's group's best one: (P, G, …) and rewards (P, G) → (P, G, …). The first of several that are equally
    good; an image that is as good as that is its own."""
    best = rewards.argmax(1)
    chosen = x[torch.arange(len(x)), best].unsqueeze(1).expand_as(x)
    as_good = (rewards >= rewards.amax(1, keepdim=True)).reshape(*rewards.shape, *(1,) * (x.ndim - 2))
    return torch.where(as_good, x, chosen)


# --- methods ----------------------------------------------------------------------------------------------------------


class HardRefresh(TDMR1):
    """The reference is a copy of the surrogate, taken every `refresh_every` of its updates. Needs `reference = "ema"`,
    since that is the role the copy is kept in."""

    peer = PeerSettings()

    def follow_surrogate(self) -> None:
        """See `TDMR1.follow_surrogate`."""
        self.surrogate_count += 1
        if self.surrogate_count % self.peer.refresh_every == 0:
            self.roles.copy(SURROGATE, SURROGATE_EMA)


class Stochastic(TDMR1):
    """TDM-R1 on trajectories of the stochastic sampler. A group shares as much of the later noise as of the first."""

    def roll_out(self, conditioning, noise: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See `Method.roll_out`."""
        s = self.settings
        later = torch.Generator().manual_seed(LATER_SEEDS + generator.initial_seed())

        def draw() -> torch.Tensor:
            return related_noise(len(noise) // s.group_size, s.group_size, noise.shape[1:], s.noise_spread, later)

        return stochastic_rollout(
            lambda x, t: self.fixed_velocity(STUDENT, x, t, conditioning), noise, self.levels, draw
        )


class _AtRandomSteps:
    """The student's and the fake's update on the chosen images, each at a random step."""

    def follow(self, rollouts: Rollouts, generator: torch.Generator) -> dict[str, float]:
        """See `Method.follow`."""
        j = torch.randint(self.steps, (len(rollouts.prompts),), generator=generator)
        conditioning = self.backend.encode(rollouts.prompts)
        return self.student_update(rollouts.trajectory, conditioning, j, generator, rollouts.part)


class DistilledPreference(_AtRandomSteps, DGPO, TDM):
    """DGPO while the distillation goes on: what TDM-R1 is without its surrogate. The preference's gradient steps, then one
    of TDM on as many images as in TDM-R1."""

    roles_needed = (*TDM_ROLES, INITIAL)
    starts_as_student = (*TDM_ROLES, INITIAL)
    follows = True
    betas: ClassVar = {STUDENT: DISTRIBUTION_BETAS, FAKE: DISTRIBUTION_BETAS}


class Siblings(_AtRandomSteps, TDMR1):
    """TDM-R1 without a learned reward: in its place the student's `x0_hat` is pulled from its own image to the best one of
    the group. The terms for guidance and against the fake stay, and the adapter of the surrogate is not trained."""

    peer = PeerSettings()

    def roll_out(self, conditioning, noise: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See `Method.roll_out`; an image of a group without signal is its own best."""
        trajectory = super().roll_out(conditioning, noise, generator)
        self.own, self.best = trajectory[:, -1], trajectory[:, -1].clone()
        return trajectory

    def learn(self, groups: Groups, generator: torch.Generator) -> dict[str, float]:
        """See `Method.learn`: which image is the best of its group."""
        best = self.best.unflatten(0, (-1, groups.advantages.shape[1]))
        best[groups.sampled] = best_siblings(groups.trajectory[:, :, -1], groups.advantages)
        return {}

    def follow(self, rollouts: Rollouts, generator: torch.Generator) -> dict[str, float]:
        """See `Method.follow`."""
        self.pair = self.own[rollouts.sampled], self.best[rollouts.sampled]
        return super().follow(rollouts, generator)

    @torch.no_grad()
    def reward_targets(self, x_n, s_n, conditioning, generator, part, where) -> dict[str, torch.Tensor]:
        """See `TDMR1.reward_targets`."""
        own, best = self.pair
        return {"surrogate_cfg": own + self.peer.sibling_scale * (best - own), "reference": own}
