"""The losses of TDM and TDM-R1 as pure functions of tensors (arXiv 2603.07700; names as in docs/architecture.md).

Latents and velocities are (B, C, h, w), or (P, G, C, h, w) for P groups of G images; times and weights are (B,) or (P, G).
Targets never carry gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from trainer.flow import like, renoise


def mean_square(x: torch.Tensor) -> torch.Tensor:
    """Mean over C, h, w of the square: (…, C, h, w) → (…)."""
    return x.float().pow(2).mean((-3, -2, -1))


def denoising_error(
    velocity: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    x0: torch.Tensor,
    tau: torch.Tensor,
    eps: torch.Tensor,
) -> torch.Tensor:
    """`‖eps - x0 - v(x_tau)‖²`, the mean over pixels, of images (B, C, h, w) with noise `eps`, levels `tau` (B,); (B,)."""
    return mean_square(eps - x0 - velocity(renoise(x0, torch.zeros_like(tau), tau, eps), tau))


def fake_loss(
    v_fake: torch.Tensor,
    x_tau: torch.Tensor,
    tau: torch.Tensor,
    x0_hat: torch.Tensor,
    v_teacher: torch.Tensor,
    *,
    teacher_weight: float,
) -> torch.Tensor:
    """Denoising loss of the fake score: regress to `(x_tau - x0_hat)/tau`, plus a pull towards the teacher.

    `x0_hat` is the student's current prediction, so the fake follows the student's own distribution.
    """
    target = ((x_tau - x0_hat) / like(tau, x_tau)).detach()
    return (mean_square(v_fake - target) + teacher_weight * mean_square(v_fake - v_teacher.detach())).mean()


@dataclass(frozen=True)
class SurrogateTerms:
    """The surrogate's loss and what is worth logging; all detached but `loss`."""

    loss: torch.Tensor
    group_weight: torch.Tensor  # (P,)
    active: torch.Tensor  # share of images that gave gradient
    gain: torch.Tensor  # (P, G): relative likelihood gain over the reference, the learned reward
    distance: torch.Tensor  # mean squared distance from the teacher, in the units of the threshold

    @classmethod
    def join(cls, parts: Sequence[SurrogateTerms]) -> SurrogateTerms:
        """The terms of all groups from those of parts of them; the loss comes back without gradient."""
        counts = [len(part.group_weight) for part in parts]

        def mean(name: str) -> torch.Tensor:
            values = (getattr(part, name).detach() * count for part, count in zip(parts, counts, strict=True))
            return sum(values) / sum(counts)

        weight, gain = (torch.cat([getattr(part, name) for part in parts]) for name in ("group_weight", "gain"))
        return cls(mean("loss"), weight, mean("active"), gain, mean("distance"))


def group_weight(
    advantages: torch.Tensor, d_surrogate: torch.Tensor, d_reference: torch.Tensor, beta_dpo: float
) -> torch.Tensor:
    """`w = sigmoid(sum over the group of A·beta_dpo·(d_surrogate - d_reference) / G)`, detached, (P,).

    The Bradley–Terry gradient: a group that is already ranked right (liked images closer than under the reference) gets a
    small weight. All arguments (P, G).
    """
    return torch.sigmoid((advantages * beta_dpo * (d_surrogate - d_reference)).mean(1)).detach()


def surrogate_loss(
    v_star: torch.Tensor,
    v_surrogate: torch.Tensor,
    v_reference: torch.Tensor,
    v_old: torch.Tensor,
    v_teacher: torch.Tensor,
    advantages: torch.Tensor,
    *,
    beta_dpo: float,
    teacher_weight: float,
    clip: float,
    teacher_clip_from: float,
    relative: bool,
    weights: torch.Tensor | None = None,
    teacher_clip: str = "image",
) -> SurrogateTerms:
    """Group preference loss `mean(w·A·d_surrogate) + beta·‖v_surrogate - v_teacher‖²`; velocities (P, G, C, h, w).

    `d_m = mean over pixels of (v* - v_m)²`. Trust region: with `ratio = exp(d_old - d_surrogate)` an image with A > 0 and
    ratio > 1 + clip, or A < 0 and ratio < 1 - clip, gives no gradient. The same against the teacher: with `teacher_clip`
    "image" for images whose distance from it is above `teacher_clip_from`; with "batch" for all once their mean distance
    is, and then with clip 0, as in the authors' code. With `relative`, every distance is divided by its group's mean
    denoising error under the teacher, so that the thresholds mean the same at every noise level and for every model.
    `weights` (P,) multiply each group's part of both terms.
    """
    d_surrogate = mean_square(v_star - v_surrogate)
    with torch.no_grad():
        d_reference, d_old, d_teacher = (mean_square(v_star - v) for v in (v_reference, v_old, v_teacher))
        unit = d_teacher.mean(1, keepdim=True).clamp_min(1e-8) if relative else torch.ones_like(d_teacher)
    drift = mean_square(v_surrogate - v_teacher.detach()) / unit
    d_surrogate, d_reference, d_old, d_teacher = (d / unit for d in (d_surrogate, d_reference, d_old, d_teacher))
    with torch.no_grad():
        weight = group_weight(advantages, d_surrogate, d_reference, beta_dpo)
        inside = _inside(d_old - d_surrogate, advantages, clip)
        if teacher_clip == "batch":
            far, margin = drift.mean() > teacher_clip_from, 0.0
        else:
            far, margin = drift > teacher_clip_from, clip
        inside &= ~far | _inside(d_teacher - d_surrogate, advantages, margin)
        active = inside & (advantages != 0)
    loss = weight[:, None] * advantages * d_surrogate * inside + teacher_weight * drift
    return SurrogateTerms(
        loss=(loss if weights is None else loss * weights[:, None]).mean(),
        group_weight=weight,
        active=active.float().mean(),
        gain=(d_reference - d_surrogate).detach(),
        distance=drift.detach().mean(),
    )


