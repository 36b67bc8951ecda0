"""Rectified flow, maths only: time grids, re-noising, the surrogate's target velocity and the Euler sampler.

`x_t = (1 - t)·x0 + t·eps`, `v = eps - x0`, so `x0 = x_t - t·v`; t runs from 1 (noise) to 0 (image).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch


def shift_time(u: torch.Tensor, shift: float) -> torch.Tensor:
    """`S·u / (1 + (S - 1)·u)`: un-shifted time to shifted, both in [0, 1]."""
    return shift * u / (1 + (shift - 1) * u)


def unshift_time(t: torch.Tensor, shift: float) -> torch.Tensor:
    """The inverse of `shift_time`."""
    return t / (shift - (shift - 1) * t)


def step_grid(steps: int, shift: float) -> torch.Tensor:
    """`s_0 = 1 > s_1 > … > s_K = 0`, (K + 1,); evenly spaced before the shift.

    Stock diffusers walks the same grid when called with `sigmas=[1, (K-1)/K, …, 1/K]` and a scheduler of that shift.
    """
    return shift_time(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift).float()


def like(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(B,) reshaped to (B, 1, …) so that it broadcasts over `x`."""
    return t.reshape(-1, *(1,) * (x.ndim - 1))


def renoise_coefficients(s: torch.Tensor, tau: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(a, b) of `x_tau = a·x_s + b·eps` for tau > s: `a = (1-tau)/(1-s)`, `b = sqrt(tau² - s²·a²)`."""
    a = (1 - tau) / (1 - s)
    return a, (tau**2 - (s * a) ** 2).clamp_min(0).sqrt()


def renoise(x_s: torch.Tensor, s: torch.Tensor, tau: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """From (B, …) points at levels `s` (B,) up to levels `tau` (B,), with noise of x's shape."""
    a, b = renoise_coefficients(s, tau)
    return like(a, x_s) * x_s + like(b, x_s) * eps


def sample_tau(
    s: torch.Tensor, shift: float, *, gap: float, u: torch.Tensor, low: float = 0.0, high: float = 1.0
) -> torch.Tensor:
    """Levels to re-noise to, (B,), from `u` (B,) uniform on [0, 1): uniform in un-shifted time on
    `(max(unshift(s) + gap, unshift(low)), unshift(high)]`; `high` is the noisiest level that the model knows."""
    floor, top = (unshift_time(torch.full_like(s, level), shift) for level in (low, high))
    start = torch.minimum(torch.maximum(unshift_time(s, shift) + gap, floor), top)
    return shift_time(top - u * (top - start), shift)


def conditional_velocity(x_s: torch.Tensor, s: torch.Tensor, tau: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """The velocity whose score is that of `p(x_tau | x_s)`, at `x_tau = a·x_s + b·eps`.

    The Gaussian's score is `-(x_tau - a·x_s)/b² = -eps/b`. On a linear path the score names the noise,
    `eps' = -tau·score = tau·eps/b`, and with `x0 = (x_tau - tau·eps')/(1 - tau)` the velocity is
    `v = eps' - x0 = (eps' - x_tau)/(1 - tau)`. Put in `b² = tau² - s²·a²` and `a = (1-tau)/(1-s)`:

        v* = -x_s/(1-s) + (eps/b)·(tau + s²·a/(1-s))

    which has no division by 1 - tau and is `eps - x0` at s = 0.
    """
    a, b = renoise_coefficients(s, tau)
    return -x_s / like(1 - s, x_s) + like((tau + s**2 * a / (1 - s)) / b, x_s) * eps


def x0_from_velocity(x_t: torch.Tensor, t: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """`x0 = x_t - t·v`."""
    return x_t - like(t, x_t) * v


def rollout(
    velocity: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], noise: torch.Tensor, grid: torch.Tensor
) -> torch.Tensor:
    """Plain Euler steps down `grid` (K + 1,): the whole trajectory, (B, K + 1, …), `grid[0]` times the noise first and the
    image last.

    `velocity(x, t)` takes (B, …) and (B,). Deterministic: the noise fixes every point.
    """
    levels = grid.tolist()
    points = [levels[0] * noise]
    for here, there in itertools.pairwise(levels):
        x = points[-1]
        v = velocity(x, torch.full((len(x),), here, device=x.device, dtype=torch.float32))
        points.append(x - (here - there) * v.float())
    return torch.stack(points, 1)


def rollout_dpm(
    velocity: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], noise: torch.Tensor, grid: torch.Tensor
) -> torch.Tensor:
    """The same by DPM-Solver++ (2M, arXiv 2211.01095) on the predictions of x0: each step extrapolates from the two last
    predictions in `lambda = log((1 - t)/t)`. Of first order in the first step, and in the last, which ends at 0.

        x_{j+1} = t_{j+1}/t_j·x_j + (1 - t_{j+1})·(1 - e^{-h})·(x0_j + (x0_j - x0_{j-1})/(2r)),  r = h_{j-1}/h_j
    """
    levels = grid.tolist()
    points, before, widths = [levels[0] * noise], None, []
    for here, there in itertools.pairwise(levels):
        x = points[-1]
        v = velocity(x, torch.full((len(x),), here, device=x.device, dtype=torch.float32))
        x0 = x - here * v.float()
        widths.append(_log_snr(there) - _log_snr(here))
        estimate = x0
        if before is not None and there > 0:  # from pure noise the width is infinite, and the extrapolation 0
            estimate = x0 + widths[-1] / (2 * widths[-2]) * (x0 - before)
        points.append(there / here * x + (1 - there) * -math.expm1(-widths[-1]) * estimate)
        before = x0
    return torch.stack(points, 1)


def _log_snr(t: float) -> float:
    """`log((1 - t)/t)`, infinite at both ends."""
    if t >= 1:
        return -math.inf
    return math.inf if t <= 0 else math.log((1 - t) / t)


SOLVERS = {"euler": rollout, "dpm": rollout_dpm}


def guided(conditional: torch.Tensor, unconditional: torch.Tensor, scale: float) -> torch.Tensor:
    """Classifier-free guidance: `uncond + scale·(cond - uncond)`."""
    return unconditional + scale * (conditional - unconditional)
