"""What the alarm looks at during a round: the student's validation images beside its parent's, and held-out labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from trainer.advantages import pairs_right
from trainer.batches import equal_parts
from trainer.data import GroupStore
from trainer.evaluate import Evaluation
from trainer.methods.base import Groups, Method
from trainer.methods.tdm_r1 import TDMR1
from trainer.prompts import input_size, without_text
from trainer.roles import SURROGATE, TEACHER
from trainer.watch.alarm import ERRORS, Look, Reading, mean_of, relative
from trainer.watch.measures import measure_images

BATCH = 32  # images at once; `evaluate` takes twice as many
DRAWS = 2  # times and noises of an image
SEED = 911_000_000  # of them: the same in every look, so that looks differ by what they look at
MOST_HELD_OUT = 16  # groups
LEAST_HELD_OUT = 8  # fewer say nothing


def hold_out(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(held out, trained on): a tenth of `count` labelled groups at most, none where a tenth is too few to say anything."""
    held = min(MOST_HELD_OUT, count // 10)
    held = held if held >= LEAST_HELD_OUT else 0
    order = torch.randperm(count, generator=generator)
    return order[:held], order[held:].sort().values


def opinions(trainer: TDMR1, store: GroupStore, index: torch.Tensor) -> list[list[float]]:
    """The surrogate's reward of every image of each of the groups `index` (n,) of the store."""
    generator, found, device = torch.Generator().manual_seed(SEED), [], trainer.backend.device
    for i in index:
        batch = store.take(i[None])
        groups = Groups(batch.trajectory.to(device), trainer.backend.encode(batch.prompts), batch.advantages)
        with trainer.sized_as(groups.trajectory):
            found.append(trainer.learned_reward(groups, draws=DRAWS, generator=generator)[0].tolist())
    return found


def ranked_right(trainer: TDMR1, store: GroupStore | None, index: torch.Tensor | None) -> tuple[float, ...]:
    """The surrogate's share of right pairs in each of the groups `index` of the store; none without groups. Images of
    advantage 0 are left out: they are padding, or nobody decided."""
    if store is None or index is None:
        return ()
    pairs = zip(opinions(trainer, store, index), store.advantages[index], strict=True)
    return tuple(pairs_right(torch.tensor([opinion]), own[None], own[None] != 0) for opinion, own in pairs)


class Watch:
    """Compares a student's validation images with those that its parent makes of the same noise."""

    def __init__(
        self,
        trainer: Method,
        parent: Evaluation,
        prompts: list[str],
        *,
        scores: Sequence[float] = (),
        store: GroupStore | None = None,
        held_out: torch.Tensor | None = None,
        trained: torch.Tensor | None = None,
    ):
        """`scores` are the validation oracle's of the parent's images, if there is one; `held_out` and `trained` number
        groups of the store."""
        self.trainer, self.parent, self.prompts, self.scores = trainer, parent, prompts, scores
        self.store, self.held_out, self.trained = store, held_out, trained
        self.teacher = self._errors(TEACHER, parent.latents)
        self.recognition = self._recognition(parent.latents, self.teacher)
        known = mean_of(self.recognition.tolist())
        self.recognises = (
            known.change > ERRORS * known.error
        )  # else there is nothing to lose, and shares of it are noise
        self.measures = measure_images(parent.images, prompts)
        self.opinions: list[float] = []  # of the last look, by image; see `_opinions`

    def look(self, now: Evaluation, step: int) -> Look:
        """The student's images `now`, after `step` updates."""
        teacher = self._errors(TEACHER, now.latents)
        measures: dict[str, Reading] = {}
        if self.scores:
            measures["score"] = relative([v.score for v in now.verdicts], self.scores)
        if self.recognises:
            measures["recognition"] = relative(
                self._recognition(now.latents, teacher).tolist(), self.recognition.tolist()
            )
        for name, values in measure_images(now.images, self.prompts).items():
            measures[name] = relative(values.tolist(), self.measures[name].tolist())
        self.opinions = self._opinions(now.latents, teacher) if SURROGATE in self.trainer.roles.names else []
        return Look(
            step,
            mean_of(self.opinions) if self.opinions else None,
            measures,
            ranked_right(self.trainer, self.store, self.held_out),
            ranked_right(self.trainer, self.store, self.trained),
        )

    def _opinions(self, latents: Sequence[torch.Tensor], teacher: torch.Tensor) -> list[float]:
        """How much better the surrogate likes each image than the parent's of the same noise; `teacher` are the teacher's
        errors on them."""
        if self.trainer.explicit:
            return (self._scores(latents) - self._scores(self.parent.latents)).tolist()
        unit = (teacher + self.teacher) / 2
        gain = (teacher - self._errors(SURROGATE, latents)) / unit
        parents = (self.teacher - self._errors(SURROGATE, self.parent.latents)) / unit
        return (gain - parents).tolist()

    def _recognition(self, latents: Sequence[torch.Tensor], with_prompt: torch.Tensor) -> torch.Tensor:
        """How much of each image the frozen base explains by its prompt, (N,): what it errs more without one, relatively.
        An image that no longer shows its prompt has none, whatever it was destroyed by."""
        return (self._errors(TEACHER, latents, prompted=False) - with_prompt) / with_prompt

    def _scores(self, latents: Sequence[torch.Tensor]) -> torch.Tensor:
        """What the surrogate's head says of each image, (N,), on the CPU."""
        return self._each(latents, self.prompts, self.trainer.score)

    def _errors(self, role: str, latents: Sequence[torch.Tensor], *, prompted: bool = True) -> torch.Tensor:
        """Each image's denoising error under a role, (N,), on the CPU."""
        prompts = self.prompts if prompted else without_text(self.prompts)
        return self._each(latents, prompts, partial(self.trainer.denoising_error, role))

    def _each(
        self, latents: Sequence[torch.Tensor], prompts: Sequence[str], measure: Callable[..., torch.Tensor]
    ) -> torch.Tensor:
        """`measure(x0, conditioning, levels, noise)` of each image, (N,), on the CPU: its mean over `DRAWS` draws."""
        backend, found = self.trainer.backend, torch.zeros(len(latents))
        generator = torch.Generator().manual_seed(SEED)
        kinds = [(x.shape, input_size(prompt)) for x, prompt in zip(latents, prompts, strict=True)]
        for part in equal_parts(kinds, BATCH):
            x0 = torch.stack([latents[i] for i in part]).to(backend.device)
            conditioning, total = backend.encode([prompts[i] for i in part]), torch.zeros(len(x0))
            with self.trainer.sized_as(x0):
                for _ in range(DRAWS):
                    tau = self.trainer.draw_levels(len(x0), generator)
                    eps = self.trainer.draw_noise(len(x0), generator)
                    total += measure(x0, conditioning, tau, eps).cpu()
            found[part] = total / DRAWS
        return found
