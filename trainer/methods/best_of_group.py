"""Best of group: flow matching on the best image of each group, at the levels that the student samples at."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from trainer.backends import Conditioning
from trainer.flow import renoise
from trainer.losses import mean_square
from trainer.methods.base import Groups
from trainer.methods.student_only import StudentOnly
from trainer.roles import STUDENT
from trainer.shares import Part


class BestOfGroup(StudentOnly):
    """See the module's docstring. The first of equally good images; `gradient_steps` steps for each batch."""

    name = "best_of_group"

    def learn(self, groups: Groups, generator: torch.Generator) -> dict[str, float]:
        """See `Method.learn`."""
        p = len(groups.advantages)
        part = groups.part or Part.whole(p)
        # Of each image as many copies, at levels and noise of their own, as fill a batch of the student's.
        copies = max(1, self.settings.student_batch // part.total)
        rows = torch.arange(p, device=groups.trajectory.device)
        best = groups.trajectory[rows, groups.advantages.argmax(1), -1].repeat_interleave(copies, 0)
        conditioning, part = groups.conditioning.repeat(copies), part.each(copies)
        steps = range(self.settings.gradient_steps)
        return [self.matching_step(best, conditioning, generator, part) for _ in steps][-1]

    def matching_step(
        self, x0: torch.Tensor, conditioning: Conditioning, generator: torch.Generator, part: Part
    ) -> dict[str, float]:
        """One gradient step on images (B, C, h, w): `|v_student(x_tau, tau) - (eps - x0)|²` at a random level each."""
        tau = self.levels_of(part.pick(torch.randint(self.steps, (part.total,), generator=generator)))
        eps = self.noise(part, x0.shape[1:], generator)
        x_tau = renoise(x0, torch.zeros_like(tau), tau, eps)

        def losses() -> Iterator[tuple[torch.Tensor, int]]:
            for i in self.graphs(len(x0)):
                v = self.velocity(STUDENT, x_tau[i], tau[i], conditioning.take(i))
                yield mean_square(v - (eps[i] - x0[i])).mean(), len(v)

        return {"flow_matching": self.step_student(losses(), part)}