def _inside(log_ratio: torch.Tensor, advantages: torch.Tensor, clip: float) -> torch.Tensor:
    ratio = log_ratio.exp()
    return ~(((advantages > 0) & (ratio > 1 + clip)) | ((advantages < 0) & (ratio < 1 - clip)))


@dataclass(frozen=True)
class StudentTargets:
    """x0 predictions of the other roles, all (B, C, h, w) and without gradient. The reward pair is None for plain TDM."""

    teacher_cond: torch.Tensor
    teacher_uncond: torch.Tensor
    fake: torch.Tensor
    surrogate_cfg: torch.Tensor | None = None
    reference: torch.Tensor | None = None


def student_loss(
    x0_hat: torch.Tensor,
    targets: StudentTargets,
    *,
    guidance: float,
    guidance_weight: float,
    reward_on: torch.Tensor | None = None,
    late_steps: str = "full",
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """`lambda·guidance + (1 - lambda)·reward + KL`: x0_hat is regressed to three stop-gradient targets.

    guidance: `x0_hat + (w_cfg - 1)·(teacher_cond - teacher_uncond)`; KL: `x0_hat + (teacher_cond - fake)`; reward:
    `x0_hat + (surrogate_cfg - reference)`. Each squared error is divided by its own detached normaliser, per image: mean
    |x0_hat - teacher_cfg| for the first two, mean |x0_hat - surrogate_cfg| for the third. `reward_on` (B,) switches the
    reward term off for late steps, whose KL term weighs lambda too where `late_steps` is "scaled". Without the reward pair
    this is TDM, with lambda = 1.
    """
    held = x0_hat.detach()
    pull = (guidance - 1) * (targets.teacher_cond - targets.teacher_uncond)
    teacher_cfg = targets.teacher_cond + pull
    scale = _mean_abs(held - teacher_cfg)

    def regress(direction: torch.Tensor, normaliser: torch.Tensor) -> torch.Tensor:
        return mean_square(x0_hat - (held + direction)) / normaliser

    terms = {
        "guidance": regress(pull, scale),
        "kl": regress(targets.teacher_cond - targets.fake, scale),
    }
    if targets.surrogate_cfg is None:
        loss = terms["guidance"] + terms["kl"]
    else:
        direction = targets.surrogate_cfg - targets.reference
        terms["reward"] = regress(direction, _mean_abs(held - targets.surrogate_cfg)) * reward_on
        kl = terms["kl"]
        if late_steps == "scaled":
            kl = kl * (reward_on + guidance_weight * (1 - reward_on))
        loss = guidance_weight * terms["guidance"] + (1 - guidance_weight) * terms["reward"] + kl
    return loss.mean(), {name: term.detach().mean() for name, term in terms.items()}


def head_shift(
    gradient: torch.Tensor, tau: torch.Tensor, pull: torch.Tensor, *, strength: float, norm: str
) -> torch.Tensor:
    """How far x0 should move along `grad_x log p(liked | x_tau)` (B, C, h, w), the reward term's direction.

    `norm` "posterior": `strength·tau²/(1 - tau)·gradient`. On a rectified flow the score is
    `(1 - tau)/tau²·x0 - x/tau²`, so adding `log p` to the log-density moves the mean of x0 by this much; with strength 1 it
    is sampling what the base would make if it had to be liked. `norm` "guidance": the gradient's direction only, as long as
    the guidance `pull` (w_cfg - 1)·(x0_cond - x0_uncond) is in the mean of the batch, times `strength`; images whose
    gradient is steeper than the batch's mean move further, twice as far at most.
    """
    if norm == "posterior":
        return strength * like(tau**2 / (1 - tau).clamp_min(1e-2), gradient) * gradient
    steep = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)
    length = pull.flatten(1).norm(dim=1).mean() * (steep / steep.mean()).clamp(max=2.0)
    return strength * like(length / steep, gradient) * gradient


def _mean_abs(x: torch.Tensor) -> torch.Tensor:
    return x.float().abs().mean((-3, -2, -1)).clamp_min(1e-3)
