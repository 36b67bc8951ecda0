"""What an update learns from: stored labels, or groups that are sampled and scored in it.

A source gives the `Scored` of an update. Its numbers are drawn from the update's generator when they are asked for, in the
order in which the update uses them, so that a resumed round draws what an unbroken one would.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from common.settings import MOST_UPDATES, TDMR1Settings
from common.sizes import Size, size_in
from trainer.advantages import group_advantages, has_signal
from trainer.backends import moved
from trainer.controls import ranked_by_base
from trainer.data import GroupStore
from trainer.methods.base import Groups, Method, Rollouts
from trainer.oracles import Oracle
from trainer.prompts import input_size
from trainer.roles import TEACHER
from trainer.rounds.spec import RoundState
from trainer.sampler import related_noise
from trainer.shares import gather_rows

Score = Callable[[torch.Tensor, list[str], list[dict]], Sequence[float]]  # latents, prompts, GenEval lines → rewards


@dataclass
class Scored:
    """What update `step` (from 0) learns from. `batches` are groups with signal, one for each time that the method learns,
    and `rollouts()` what it then follows on; both draw from `generator` when they are asked for."""

    step: int
    generator: torch.Generator
    batches: Iterator[Groups]
    rollouts: Callable[[], Rollouts]
    metrics: dict[str, float] = field(default_factory=dict)


class Source(Protocol):
    """Where an update's groups come from."""

    def scored(self, step: int) -> Scored:
        """What update `step` learns from."""

    def sample(self, count: int) -> Iterator[Groups]:
        """The groups with signal among `count` new ones, sampled and scored before the first update; none where labels are
        stored."""

    def prompts_to_come(self, first: int) -> list[str]:
        """Every prompt that the updates from `first` on will need embedded."""


Kind = tuple[Size | None, Size | None]  # sizes of images (None: the model's own) and of their input images (None: none)


class Prompts:
    """Draws training prompts: every tag as often as any other, so that one with many prompts is not worth more. An update's
    images have one size, and so have their input images, since only equal ones go through the network together: a size is
    drawn as often as prompts name it, and those that name none are dealt out evenly."""

    def __init__(self, lines: Sequence[dict], seed: int, sizes: Sequence[Size] = ()):
        """`sizes` are those of prompts that name none; without any the model's own."""
        self.pools: dict[Kind, dict[str, list[dict]]] = {}
        self.weights: dict[Kind, float] = {}
        for line in lines:
            own = size_in(line)
            allowed = [own] if own else list(sizes) or [None]
            for kind in ((size, input_size(line["prompt"])) for size in allowed):
                self.pools.setdefault(kind, {}).setdefault(line.get("tag", ""), []).append(line)
                self.weights[kind] = self.weights.get(kind, 0.0) + 1 / len(allowed)
        self.seed = seed

    @property
    def sizes(self) -> list[Size | None]:
        """Every size that an update may have; None is the model's own."""
        return list(dict.fromkeys(size for size, _input in self.weights))

    def size(self, step: int) -> Size | None:
        """Of the images that update `step` makes."""
        return self._kind(step)[0]

    def _kind(self, step: int) -> Kind:
        kinds, weights = list(self.weights), list(self.weights.values())
        return kinds[0] if len(kinds) == 1 else random.Random(f"size-{self.seed}-{step}").choices(kinds, weights)[0]

    def draw(self, step: int, count: int) -> list[dict]:
        """The `count` GenEval lines of update `step`; the same whenever they are asked for."""
        rng = random.Random(f"round-{self.seed}-{step}")
        mine = list(self.pools[self._kind(step)].values())
        pools = rng.sample(mine, len(mine))
        return [rng.choice(pools[i % len(pools)]) for i in range(count)]


def generator_of(settings: TDMR1Settings, step: int) -> torch.Generator:
    """The random numbers of update `step`."""
    return torch.Generator().manual_seed(settings.seed * 1_000_003 + step)


class _Source:
    def __init__(self, method: Method, settings: TDMR1Settings, prompts: Prompts):
        self.method, self.settings, self.prompts, self.share = method, settings, prompts, method.share

    def sample(self, count: int) -> Iterator[Groups]:
        """See `Source.sample`."""
        return iter(())

    def unscored(self, step: int, generator: torch.Generator) -> Rollouts:
        """What the student follows on when nothing of it is scored."""
        part = self.share.part(self.settings.student_batch)
        everyone = [line["prompt"] for line in self.prompts.draw(step, part.total)]
        prompts = [everyone[i] for i in part.index.tolist()]
        with self.method.backend.sized(self.prompts.size(step)):
            noise = torch.randn((part.total, *self.method.backend.latent_shape), generator=generator)
            conditioning = self.method.backend.encode(prompts)
            return Rollouts(self.method.sample(conditioning, part.pick(noise)), prompts, part)

    def _unscored_prompts(self, step: int) -> list[str]:
        if step < self.settings.updates_alone or not self.method.follows:
            return []
        return [line["prompt"] for line in self.prompts.draw(step, self.settings.student_batch)]


