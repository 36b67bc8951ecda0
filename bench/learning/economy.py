"""What simulated people rate, and ways to make more of their labels, for `bench/learning/label_economy.py`.

First the images they rate, then the techniques. Rewards are shares of likes
in 0..1 by position in a group, as in `trainer.data`.
"""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from bench.learning.people import RatedGroup, Seen, seen_in
from trainer.backends import Backend, Conditioning
from trainer.cli import MODEL
from trainer.data import LabelledGroup, load_groups, read_groups
from trainer.demo.scenes.prompts import TAGS, prompts
from trainer.losses import denoising_error
from trainer.methods.base import Groups
from trainer.oracles import get_oracle
from trainer.roles import SURROGATE, TEACHER
from trainer.rounds import RoundSpec, Stages, prepare
from trainer.rounds.sources import LabelSource, OracleSource
from trainer.sampler import Sampler, load_trajectory, related_noise, save_trajectory
from trainer.watch.looks import MOST_HELD_OUT, ranked_right

LABEL_SEEDS = 500_000_000  # of the labelled images' noise; evaluation seeds start at 700,000,000


# --- what they rate ---------------------------------------------------------------------------------------------------


def rated_groups(
    version: Path, count: int, size: int, spread: float, seed: int, folder: Path, *, first: int = 0
) -> list[RatedGroup]:
    """`count` groups of training prompts by a version, all tags alike, each with what the oracle thinks of it; those that
    are in `folder` are not made again. Prompt, noise and errors follow from a group's index, counted from `first`.
    `spread` is `trainer.sampler.related_noise`'s, 1 is the app's independent noise."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "rated.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    if len(lines) < count:
        oracle, sampler = get_oracle("scenes"), Sampler(MODEL)
        sampler.use_version(version)
        pools = [prompts("train", tags=(tag,)) for tag in TAGS]
        with file.open("a") as out:
            for i in range(first + len(lines), first + count):
                row = random.Random(f"prompt-{seed}-{i}").choice(pools[i % len(pools)])
                generator = torch.Generator().manual_seed(LABEL_SEEDS + 1_000_000 * seed + i)
                noise = related_noise(1, size, sampler.backend.latent_shape, spread, generator)
                group = sampler.sample_from(row.prompt, noise, range(size))
                verdicts = oracle.score(group.images, [row.prompt] * size, [row.metadata] * size)
                save_trajectory(folder / f"{i}.safetensors", group, prompt=row.prompt, version="1")
                seen = [vars(seen_in(image, row.metadata)) for image in group.images]
                line = {"index": i, "prompt": row.prompt, "metadata": row.metadata, "seen": seen}
                line |= {"liked": [v.liked for v in verdicts], "trajectory_file": str(folder / f"{i}.safetensors")}
                lines.append(line)
                out.write(json.dumps(line) + "\n")
    return [
        RatedGroup(**{**line, "liked": tuple(line["liked"]), "seen": tuple(map(_seen, line["seen"]))})
        for line in lines[:count]
    ]


def _seen(line: dict) -> Seen:
    return Seen(tuple(line["colors"]), line["size"])


def labelled(groups: Sequence[RatedGroup], rewards: Sequence[Sequence[float]]) -> list[LabelledGroup]:
    """Groups as the trainer reads them."""
    return [
        LabelledGroup(str(group.index), group.prompt, group.metadata, "1", group.trajectory_file, tuple(values))
        for group, values in zip(groups, rewards, strict=True)
    ]


# --- techniques -------------------------------------------------------------------------------------------------------


class StopsInTime(LabelSource):
    """Keeps a fifth of the labelled groups back, sixteen at most, and gives none to learn from any more when the surrogate
    has ranked them no better for `PATIENCE` looks; it is then as it was at its best. Cannot go on from a checkpoint."""

    EVERY, PATIENCE = 4, 3

    def __init__(self, method, settings, prompts, store):
        order = torch.randperm(len(store), generator=torch.Generator().manual_seed(settings.seed))
        held = min(MOST_HELD_OUT, max(1, len(order) // 5))
        super().__init__(method, settings, prompts, store, order[held:].sort().values)
        self.kept_back = order[:held]
        self.best, self.best_accuracy, self.since, self.calls = None, -1.0, 0, 0

    def batches(self, generator: torch.Generator) -> Iterator[Groups]:
        """See `LabelSource.batches`; looks once the surrogate has learned from them."""
        if self.since >= self.PATIENCE:
            return
        yield from super().batches(generator)
        self.calls += 1
        if self.calls % self.EVERY == 0:
            self._look()

    def _look(self) -> None:
        accuracy = statistics.mean(ranked_right(self.method, self.store, self.kept_back))
        self.since += 1
        if accuracy > self.best_accuracy:
            self.best, self.best_accuracy, self.since = self.method.roles.state_dict(SURROGATE), accuracy, 0
        if self.since >= self.PATIENCE:
            self.method.roles.load_state_dict(SURROGATE, self.best)


def stops_in_time(spec: RoundSpec) -> Stages:
    """A round from labels with `StopsInTime` as its source."""
    made = prepare(spec)
    source = made.source
    made.source = StopsInTime(made.method, made.settings, source.prompts, source.store)
    return made


HEAD_TIMES = (0.1, 0.3, 0.5, 0.7)  # levels that images are re-noised to before the frozen base looks at them
HEAD_TOKENS = 0.5  # of these, the one whose tokens count; the others' denoising errors do
ERROR_WEIGHT = 3.0  # dozens of errors stand against hundreds of token features
HEAD_DECAYS = (1e-3, 1e-2, 1e-1, 1.0)
HEAD_FOLDS = 4
JUDGED_AT_ONCE = 32


@torch.no_grad()
def features(backend: Backend, x0: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
    """What the frozen base sees in images (B, C, h, w) beside their prompt, (B, F): at each of `HEAD_TIMES` its denoising
    error with the prompt, without it, and their difference; then the mean over the image's tokens of the outputs of the
    later half of its blocks. One noise for all images, so that they differ by what they show."""
    seen: list[torch.Tensor] = []
    blocks = backend.transformer.transformer_blocks
    hooks = [b.register_forward_hook(lambda _m, _in, out: seen.append(out[1])) for b in blocks[len(blocks) // 2 :]]
    eps = torch.randn(x0[:1].shape, generator=torch.Generator().manual_seed(0)).expand_as(x0)
    empty = backend.encode([""]).repeat(len(x0))
    errors, tokens = [], []
    try:
        for t in HEAD_TIMES:
            tau = torch.full((len(x0),), t)
            seen.clear()
            with_prompt = denoising_error(partial(backend.velocity, conditioning=conditioning), x0, tau, eps)
            if t == HEAD_TOKENS:
                tokens = [part.float().mean(1) for part in seen]
            without = denoising_error(partial(backend.velocity, conditioning=empty), x0, tau, eps)
            errors += [with_prompt, without, without - with_prompt]
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat([torch.stack(errors, 1), *tokens], 1)


def features_of(backend: Backend, groups: Sequence[LabelledGroup]) -> list[torch.Tensor]:
    """The same of each group's finished images, (G, F) a group."""
    found = []
    for group in groups:
        x0 = load_trajectory(Path(group.trajectory_file)).trajectory[:, -1]
        found.append(features(backend, x0, backend.encode([group.prompt]).repeat(len(x0))))
    return found


