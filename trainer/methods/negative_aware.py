"""Negative-aware finetuning (DiffusionNFT, arXiv 2509.16117): flow matching on the student's own images, towards liked ones
and away from disliked ones.

The student is trained through two implicit policies that lie on either side of the old one: what lies ahead, towards where
the student moves, must match liked images, and its mirror image disliked ones. First the formulas as pure functions, then
the method. Latents are (B, C, h, w).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from trainer.backends import Conditioning
from trainer.flow import renoise, x0_from_velocity
from trainer.losses import mean_square
from trainer.methods.base import Groups, Method
from trainer.methods.student_only import INITIAL, StudentOnly
from trainer.roles import STUDENT, STUDENT_EMA
from trainer.shares import Part

Point = tuple[torch.Tensor, torch.Tensor, Conditioning]  # re-noised latents, their levels, their prompts
Pull = Callable[[torch.Tensor, torch.Tensor, Point], torch.Tensor]  # images, velocities, where they were asked → a loss


def optimality(advantages: torch.Tensor) -> torch.Tensor:
    """How surely each of the images (P, G) is a good one, 0..1, with a mean of 1/2 in every group: `1/2 + A/2`, a group's
    advantages (the reward less the group's mean, in deviations of the batch) being scaled down to at most 1. DiffusionNFT
    (section 3.3) clips them instead; then a group of many liked images has a mean above 1/2, and what all of the student's
    images have in common is learned along with what is liked."""
    return 0.5 + 0.5 * advantages / advantages.abs().amax(1, keepdim=True).clamp_min(1)


def implicit_policies(v: torch.Tensor, v_old: torch.Tensor, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(positive, negative) velocities `(1 - beta)·v_old + beta·v` and `(1 + beta)·v_old - beta·v` (DiffusionNFT, equation
    5): the smaller beta, the further the student itself goes beyond the old policy."""
    step = beta * (v - v_old)
    return v_old + step, v_old - step


def size_of(error: torch.Tensor) -> torch.Tensor:
    """The unit of these losses, (B,): the detached mean of |error| (B, C, h, w), by which a square is divided so that all
    levels weigh alike (DiffusionNFT, section 3.3)."""
    return error.detach().abs().mean((-3, -2, -1)).clamp_min(1e-5)


def negative_aware_loss(
    x0: torch.Tensor,
    x_tau: torch.Tensor,
    tau: torch.Tensor,
    v: torch.Tensor,
    v_old: torch.Tensor,
    good: torch.Tensor,
    *,
    beta: float,
) -> torch.Tensor:
    """`good·|x0 - x0_positive|² + (1 - good)·|x0 - x0_negative|²`, the mean over images; `good` (B,) is their `optimality`.
    Each square is divided by its own error's `size_of`."""
    parts = []
    for policy in implicit_policies(v, v_old.detach(), beta):
        error = x0_from_velocity(x_tau, tau, policy) - x0
        parts.append(mean_square(error) / size_of(error))
    positive, negative = parts
    return (good * positive + (1 - good) * negative).mean()


def contrast_losses(
    method: Method,
    role: str,
    old_role: str,
    x0: torch.Tensor,
    tau: torch.Tensor,
    eps: torch.Tensor,
    conditioning: Conditioning,
    good: torch.Tensor,
    pull: Pull | None = None,
) -> Iterator[tuple[torch.Tensor, int]]:
    """`negative_aware_loss` of images (B, C, h, w) with `optimality` `good` (B,), re-noised by `eps` to levels `tau` (B,).
    It comes in parts that a pass with gradient may hold: each part's loss, and of how many images. `role` is trained,
    `old_role` is the old policy, and `pull` gives what is added to a part's loss."""
    x_tau = renoise(x0, torch.zeros_like(tau), tau, eps)
    for i in method.graphs(len(x0)):
        at = x_tau[i], tau[i], conditioning.take(i)
        v, old = method.velocity(role, *at), method.fixed_velocity(old_role, *at)
        loss = negative_aware_loss(x0[i], *at[:2], v, old, good[i], beta=method.settings.negative_beta)
        yield (loss if pull is None else loss + pull(x0[i], v, at)), len(v)


class NegativeAware(StudentOnly):
    """See the module's docstring. The old policy, which also samples an update's images, is the student's moving average;
    each image is re-noised to a random one of the student's own levels; `gradient_steps` steps for each batch."""

    name = "negative_aware"

    def roll_out(self, conditioning: Conditioning, noise: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See `Method.roll_out`."""
        return self.sample(conditioning, noise, role=STUDENT_EMA)

    def learn(self, groups: Groups, generator: torch.Generator) -> dict[str, float]:
        """See `Method.learn`."""
        g = groups.advantages.shape[1]
        part = (groups.part or Part.whole(len(groups.advantages))).each(g)
        x0, good = groups.trajectory[:, :, -1].flatten(0, 1), optimality(groups.advantages).flatten()
        conditioning = groups.conditioning.repeat(g)
        steps = range(self.settings.gradient_steps)
        return [self.contrast_step(x0, conditioning, good, generator, part) for _ in steps][-1]

    def contrast_step(
        self,
        x0: torch.Tensor,
        conditioning: Conditioning,
        good: torch.Tensor,
        generator: torch.Generator,
        part: Part,
    ) -> dict[str, float]:
        """One gradient step on images (B, C, h, w) with their `optimality` (B,); images where that is 1/2 hold the student
        at the old policy."""
        s = self.settings
        if not len(x0):
            self.step_student((), part)
            return {}
        tau = self.levels_of(part.pick(torch.randint(self.steps, (part.total,), generator=generator)))
        eps = self.noise(part, x0.shape[1:], generator)

        def pull(x0: torch.Tensor, v: torch.Tensor, at: Point) -> torch.Tensor:
            return s.initial_kl * mean_square(v - self.fixed_velocity(INITIAL, *at)).mean()

        losses = contrast_losses(
            self, STUDENT, STUDENT_EMA, x0, tau, eps, conditioning, good, pull if s.initial_kl else None
        )
        return {"negative_aware": self.step_student(losses, part)}
