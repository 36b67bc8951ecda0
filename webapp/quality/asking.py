"""How many people a group is asked about: so many, or from so many on until its labels are sure enough. Pure; the same rule
for queries is in `webapp.quality.needing`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from webapp.campaigns.models import Project


@dataclass(frozen=True)
class Asking:
    """`least` to `most` people: beyond the least one after the other, until the labels' certainty is `sure`. With
    `tie_break` one more after the last where people are split evenly over an image."""

    least: int
    most: int
    sure: float
    tie_break: bool = False

    @classmethod
    def of(cls, project: Project) -> Asking:
        """As its settings are now."""
        return cls(project.overlap, project.last_asked, project.sure, project.tie_break)

    @property
    def ranged(self) -> bool:
        """Whether it depends on the labels."""
        return self.most > self.least

    def wanted(self, answers: int, tie: bool = False, certainty: float = 0.0) -> int:
        """How many people a group with so many answers needs in all, by what its labels come to (`Consensus`)."""
        if answers < self.least and self.ranged:
            return self.least
        if answers < self.most and self.ranged:
            return answers + (certainty < self.sure)
        return self.most + (tie and self.tie_break)