def fit_logistic(x: torch.Tensor, y: torch.Tensor, decay: float) -> torch.Tensor:
    """Logistic regression of labels y (N,) in 0..1 on features x (N, F) with a bias; weights (F + 1,)."""
    weights = torch.zeros(x.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = x @ weights[:-1] + weights[-1]
        value = binary_cross_entropy_with_logits(logits, y) + decay * weights[:-1].pow(2).sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weights.detach()


class Head:
    """P(like) from frozen features, learned from labelled groups."""

    def __init__(self, x: Sequence[torch.Tensor], y: Sequence[torch.Tensor]):
        """Features (G, F) and labels (G,) of each group. The decay is the one whose probabilities of groups left out fit
        their labels best, so they are calibrated."""
        everything = torch.cat(list(x))
        self.mean, self.std = everything.mean(0), everything.std(0).clamp_min(1e-6)
        x = [self._standard(part) for part in x]

        def left_out(decay: float) -> float:
            total = 0.0
            for fold in range(HEAD_FOLDS):
                inside, outside = ([i for i in range(len(x)) if (i % HEAD_FOLDS == fold) == out] for out in (0, 1))
                w = fit_logistic(torch.cat([x[i] for i in inside]), torch.cat([y[i] for i in inside]), decay)
                logits = torch.cat([x[i] for i in outside]) @ w[:-1] + w[-1]
                truth = torch.cat([y[i] for i in outside])
                total += binary_cross_entropy_with_logits(logits, truth, reduction="sum").item()
            return total

        self.weights = fit_logistic(torch.cat(x), torch.cat(list(y)), min(HEAD_DECAYS, key=left_out))

    def _standard(self, x: torch.Tensor) -> torch.Tensor:
        x = (x - self.mean) / self.std
        errors = 3 * len(HEAD_TIMES)
        return torch.cat([ERROR_WEIGHT * x[:, :errors], x[:, errors:]], 1)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Probabilities (N,) for features (N, F)."""
        return (self._standard(x) @ self.weights[:-1] + self.weights[-1]).sigmoid()


def head_of(backend: Backend, groups: Sequence[LabelledGroup]) -> Head:
    """The head that labelled groups teach; images that nobody decided on teach nothing."""
    x, y = [], []
    for part, group in zip(features_of(backend, groups), groups, strict=True):
        known = [i for i, reward in enumerate(group.rewards) if reward is not None]
        x.append(part[known])
        y.append(torch.tensor([group.rewards[i] for i in known], dtype=torch.float32))
    return Head(x, y)


def extended(backend: Backend, rated: Sequence[LabelledGroup], more: Sequence[LabelledGroup]) -> list[LabelledGroup]:
    """Labelled groups and, with the head's probability of a like as their images' reward, unlabelled ones. Where it is
    unsure its probabilities differ little, and the batch-wide advantage then gives them as little weight."""
    head = head_of(backend, rated)
    opinions = [tuple(head(x).tolist()) for x in features_of(backend, more)]
    return [*rated, *(replace(g, group=f"more-{g.group}", rewards=p) for g, p in zip(more, opinions, strict=True))]


def judged_by_head(spec: RoundSpec) -> Stages:
    """A round in which the head judges fresh groups of the student in every update, as an oracle would; the labels teach
    nothing else."""
    made = prepare(spec)
    backend = made.method.backend
    head = head_of(backend, read_groups(Path(spec.groups_file)))

    def score(latents: torch.Tensor, prompts: list[str], lines: list[dict]) -> list[float]:
        found = []
        with made.method.roles.merged(TEACHER):
            for i in range(0, len(latents), JUDGED_AT_ONCE):
                some = slice(i, i + JUDGED_AT_ONCE)
                found += head(features(backend, latents[some], backend.encode(prompts[some]))).tolist()
        return found

    made.source = OracleSource(made.method, made.settings, made.source.prompts, score, made.state)
    return made


def write_groups(groups: Sequence[LabelledGroup], file: Path) -> int:
    """A groups file of the trainer's; returns how many groups in it carry signal."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(vars(group)) + "\n" for group in groups))
    return len(load_groups(read_groups(file)))