GROUPS_ASKED = 24  # labelled groups that the base is asked about before a round: seconds on a CPU


class LabelSource(_Source):
    """Batches of stored labelled groups, drawn anew for each time that the method learns."""

    def __init__(
        self,
        method: Method,
        settings: TDMR1Settings,
        prompts: Prompts,
        store: GroupStore,
        taught: torch.Tensor | None = None,
    ):
        """`taught` (n,) numbers the groups of the store that are learned from; None: all."""
        super().__init__(method, settings, prompts)
        self.store, self.taught = store, torch.arange(len(store)) if taught is None else taught
        self.sizes = store.by_size(self.taught)

    def scored(self, step: int) -> Scored:
        """See `Source.scored`."""
        generator = generator_of(self.settings, step)
        learns = self.settings.learns_reward(step)
        batches = self.batches(generator) if learns else iter(())
        about = self.about() if step == 0 else {}
        return Scored(step, generator, batches, lambda: self.unscored(step, generator), about)

    def batches(self, generator: torch.Generator) -> Iterator[Groups]:
        """As many batches as the settings say that an update looks at."""
        for _ in range(self.settings.surrogate_updates_for(len(self.taught))):
            equal = self._of_one_size(generator)
            size = min(self.settings.prompts_per_update, len(equal))
            part = self.share.part(size)
            drawn = equal[torch.randperm(len(equal), generator=generator)[:size]]
            batch = self.store.take(part.pick(drawn), self.store.shapes[int(drawn[0])])
            backend = self.method.backend
            conditioning = backend.encode(batch.prompts)
            yield Groups(
                moved(batch.trajectory, backend.device),
                conditioning,
                moved(batch.advantages, backend.device),
                part,
                rewards=batch.rewards.to(backend.device),
                prompts=tuple(batch.prompts),
                imported=batch.imported,
            )

    def _of_one_size(self, generator: torch.Generator) -> torch.Tensor:
        """The taught groups of one size, each size as often as it has groups."""
        if len(self.sizes) == 1:
            return self.sizes[0]
        counts = torch.tensor([float(len(some)) for some in self.sizes])
        return self.sizes[int(torch.multinomial(counts, 1, generator=generator))]

    def about(self) -> dict[str, float]:
        """How many groups are learned from, how many are left out, and what the base knows of the labels already."""
        silent, damaged = self.store.silent, len(self.store.damaged)
        order = torch.randperm(len(self.taught), generator=torch.Generator().manual_seed(self.settings.seed))
        self.method.roles.use(TEACHER)
        known = ranked_by_base(self.method.backend, self.store, self.taught[order[:GROUPS_ASKED]])
        counts = {"groups_taught": len(self.taught), "groups_silent": silent, "groups_damaged": damaged}
        if self.store.imported is not None:
            counts["groups_imported"] = int(self.store.imported[self.taught].sum())
        return counts if math.isnan(known) else {**counts, "base_ranks": known}

    def prompts_to_come(self, first: int) -> list[str]:
        """See `Source.prompts_to_come`."""
        drawn = [prompt for step in range(first, self.settings.updates) for prompt in self._unscored_prompts(step)]
        return [*drawn, *self.store.prompts]


