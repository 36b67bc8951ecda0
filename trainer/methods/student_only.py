"""What the methods share that train the student and nothing else: no teacher term, no fake, no surrogate."""

from __future__ import annotations

from typing import ClassVar

import torch

from trainer.methods.base import SURROGATE_BETAS, Method
from trainer.roles import STUDENT, STUDENT_EMA
from trainer.shares import Part

INITIAL = "initial"  # the student that the round started from; nothing trains it


class StudentOnly(Method):
    """The student's steps; its average follows."""

    roles_needed = (STUDENT, STUDENT_EMA, INITIAL)
    starts_as_student = (STUDENT, STUDENT_EMA, INITIAL)
    follows = False
    betas: ClassVar = {STUDENT: SURROGATE_BETAS}  # nothing chases the student here, so momentum does not lag behind

    def step_student(self, losses, part: Part) -> float:
        """See `Method.step`."""
        mean = self.step(STUDENT, losses, part)
        self.roles.average(STUDENT, STUDENT_EMA, self.settings.ema)
        return mean

    def levels_of(self, j: torch.Tensor) -> torch.Tensor:
        """The levels that steps `j` (on the CPU) start from, on the device."""
        return self.levels[j].to(self.backend.device)
