"""One update of a round, whatever the method and wherever its groups come from."""

from __future__ import annotations

from common.settings import TDMR1Settings
from trainer.methods.base import Method, NotFinite, rate_factor
from trainer.rounds.sources import Scored


class Update:
    """The order of an update: the method learns from groups with signal, then it follows on trajectories."""

    def __init__(self, method: Method, settings: TDMR1Settings):
        self.method, self.settings = method, settings

    def step(self, scored: Scored) -> dict[str, float]:
        """Make the update that `scored` is of; returns what is worth logging. Raises NotFinite, naming role and update."""
        try:
            return self._step(scored)
        except NotFinite as error:
            raise NotFinite(error.role, error.what, scored.step + 1) from error

    def _step(self, scored: Scored) -> dict[str, float]:
        self.method.set_rate_factor(self._rate_factor(scored.step))
        metrics = scored.metrics | self._learn(scored)
        if self.settings.follows(scored.step) and self.method.follows:
            rollouts = scored.rollouts()
            with self.method.sized_as(rollouts.trajectory):
                metrics |= self.method.follow(rollouts, scored.generator)
        self.method.check_weights()
        return metrics

    def _learn(self, scored: Scored) -> dict[str, float]:
        """In a function of its own, so that no batch is alive while the student follows."""
        metrics: dict[str, float] = {}
        for groups in scored.batches:
            with self.method.sized_as(groups.trajectory):
                metrics |= self.method.learn(groups, scored.generator)
        return metrics

    def _rate_factor(self, step: int) -> float:
        """Each part of the round cools down for itself."""
        alone, updates = self.settings.updates_alone, self.settings.updates
        start, end = (0, alone) if step < alone else (alone, updates)
        return rate_factor(step - start, end - start, self.settings.cool_down)
