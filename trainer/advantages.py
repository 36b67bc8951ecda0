"""Rewards of a group into advantages."""

from __future__ import annotations

import torch

from common.signal import ROUNDING, SAME


def group_advantages(
    rewards: torch.Tensor, known: torch.Tensor, *, inclusion: torch.Tensor | None = None, limit: float = 5.0
) -> torch.Tensor:
    """`A = (r - mean of the group) / (std over the batch + 1e-4)`, clipped to ±limit; 0 where the reward is unknown.

    `inclusion` (P, G) is the chance of each image to be there of all that were made: means are then those of all images
    made, and each advantage weighs 1 / its chance (over the group's mean weight), so that a sum over the images that are
    there estimates the one over all. None: all are there.

    `rewards`, `known`: (P, G) float and bool. A group whose known rewards are all equal has A = 0 everywhere.
    Source: TDM-R1, section on group preference; the batch-wide std is its choice over GRPO's per-group one.
    """
    weight = known.float()
    if inclusion is not None:
        weight = weight / inclusion
        weight = weight * known.sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1e-6)
    rewards = torch.where(known, rewards, 0.0)
    count = weight.sum(1, keepdim=True).clamp_min(1)
    centred = (rewards - (rewards * weight).sum(1, keepdim=True) / count) * known.float()
    total = weight.sum().clamp_min(1)
    mean = (rewards * weight).sum() / total
    std = ((rewards - mean) ** 2 * weight).sum().div(total).sqrt()
    # Equal rewards must give exactly zero, not rounding noise.
    centred = torch.where(centred.abs() < 1e-6, 0.0, centred)
    return (centred / (std + 1e-4)).clamp(-limit, limit) * weight


def has_signal(rewards: torch.Tensor, known: torch.Tensor | None = None) -> torch.Tensor:
    """(P,) bool: groups that teach something, by the rule of `common.signal`.

    `rewards` (P, G) within 0..1; `known` (P, G) bool, None where all are.
    """
    known = torch.ones_like(rewards, dtype=torch.bool) if known is None else known
    if not rewards.numel():
        return torch.zeros(len(rewards), dtype=torch.bool)
    highest = torch.where(known, rewards, -torch.inf).amax(1)
    lowest = torch.where(known, rewards, torch.inf).amin(1)
    return highest - lowest > SAME + ROUNDING


def better_pairs(rewards: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """(P, G, G) bool: whether a group's first image is known to be better than its second; `rewards`, `known` (P, G)."""
    return (rewards[:, :, None] > rewards[:, None, :]) & known[:, :, None] & known[:, None, :]


def pairs_right(opinions: torch.Tensor, rewards: torch.Tensor, known: torch.Tensor) -> float:
    """The share of pairs of one group's images with unequal rewards that `opinions` (higher is better) order as the rewards
    do; an equal opinion is half right. All (P, G), `known` bool. NaN where there is no such pair."""
    better = better_pairs(rewards, known)
    first, second = opinions[:, :, None], opinions[:, None, :]
    right = (first > second).double() + 0.5 * (first == second).double()
    return ((right * better).sum() / better.sum()).item()
