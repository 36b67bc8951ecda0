"""TDM: the student follows the base's distribution, step by step of its own trajectories (arXiv 2603.07700 without reward).

It distils the base into the first few-step student, and is the half of TDM-R1's update that needs no scores.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from trainer.backends import Conditioning, moved
from trainer.flow import like, renoise, x0_from_velocity
from trainer.losses import StudentTargets, fake_loss, student_loss
from trainer.methods.base import Method, read
from trainer.roles import FAKE, STUDENT, STUDENT_EMA, TDM_ROLES, TEACHER
from trainer.shares import Part


class TDM(Method):
    """The fake score learns the student's distribution, and the student is pulled from there to the teacher's."""

    name = "tdm"
    roles_needed = TDM_ROLES

    def student_update(
        self,
        trajectory: torch.Tensor,
        conditioning: Conditioning,
        j: torch.Tensor,
        generator: torch.Generator,
        part: Part | None = None,
    ) -> dict[str, float]:
        """Train fake and student on step `j` (B,), on the CPU, of trajectories (B, K + 1, C, h, w).

        The student's pass is made once, with gradient, and serves the fake's target too; the fake and the teacher look at
        one re-noised point, so the teacher's conditional pass serves both losses. `part` tells which rows of the whole
        update these are (None: all). Returns what is worth logging.
        """
        s = self.settings
        part = part or Part.whole(len(j))
        if not len(j):  # this process holds nothing of the update, but the others wait for its gradients
            self.step(FAKE, (), part)
            self.step(STUDENT, (), part)
            self.roles.average(STUDENT, STUDENT_EMA, s.ema)
            return {}
        rows, here = torch.arange(len(j), device=trajectory.device), moved(j, trajectory.device)
        x_j, s_j, s_n = trajectory[rows, here], self.grid[here], self.grid[here + 1]
        v = self.velocity(STUDENT, x_j, s_j, conditioning)
        x0_hat = x0_from_velocity(x_j, s_j, v)
        x_n = (x_j - like(s_j - s_n, x_j) * v).detach()
        tau = self.tau(s_n, self.uniform(part, generator))
        x_tau = renoise(x_n, s_n, tau, self.noise(part, x_n.shape[1:], generator))
        teacher_cond, teacher_uncond = self.both_branches(TEACHER, x_tau, tau, conditioning)

        def fake_losses() -> Iterator[tuple[torch.Tensor, int]]:
            for i in self.graphs(len(j)):
                v_fake = self.velocity(FAKE, x_tau[i], tau[i], conditioning.take(i))
                held = (x_tau[i], tau[i], x0_hat[i].detach(), teacher_cond[i])
                yield fake_loss(v_fake, *held, teacher_weight=s.fake_teacher), len(v_fake)

        loss_fake = self.step(FAKE, fake_losses(), part)
        v_fake = self.fixed_velocity(FAKE, x_tau, tau, conditioning)

        x0_of = [x0_from_velocity(x_tau, tau, v) for v in (teacher_cond, teacher_uncond, v_fake)]
        pair, weights = self.reward_term(x_n, s_n, j, conditioning, generator, part)
        loss, terms = student_loss(x0_hat, StudentTargets(*x0_of, **pair), guidance=s.guidance, **weights)
        self.step(STUDENT, [(loss, len(j))], part)
        self.roles.average(STUDENT, STUDENT_EMA, s.ema)
        return read({"fake": loss_fake, "student": loss, **{f"student_{k}": v for k, v in terms.items()}})

    def reward_term(
        self, x_n, s_n, j, conditioning: Conditioning, generator: torch.Generator, part: Part
    ) -> tuple[dict[str, torch.Tensor], dict]:
        """(the reward's pair of `StudentTargets`, the weights of `student_loss`) at the points x_n (B, C, h, w), levels s_n
        (B,), that step `j` (B,), on the CPU, led to: here nothing is rewarded."""
        return {}, {"guidance_weight": 1.0}
