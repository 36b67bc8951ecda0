"""Two controls that tell teaching from sharpening: the same round from labels that say nothing, and from labels that the
base model gives itself.

A few-step student gets better from almost any pressure towards what its base finds likely. Whether a round learned from its
*labels* shows only beside the same round from `shuffled` labels, and from labels dealt out in the order of the base's own
denoising error (`by_own_error`). Where the second does as well as the true ones, the model was sharpened, not taught.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from common.files import write_atomic
from trainer.advantages import pairs_right
from trainer.backends import Backend, autocast
from trainer.data import GroupStore, LabelledGroup, pad_rewards
from trainer.losses import denoising_error
from trainer.sampler import load_trajectory

KINDS = ("shuffled", "own_error")
LEVELS = (0.3, 0.9)  # of noise, between which a base's error tells images apart
SEED = 912_000_000  # of the noise that errors are measured under


@torch.no_grad()
def own_errors(
    backend: Backend, images: torch.Tensor, prompts: Sequence[str], *, draws: int = 8, seed: int = SEED
) -> torch.Tensor:
    """The denoising error `‖eps - x0 - v(x_t)‖²` of the model as it stands (mean over pixels), (P, G), for final latents
    (P, G, C, h, w) of P prompts: the mean over `draws` levels, evenly spaced, whose noise a group's images share."""
    groups, size, *shape = images.shape
    generator = torch.Generator().manual_seed(seed)
    low, high = LEVELS
    total = torch.zeros(groups, size)
    for p in range(groups):
        x0, conditioning = images[p].to(backend.device).float(), backend.encode([prompts[p]]).repeat(size)
        velocity = partial(backend.velocity, conditioning=conditioning)
        for d in range(draws):
            t = torch.full((size,), low + (high - low) * (d + 0.5) / draws, device=x0.device)
            eps = torch.randn((1, *shape), generator=generator).to(x0.device).expand_as(x0)
            with autocast(backend.device):
                total[p] += denoising_error(velocity, x0, t, eps).cpu() / draws
    return total


def shuffled(rewards: torch.Tensor, known: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each group's known rewards dealt out anew at random; (P, G)."""
    return by_own_error(rewards, known, torch.rand(rewards.shape, generator=generator))


def by_own_error(rewards: torch.Tensor, known: torch.Tensor, errors: torch.Tensor) -> torch.Tensor:
    """Each group's known rewards dealt out in the order of the errors, the highest to the smallest; all (P, G)."""
    dealt = rewards.clone()
    for group, mine, has, error in zip(dealt, rewards, known, errors, strict=True):
        places = has.nonzero().flatten()
        group[places[error[places].argsort()]] = mine[places].sort(descending=True).values
    return dealt


def final_latents(groups: Sequence[LabelledGroup]) -> torch.Tensor:
    """What each image was decoded from, (P, G, C, h, w); smaller groups are padded with their first image."""
    found = [load_trajectory(Path(g.trajectory_file)).trajectory[:, -1] for g in groups]
    size = max(map(len, found))
    return torch.stack([torch.cat([x, x[:1].expand(size - len(x), *x.shape[1:])]) for x in found])


def ranked_by_base(backend: Backend, store: GroupStore, index: torch.Tensor, *, draws: int = 4) -> float:
    """The share of the labelled pairs in groups `index` (n,) of the store that the error of the model as it stands (for a
    round, the base) ranks right already; NaN without a pair. From about .7 on a round from them will mostly sharpen."""
    errors, advantages = [], []
    for some in store.by_size(index):
        batch = store.take(some)
        errors.append(own_errors(backend, batch.trajectory[:, :, -1], batch.prompts, draws=draws))
        advantages.append(batch.advantages)
    given = torch.cat(advantages)
    return pairs_right(-torch.cat(errors), given, given != 0)


def write_control(
    groups: Sequence[LabelledGroup], path: Path, kind: str, *, backend: Backend | None = None, seed: int = 0
) -> Path:
    """Write `groups` as a groups file at `path` with their rewards dealt out by one of `KINDS`; "own_error" asks `backend`.

    Trajectories stay where they are and are named by absolute paths. Raises ValueError on another kind.
    """
    rewards, known = pad_rewards([g.rewards for g in groups])
    if kind == "shuffled":
        dealt = shuffled(rewards, known, torch.Generator().manual_seed(seed))
    elif kind == "own_error":
        errors = own_errors(backend, final_latents(groups), [g.prompt for g in groups])
        dealt = by_own_error(rewards, known, errors)
    else:
        raise ValueError(f"kind: {kind!r} is not one of {', '.join(KINDS)}")
    lines = []
    for group, values in zip(groups, dealt.tolist(), strict=True):
        own = tuple(v if r is not None else None for r, v in zip(group.rewards, values, strict=False))
        file = str(Path(group.trajectory_file).resolve())
        lines.append(json.dumps(asdict(replace(group, rewards=own, trajectory_file=file))))
    write_atomic(path, ("\n".join(lines) + "\n").encode())
    return path
