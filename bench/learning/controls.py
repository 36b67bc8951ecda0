"""The controls of `trainer.controls` for benches whose rounds learn from an oracle: what it says of a group is dealt out
anew among the group's images, so that a gain over them is what the scores themselves taught."""

from __future__ import annotations

import torch

from trainer.controls import KINDS, by_own_error, own_errors, shuffled
from trainer.roles import TEACHER
from trainer.rounds import RoundSpec, Stages, prepare

TITLES = {"shuffled": "shuffled labels", "own_error": "labels in the order of the base's own error"}
SEEDS = 3_000_000_000  # of the shuffling, far from those of noise


def deal_out(made: Stages, kind: str) -> Stages:
    """The round with its oracle's scores dealt out by one of `KINDS`. Resumed, it deals as it would have. Raises ValueError
    on another kind."""
    if kind not in KINDS:
        raise ValueError(f"kind: {kind!r} is not one of {', '.join(KINDS)}")
    method, true, size = made.method, made.source.score, made.settings.group_size
    generator = torch.Generator()

    def score(latents: torch.Tensor, prompts: list[str], lines: list[dict]) -> list[float]:
        rewards = torch.tensor(list(true(latents, prompts, lines))).reshape(-1, size)
        known = torch.ones_like(rewards, dtype=torch.bool)
        if kind == "shuffled":
            generator.manual_seed(SEEDS + made.settings.seed * 1_000_003 + made.state.step)
            return shuffled(rewards, known, generator).flatten().tolist()
        with method.roles.merged(TEACHER):
            errors = own_errors(method.backend, latents.unflatten(0, (-1, size)), prompts[::size])
        return by_own_error(rewards, known, errors).flatten().tolist()

    made.source.score = score
    return made


def prepare_control(spec: RoundSpec, kind: str) -> Stages:
    """`prepare` of a round from an oracle, with a control where `kind` names one."""
    made = prepare(spec)
    return deal_out(made, kind) if kind else made
