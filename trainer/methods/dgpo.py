"""DGPO: the group preference loss straight on the student (arXiv 2510.08425, with TDM-R1's trust region and weights).

The student is its own surrogate, at the levels that it samples at. The reference and the pull (`surrogate_kl`) are to the
student that the round started from; the old copy is the student's moving average.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from trainer.flow import renoise
from trainer.losses import SurrogateTerms
from trainer.methods.base import Groups, read
from trainer.methods.student_only import INITIAL, StudentOnly
from trainer.roles import STUDENT, STUDENT_EMA
from trainer.shares import Part


class DGPO(StudentOnly):
    """See the module's docstring; `gradient_steps` steps for each batch, with levels and noise of their own."""

    name = "dgpo"

    def learn(self, groups: Groups, generator: torch.Generator) -> dict[str, float]:
        """See `Method.learn`."""
        return [self.preference_step(groups, generator) for _ in range(self.settings.gradient_steps)][-1]

    def preference_step(self, groups: Groups, generator: torch.Generator) -> dict[str, float]:
        """One gradient step: level s_j a group, later ones more often, and one noise a group, as the surrogate's update."""
        p, g = groups.advantages.shape
        part = groups.part or Part.whole(p)
        weights = torch.arange(1.0, self.steps + 1)
        j = part.pick(torch.multinomial(weights, part.total, replacement=True, generator=generator))
        eps = self.noise(part, (1, *groups.trajectory.shape[3:]), generator)
        if not p:
            self.step_student((), part)
            return {}
        x0 = groups.trajectory[:, :, -1].flatten(0, 1)
        tau = self.levels_of(j).repeat_interleave(g)
        eps = eps.expand(p, g, *x0.shape[1:]).flatten(0, 1)
        x_tau = renoise(x0, torch.zeros_like(tau), tau, eps)
        conditioning = groups.conditioning.repeat(g)
        target = (eps - x0).unflatten(0, (p, g))
        initial, old = (
            self.fixed_velocity(role, x_tau, tau, conditioning).unflatten(0, (p, g)) for role in (INITIAL, STUDENT_EMA)
        )
        j = j.to(x0.device)
        parts: list[SurrogateTerms] = []

        def losses() -> Iterator[tuple[torch.Tensor, int]]:
            for some in self.graphs(p, g):
                images = slice(some.start * g, some.stop * g)
                own = self.velocity(STUDENT, x_tau[images], tau[images], conditioning.take(images))
                parts.append(
                    self.preference_loss(
                        target[some],
                        own.unflatten(0, (-1, g)),
                        initial[some],
                        old[some],
                        initial[some],
                        groups.advantages[some],
                        j[some],
                    )
                )
                yield parts[-1].loss, len(parts[-1].group_weight)

        self.step_student(losses(), part)
        terms = SurrogateTerms.join(parts)
        return read({"preference": terms.loss, "active": terms.active, "distance": terms.distance})
