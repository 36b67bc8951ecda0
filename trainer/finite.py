"""Whether numbers that came from a file are numbers: one look for every reader of weights, each with its own sentence."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def first_not_finite(named: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """The name of the first tensor with a NaN or an infinity in it; None if there is none. Integers are always finite."""
    return next((name for name, tensor in named if tensor.is_floating_point() and not tensor.isfinite().all()), None)