class OracleSource(_Source):
    """Groups that the student samples in the update and that are scored at once."""

    def __init__(
        self,
        method: Method,
        settings: TDMR1Settings,
        prompts: Prompts,
        score: Score,
        state: RoundState,
        store: GroupStore | None = None,
    ):
        """`state` counts what was scored; `store` holds groups that a head looks at beside."""
        super().__init__(method, settings, prompts)
        self.score, self.state, self.store = score, state, store

    def scored(self, step: int) -> Scored:
        """See `Source.scored`."""
        generator = generator_of(self.settings, step)
        if not self.settings.learns_reward(step):
            return Scored(step, generator, iter(()), lambda: self.unscored(step, generator))
        sampled = self._sample(step, generator)
        metrics = {"reward": sampled.rewards.mean().item(), "signal": sampled.loud.float().mean().item()}
        times = self.settings.surrogate_updates_for(0)
        return Scored(step, generator, sampled.batches(times), sampled.chosen, metrics)

    def sample(self, count: int) -> Iterator[Groups]:
        """See `Source.sample`; prompts and noise are of updates that no round makes."""
        for step in self._before(count):
            yield from self._sample(step, generator_of(self.settings, step)).batches(1)

    def _before(self, count: int) -> range:
        return range(MOST_UPDATES, MOST_UPDATES + -(-count // self.settings.prompts_per_update))

    def _sample(self, step: int, generator: torch.Generator) -> _Sampled:
        with self.method.backend.sized(self.prompts.size(step)):
            return self._sample_sized(step, generator)

    def _sample_sized(self, step: int, generator: torch.Generator) -> _Sampled:
        s, method = self.settings, self.method
        everyone = self.prompts.draw(step, s.prompts_per_update)
        mine = self.share.part(len(everyone))
        rows = [everyone[i] for i in mine.index.tolist()]
        lines = [row for row in rows for _ in range(s.group_size)]
        prompts = [line["prompt"] for line in lines]
        owner = torch.arange(len(everyone)).repeat_interleave(s.group_size)  # of each image of the whole update
        noise = related_noise(len(everyone), s.group_size, method.backend.latent_shape, s.noise_spread, generator)
        noise = self.share.among(owner).pick(noise)
        trajectory = method.roll_out(method.backend.encode(prompts), noise, generator)
        scores = method.by_main(lambda: self.score(trajectory[:, -1], prompts, lines))
        rewards = torch.tensor(scores, device=method.backend.device).reshape(len(rows), s.group_size)
        rewards = (rewards if method.as_one else gather_rows(method.accelerator, rewards)).cpu()
        advantages = group_advantages(rewards, torch.ones_like(rewards, dtype=torch.bool))
        loud = has_signal(rewards)
        self.state.images_scored += rewards.numel()
        self.state.silent_groups += int((~loud).sum())
        return _Sampled(self, generator, trajectory, prompts, rewards, advantages, loud, owner)

    def prompts_to_come(self, first: int) -> list[str]:
        """See `Source.prompts_to_come`."""
        drawn = [] if self.store is None else list(self.store.prompts)
        if self.method.explicit and self.store is None and first == 0:
            for step in self._before(self.settings.head_groups):
                drawn += [line["prompt"] for line in self.prompts.draw(step, self.settings.prompts_per_update)]
        for step in range(first, self.settings.updates):
            if self.settings.learns_reward(step):
                drawn += [line["prompt"] for line in self.prompts.draw(step, self.settings.prompts_per_update)]
            else:
                drawn += self._unscored_prompts(step)
        return drawn


@dataclass
class _Sampled:
    """The images of an update: this process' trajectories and prompts, everybody's rewards and advantages (P, G)."""

    source: OracleSource
    generator: torch.Generator
    trajectory: torch.Tensor | None
    prompts: list[str]
    rewards: torch.Tensor
    advantages: torch.Tensor
    loud: torch.Tensor  # (P,)
    owner: torch.Tensor  # (P·G,)

    def batches(self, times: int) -> Iterator[Groups]:
        """The groups with signal, `times` times; never where there is none."""
        if not self.loud.any():
            return
        groups = self._groups()
        for _ in range(times):
            yield groups

    def _groups(self) -> Groups:
        method, share, size = self.source.method, self.source.share, self.advantages.shape[1]
        mine, device = share.part(len(self.loud)).pick(self.loud), method.backend.device
        kept = self.trajectory.unflatten(0, (len(mine), size))[mine.to(device)]
        names = [prompt for prompt, is_loud in zip(self.prompts[::size], mine.tolist(), strict=True) if is_loud]
        part = share.among(self.loud.nonzero().flatten())
        advantages = part.pick(self.advantages[self.loud]).to(device)
        rewards, sampled = part.pick(self.rewards[self.loud]).to(device), mine.nonzero().flatten()
        return Groups(kept, method.backend.encode(names), advantages, part, sampled, rewards, tuple(names))

    def chosen(self) -> Rollouts:
        """As many of the images as the student follows on. The others are not needed after that."""
        share = self.source.share
        chosen = torch.randperm(len(self.owner), generator=self.generator)[: self.source.settings.student_batch]
        part = share.among(self.owner[chosen])
        # Positions of the chosen images among this process' own ones.
        local = torch.searchsorted(share.among(self.owner).index, part.pick(chosen))
        trajectory, self.trajectory = self.trajectory[local.to(self.trajectory.device)], None
        return Rollouts(trajectory, [self.prompts[i] for i in local.tolist()], part, local)


def score_by(oracle: Oracle, method: Method) -> Score:
    """Rewards of decoded images by an oracle."""

    def score(latents: torch.Tensor, prompts: list[str], lines: list[dict]) -> list[float]:
        images = method.backend.decode(latents, bf16=method.bf16)
        return [verdict.score for verdict in oracle.score(images, prompts, lines)]

    return score
