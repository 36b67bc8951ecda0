"""The student takes what a surrogate learned by adding its adapter, instead of following it.

A difference of weights that a model learned for a task can be added to another model of the same start (task arithmetic,
arXiv 2212.04089), and an adapter that makes a model few-step goes together with one that gives it a style (LCM-LoRA, arXiv
2311.05556). Here the surrogate is an adapter on the base model that learns from the labels by DiffusionNFT's loss
(arXiv 2509.16117). The student is the one that the round started from plus `vector_strength` times that adapter. No fake,
no trajectories for a pull to the base model: an update is one gradient step of the surrogate.

With `reference = frozen` the old policy is the base model, and what can be learned is bounded: by the difference between
liked and disliked images. With `ema` it is the surrogate's own slow average, so that a long round on fresh images goes on
from what it learned before. What all images of a group have in common gives no sign in either. A frozen reference holds it;
with `ema` it drifts, and `surrogate_kl` draws it back to the base model.
"""

from __future__ import annotations

import torch

from trainer.flow import x0_from_velocity
from trainer.losses import mean_square
from trainer.methods.base import Groups
from trainer.methods.negative_aware import Point, contrast_losses, optimality, size_of
from trainer.methods.student_only import INITIAL
from trainer.methods.tdm_r1 import TDMR1
from trainer.roles import STUDENT, STUDENT_EMA, SURROGATE, SURROGATE_EMA, TEACHER
from trainer.shares import Part


def relative_distance(
    x0: torch.Tensor, x_tau: torch.Tensor, tau: torch.Tensor, v: torch.Tensor, teacher: torch.Tensor
) -> torch.Tensor:
    """How far a velocity's prediction of the image is from the teacher's, (B,): the mean square of their difference by
    `size_of` the teacher's error. Latents (B, C, h, w) at levels `tau` (B,)."""
    made, old = (x0_from_velocity(x_tau, tau, velocity) for velocity in (v, teacher.detach()))
    return mean_square(made - old) / size_of(old - x0)


class TaskVector(TDMR1):
    """See the module's docstring. The surrogate's levels, its reference, its pull to the teacher and its learning rate are
    TDM-R1's settings."""

    name = "task_vector"
    roles_needed = (STUDENT, STUDENT_EMA, INITIAL, SURROGATE, SURROGATE_EMA)
    starts_as_student = (STUDENT, STUDENT_EMA, INITIAL)
    follows = False

    def __init__(self, backend, settings, **how):
        """See `Method`. Raises ValueError where the student would have a part of the round for itself."""
        if settings.surrogate_first:
            raise ValueError(f"surrogate_first: with {self.name} the student follows nothing; set it to 0")
        super().__init__(backend, settings, **how)
        del self.optimizers[STUDENT]  # it is a sum

    def learn(self, groups: Groups, generator: torch.Generator) -> dict[str, float]:
        """See `Method.learn`: one step of the surrogate on the groups' images, then the sum."""
        loss = self.surrogate_step(groups, generator)
        self.follow_surrogate()
        self.roles.add(STUDENT, INITIAL, SURROGATE, self.settings.vector_strength)
        self.roles.copy(STUDENT, STUDENT_EMA)
        return {} if loss is None else {"negative_aware": loss}

    def follow_surrogate(self) -> None:
        """Move the surrogate's average, slowly: what is new in the surrogate since then is what it learns from."""
        self.surrogate_count += 1
        self.roles.average(SURROGATE, SURROGATE_EMA, self.settings.ema)

    def surrogate_step(self, groups: Groups, generator: torch.Generator) -> float | None:
        """One step towards liked images and away from disliked ones; None where this process holds none."""
        s, (p, g) = self.settings, groups.advantages.shape
        part = (groups.part or Part.whole(p)).each(g)
        if not p:
            self.step(SURROGATE, (), part)
            return None
        x0, good = groups.trajectory[:, :, -1].flatten(0, 1), optimality(groups.advantages).flatten()
        conditioning = groups.conditioning.repeat(g)
        tau = self.tau(torch.zeros(len(x0), device=x0.device), self.uniform(part, generator), low=s.surrogate_t_min)
        eps = self.noise(part, x0.shape[1:], generator)

        def pull(x0: torch.Tensor, v: torch.Tensor, at: Point) -> torch.Tensor:
            teacher = self.fixed_velocity(TEACHER, *at)
            return s.surrogate_kl * relative_distance(x0, *at[:2], v, teacher).mean()

        pulled = s.surrogate_kl and self.reference != TEACHER
        losses = contrast_losses(
            self, SURROGATE, self.reference, x0, tau, eps, conditioning, good, pull if pulled else None
        )
        return self.step(SURROGATE, losses, part)
