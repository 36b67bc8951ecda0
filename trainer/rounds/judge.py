"""Who decides what is kept: validations, the alarm, and whether the newest version takes the place of the best so far."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list

from common.settings import TDMR1Settings
from common.sizes import dealt_out, size_in
from trainer.data import GroupStore
from trainer.evaluate import Evaluation, clearly_worse, evaluate, sample_images
from trainer.methods.base import Method
from trainer.methods.tdm_r1 import TAUGHT_GUIDANCE, TAUGHT_STEPS, TDMR1
from trainer.oracles import Oracle
from trainer.prompts import Prompt
from trainer.roles import STUDENT_EMA
from trainer.rounds import comparison
from trainer.rounds.origin import validation_of
from trainer.rounds.spec import RoundSpec, RoundState
from trainer.watch.alarm import Look, parting, suspicious
from trainer.watch.looks import Watch

GRID_IMAGES = 16
TAUGHT_IMAGES = 8  # by the surrogate itself, each of which takes fifteen times as many passes


class Judge:
    """Looks at a round's student; what it saw is in the round's state. The main process looks, and tells the others."""

    def __init__(
        self,
        spec: RoundSpec,
        method: Method,
        state: RoundState,
        *,
        oracle: Callable[[], Oracle] | None,
        by_score: bool,
        store: GroupStore | None = None,
        held_out: torch.Tensor | None = None,
        trained: torch.Tensor | None = None,
    ):
        """`oracle` makes the one that scores validation images, if there is one. With `by_score` a version that scores
        clearly worse is not kept. `held_out` and `trained` number groups of the store for the alarm to compare."""
        self.spec, self.method, self.state, self.oracle, self.by_score = spec, method, state, oracle, by_score
        self.settings = TDMR1Settings.from_json(spec.settings)
        self.store, self.held_out, self.trained = store, held_out, trained
        self.watch: Watch | None = None
        self.main = method.as_one or method.accelerator.is_main_process

    def validate(self) -> Evaluation | None:
        """Scores need prompts and an oracle for them; the alarm looks at images of any prompts."""
        if not (self.main and self.settings.validation_images and (self.oracle or self.settings.alarm)):
            return None
        return self._evaluate(self.oracle() if self.oracle else None)

    def first(self) -> Evaluation | None:
        """The validation before the first update: what the parent's images are like."""
        before = self.validate()
        self.state.scores_before = before.scores if before else {}
        self.state.parent_rewards = [v.score for v in before.verdicts] if before else []
        self.state.parent_verdicts = comparison.noted(before.verdicts) if before else []
        self.state.validation = self._validation()
        return before

    def start_watch(self, parent: Evaluation | None) -> None:
        """Compare with these images of the parent from here on, for the alarm."""
        if parent is None or not self.settings.alarm:
            return
        self.watch = Watch(
            self.method,
            parent,
            [line["prompt"] for line in self._validation_lines()],
            scores=self.state.parent_rewards,
            store=self.store,
            held_out=self.held_out,
            trained=self.trained,
        )

    def start_watch_again(self) -> None:
        """The same in a resumed round: the parent's images are made again, of the same noise. They are scored again if
        prompts or oracle of the validation are others than before, and nothing is compared with earlier scores then."""
        others = self.state.validation != self._validation()
        if not (self.main and self.settings.validation_images and (others or self.settings.alarm)):
            return
        with self.method.as_parent(Path(self.spec.parent_dir)):
            if others:
                self.state.peak_rewards, self.state.best_verdicts = [], []
            images = self.first() if others else self._evaluate(None)
        self.start_watch(images)

    def look(self, evaluation: Evaluation | None) -> dict[str, float]:
        """Compare with the parent; what was seen is remembered, and returned as metrics."""
        if self.watch is None or evaluation is None:
            return {}
        look = self.watch.look(evaluation, self.state.step)
        self.state.looks.append(look.to_json())
        return look.metrics()

    def sound_alarm(self) -> None:
        """End the round if opinions have parted; the main process has looked and tells the others."""
        reason = parting(self._looks(), last=self.is_last())
        if reason:
            reason = (
                f"Stopped at update {self.state.step} of {self.settings.updates}: {reason}. "
                f"Kept: {f'update {self.state.best_step}' if self.state.best_step else 'the parent, unchanged'}."
            )
        self.state.alarm = broadcast_object_list([reason])[0]

    def keeps(self, evaluation: Evaluation | None) -> bool:
        """Whether the newest version is the best so far; if so, the state says so.

        With a reward oracle the newest version is kept unless it scores clearly worse than the best one so far: the
        cooled-down end of a round is better than its middle, and the highest of several noisy scores is mostly luck.
        Labels may ask for something that no oracle measures, so there the newest wins and the scores only inform. Neither
        keeps what the alarm is suspicious of."""
        if not self.main or suspicious(self._looks(), last=self.is_last()):
            return False
        if evaluation is not None and evaluation.verdicts and self.by_score:
            rewards, peak = [v.score for v in evaluation.verdicts], self.state.peak_rewards
            if peak and clearly_worse(rewards, peak):
                return False
            if not peak or sum(rewards) > sum(peak):
                self.state.peak_rewards = rewards
        self.state.best_step = self.state.step
        self.state.best_scores = evaluation.scores if evaluation else {}
        self.state.best_verdicts = comparison.noted(evaluation.verdicts) if evaluation else []
        self.state.best_opinions = self.watch.opinions[:GRID_IMAGES] if self.watch and evaluation else []
        return True

    def is_due(self) -> bool:
        """Whether the newest update is one to validate after."""
        step, s = self.state.step, self.settings
        return self.is_last() or (step % s.validate_every == 0 and step > s.updates_alone)

    def is_last(self) -> bool:
        """Whether all updates are made."""
        return self.state.step == self.settings.updates

    def grid(self) -> list:
        """Images of a few prompts by the student's average, the same noise each time."""
        self.method.roles.use(STUDENT_EMA)
        return self._pictures(GRID_IMAGES, steps=self.method.steps)

    def taught(self) -> list:
        """Images of a few of these prompts by the surrogate itself, of the same noise: what it knows, whatever the student
        made of it. None where there is no surrogate."""
        if not isinstance(self.method, TDMR1):
            return []
        guidance = 1.0 if self.method.backend.distilled else TAUGHT_GUIDANCE
        sample = partial(self.method.sample_taught, guidance=guidance)
        return self._pictures(TAUGHT_IMAGES, steps=TAUGHT_STEPS, sample=sample)

    def _pictures(self, count: int, **how) -> list:
        lines = self._lines()[:count]
        sizes = [size_in(line) for line in lines]
        return sample_images(self.method.backend, [line["prompt"] for line in lines], sizes=sizes, **how)

    def comparison(self, size: tuple[int, int]) -> dict:
        """What the pictures before and after show, images of `size` pixels, and how the validation's scores changed from
        the parent to the version that is kept. Both begin with the same prompts and noise."""
        before, after = self.state.parent_verdicts, self.state.best_verdicts
        return {
            "columns": comparison.COLUMNS,
            "size": list(size),
            "pairs": comparison.pairs(self._lines()[:GRID_IMAGES], before, after, self.state.best_opinions),
            "changes": comparison.changes(self._validation_lines()[: len(before)], before, after),
        }

    def shown_prompts(self) -> list[str]:
        """The validation prompts in a fixed mixed order, so that the first few are of every kind."""
        return [line["prompt"] for line in self._lines()]

    def _lines(self) -> list[dict]:
        lines = list(self.spec.validation or self.spec.train_prompts)
        random.Random(0).shuffle(lines)
        return dealt_out(lines, self.spec.pixels)

    def _validation_lines(self) -> list[dict]:
        lines = self._lines()
        return [lines[i % len(lines)] for i in range(self.settings.validation_images)]

    def _validation(self) -> str:
        return validation_of(self._validation_lines(), self.spec.validation_oracle if self.oracle else None)

    def _evaluate(self, oracle: Oracle | None) -> Evaluation:
        rows = [Prompt.of_line(line, "validation") for line in self._validation_lines()]
        with self.method.roles.merged(STUDENT_EMA):
            return evaluate(self.method.backend, rows, oracle, steps=self.method.steps, bf16=self.method.bf16)

    def _looks(self) -> list[Look]:
        return [Look.from_json(look) for look in self.state.looks]
