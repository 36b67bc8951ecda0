"""Places that people marked on disliked images, as weights of the surrogate's loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch

Box = tuple[float, float, float, float]  # left, top, width, height as shares of the image


def covered(boxes: Sequence[Box], size: tuple[int, int]) -> torch.Tensor:
    """The share of each cell of a grid (h, w) over the image that lies in a box; where boxes overlap, the largest one's."""
    h, w = size
    share = torch.zeros(h, w)
    for left, top, width, height in boxes:
        down, across = _overlap(top, top + height, h), _overlap(left, left + width, w)
        share = torch.maximum(share, down[:, None] * across)
    return share


def box_weights(boxes: Sequence[Box], size: tuple[int, int], inside: float) -> torch.Tensor:
    """Weights (h, w) of the cells of a latent: in a box `inside` times what they are elsewhere, 1 in the mean, so that the
    loss keeps its scale. Ones without a box."""
    weights = 1 + (inside - 1) * covered(boxes, size)
    return weights / weights.mean()


def group_weights(
    boxes: Sequence[Sequence[Sequence[Box]]], advantages: torch.Tensor, size: tuple[int, int], inside: float
) -> torch.Tensor:
    """The same of groups, (P, G, h, w): of images with advantages (P, G) below 0, since a box says what is wrong. Boxes by
    group, image and box; images and groups without any may be left out at the end."""
    weights = torch.ones(*advantages.shape, *size)
    for p, group in enumerate(boxes):
        for g, own in enumerate(group):
            if own and advantages[p, g] < 0:
                weights[p, g] = box_weights(own, size, inside)
    return weights


def _overlap(start: float, end: float, cells: int) -> torch.Tensor:
    """The share of each of `cells` equal parts of 0..1 that lies between start and end, (cells,)."""
    edges = torch.linspace(0, 1, cells + 1)
    return ((edges[1:].clamp(max=end) - edges[:-1].clamp(min=start)) * cells).clamp(0, 1)
