"""An explicit reward: a small head on the backbone's own image tokens that reads noisy latents and says how well they are
liked.

The likelihood surrogate of TDM-R1 answers by how much better it explains an image than the base does, which is noisy and
says little where right and wrong images are equally likely. The head is trained to rank: Bradley–Terry within groups, at
all noise levels, so that its gradient can be followed at any point that is re-noised. It shares the backbone: one LoRA
role, and a perceptron over the mean image tokens of two blocks. Several perceptrons on the same tokens are a small
ensemble, whose disagreement says where the head guesses.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from trainer.advantages import better_pairs, pairs_right
from trainer.backends import Backend, Conditioning, autocast
from trainer.flow import renoise
from trainer.roles import Roles

WIDTH = 256  # of a perceptron's hidden layer
LOWEST, HIGHEST = 0.02, 0.92  # levels that the head is trained at
CALIBRATION = 0.3  # weight of calibration against ranking
DISAGREEMENT = 1.0  # deviations of the ensemble that an uncertain image is liked less by
PERCEPTRON_RATE = 2.0  # times the adapter's learning rate: a perceptron starts from nothing
LEAST_STEPS = 60  # of a fit, so that few groups are seen often enough
WARM_UP = 20  # steps of a fit over which its rates rise
LEAST_HELD_OUT, MOST_HELD_OUT = 4, 64  # groups that end a fit
PATIENCE = 2  # passes


class Images(Protocol):
    """Final latents of P groups, in memory or in files: those of `index` (n,) are (n, G, C, h, w)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor: ...


def tapped_blocks(count: int) -> tuple[int, int]:
    """Which of a network's `count` blocks are read: two thirds of the way, where things are laid out, and the last."""
    return max(0, 2 * count // 3 - 1), count - 1


def ranking_loss(scores: torch.Tensor, rewards: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Bradley–Terry over the pairs of one group's images with unequal rewards: mean of `-log sigmoid(s_better - s_worse)`.
    All (P, G), `known` bool; 0 where no group has such a pair."""
    better = better_pairs(rewards, known)
    gap = scores[:, :, None] - scores[:, None, :]
    return (F.softplus(-gap) * better).sum() / better.sum().clamp_min(1)


def calibration_loss(scores: torch.Tensor, rewards: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Cross entropy of `sigmoid(score)` and the reward, a share of likes in 0..1: mean over what is known, so that scores
    stay near the log-odds of a like, which ranking alone leaves open. All (P, G), `known` bool."""
    target = torch.where(known, rewards, 0.5)
    loss = F.binary_cross_entropy_with_logits(scores, target, reduction="none")
    return (loss * known).sum() / known.sum().clamp_min(1)


def head_loss(
    scores: torch.Tensor, rewards: torch.Tensor, known: torch.Tensor, *, calibration: float = CALIBRATION
) -> torch.Tensor:
    """Ranking and calibration, the mean over an ensemble's scores (P, G, M); `rewards`, `known` (P, G)."""
    losses = [
        ranking_loss(own, rewards, known) + calibration * calibration_loss(own, rewards, known)
        for own in scores.unbind(-1)
    ]
    return torch.stack(losses).mean()


def cautious(scores: torch.Tensor) -> torch.Tensor:
    """An ensemble's opinion (…, M) → (…): its mean less `DISAGREEMENT` times its deviation, so that images that only some
    members like are not followed."""
    if scores.shape[-1] == 1:
        return scores[..., 0]
    deviation = (scores.var(-1) + 1e-6).sqrt()  # the square root's slope at 0 is infinite
    return scores.mean(-1) - DISAGREEMENT * deviation


class RewardHead(torch.nn.Module):
    """`r(x_t, t, prompt)` of latents under one LoRA role of the backbone.

    Trained are that role's adapter and the perceptrons (`parameters_of_role` and `parameters`); everything else is frozen.
    """

    def __init__(self, backend: Backend, roles: Roles, role: str, *, members: int = 1, bf16: bool = True):
        """Raises ValueError for a family whose blocks cannot be read yet."""
        super().__init__()
        # Not submodules: the backbone is neither this module's to save nor to move.
        object.__setattr__(self, "backend", backend)
        object.__setattr__(self, "roles", roles)
        self.role, self.bf16 = role, bf16
        blocks = backend.blocks()
        self.taps = [blocks[i] for i in tapped_blocks(len(blocks))]
        with torch.no_grad():
            x = torch.zeros(1, *backend.latent_shape, device=backend.device)
            level = torch.full((1,), 0.5, device=backend.device)
            self.width = self._tokens(x, level, backend.encode([""])).shape[1]  # numbers that are read of an image
        self.perceptrons = torch.nn.ModuleList(_perceptron(self.width) for _ in range(members)).to(backend.device)

    def __setattr__(self, name: str, value) -> None:
        if name == "taps":  # blocks of the backbone, see above
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def parameters_of_role(self) -> list[torch.nn.Parameter]:
        """The adapter's tensors."""
        return self.roles.parameters(self.role)

    def rated(self, lr: float) -> list[dict]:
        """Everything that is trained as an optimizer's groups, for a learning rate `lr` of the adapter; `times` is what a
        group's own rate is of it."""
        return [
            {"params": self.parameters_of_role(), "lr": lr, "times": 1.0},
            {"params": list(self.parameters()), "lr": PERCEPTRON_RATE * lr, "times": PERCEPTRON_RATE},
        ]

    def forward(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """Scores (B,), float32, of latents (B, C, h, w) at levels `t` (B,), near the log-odds of a like: the mean over the
        ensemble."""
        return self.members(x, t, conditioning).mean(-1)

    def members(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """The same of every member of the ensemble, (B, M)."""
        tokens = self._tokens(x, t, conditioning)
        return torch.cat([perceptron(tokens) for perceptron in self.perceptrons], 1)

    def _tokens(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        half = self.backend.memory.half
        # A pass without gradient is cheaper with the adapter in the weights, as everywhere.
        role = nullcontext() if torch.is_grad_enabled() else self.roles.merged(self.role)
        self.roles.use(self.role)
        with role, self._reading() as found, autocast(self.backend.device, self.bf16 or half, forced=half):
            self.backend.one_pass(x, t, conditioning)  # in parts, a tap would be read once a part
        return torch.cat([tokens.float().mean(1) for tokens in found], 1)

    @contextmanager
    def _reading(self) -> Iterator[list[torch.Tensor]]:
        found: list[torch.Tensor] = []
        hooks = [
            block.register_forward_hook(lambda module, given, output: found.append(self.backend.image_tokens(output)))
            for block in self.taps
        ]
        try:
            yield found
        finally:
            for hook in hooks:
                hook.remove()

    def gradient(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """`grad_x log p(liked)` of latents (B, C, h, w) at levels `t` (B,), where `p = sigmoid` of the ensemble's cautious
        opinion: an image that is surely liked asks for little."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            liked = F.logsigmoid(cautious(self.members(x, t, conditioning)))
            return torch.autograd.grad(liked.sum(), x)[0].detach()


def loss_in_parts(
    head: RewardHead,
    x: torch.Tensor,
    t: torch.Tensor,
    conditioning: Conditioning,
    rewards: torch.Tensor,
    known: torch.Tensor,
) -> Iterator[tuple[torch.Tensor, float, torch.Tensor]]:
    """`head_loss` of P groups of G noisy latents (P·G, C, h, w) in parts of as many whole groups as a pass with gradient
    may hold: each part's loss, its share of all pairs, and its scores (p, G) without gradient."""
    g = rewards.shape[1]
    rewards, known = rewards.to(x.device), known.to(x.device)
    pairs = better_pairs(rewards, known).sum((1, 2)).tolist()
    size = max(1, (head.backend.graph_images or len(x)) // g)
    for start in range(0, len(rewards), size):
        some, images = slice(start, start + size), slice(start * g, (start + size) * g)
        scores = head.members(x[images], t[images], conditioning.take(images)).unflatten(0, (-1, g))
        share = sum(pairs[some]) / max(1, sum(pairs))
        yield head_loss(scores, rewards[some], known[some]), share, scores.detach().mean(-1)


def _perceptron(width: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.LayerNorm(width), torch.nn.Linear(width, WIDTH), torch.nn.GELU(), torch.nn.Linear(WIDTH, 1)
    )


def noisy(
    images: torch.Tensor, generator: torch.Generator, *, low: float = LOWEST, high: float = HIGHEST
) -> tuple[torch.Tensor, torch.Tensor]:
    """(latents, levels) of final latents (P, G, C, h, w) at one level a group, each image with noise of its own; both
    flattened over groups and images."""
    p, g, *shape = images.shape
    t = (low + (high - low) * torch.rand(p, generator=generator)).repeat_interleave(g).to(images.device)
    eps = torch.randn((p * g, *shape), generator=generator).to(images.device)
    return renoise(images.flatten(0, 1), torch.zeros_like(t), t, eps), t


@torch.no_grad()
def opinions(
    head: RewardHead,
    images: Images,
    prompts: Sequence[str],
    *,
    levels: Sequence[float] = (0.05, 0.25, 0.5),
    seed: int = 0,
) -> torch.Tensor:
    """The head's mean score of each image, (P, G), over some levels, with noise that a group's images share."""
    generator, found = torch.Generator().manual_seed(seed), []
    for i in range(len(prompts)):
        x0 = images[torch.tensor([i])][0].float().to(head.backend.device)
        conditioning, total = head.backend.encode([prompts[i]]).repeat(len(x0)), torch.zeros(len(x0))
        for level in levels:
            t = torch.full((len(x0),), level, device=x0.device)
            eps = torch.randn((1, *x0.shape[1:]), generator=generator).to(x0.device).expand_as(x0)
            total += head(renoise(x0, torch.zeros_like(t), t, eps), t, conditioning).cpu() / len(levels)
        found.append(total)
    return torch.stack(found)


@dataclass(frozen=True)
class Fitted:
    """What `fit` came to: the loss of each step, how many passes were made, and the share of held-out pairs that the head
    ranks right; NaN without such groups."""

    losses: list[float]
    passes: int
    right: float


def split(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(held out, taught) of `count` groups: an eighth, `MOST_HELD_OUT` at most; none where an eighth says nothing."""
    held = min(MOST_HELD_OUT, count // 8)
    held = held if held >= LEAST_HELD_OUT else 0
    order = torch.randperm(count, generator=generator)
    return order[:held], order[held:]


def fit(
    head: RewardHead,
    images: Images,
    prompts: Sequence[str],
    rewards: torch.Tensor,
    known: torch.Tensor,
    *,
    passes: int = 2,
    batch: int = 8,
    lr: float = 5e-4,
    weight_decay: float = 1e-3,
    high: float = HIGHEST,
    hold_out: bool = False,
    seed: int = 0,
) -> Fitted:
    """Train the head on groups: final latents of P groups, P prompts, rewards and known (P, G). Each group is seen `passes`
    times, or more often where they are few, `batch` groups a step, at levels up to `high`, with a short warm-up and rates
    that fall over the last half; `lr` is the adapter's.

    With `hold_out` some groups are kept back and ranked after each pass: the head ends as it was when it ranked them best,
    and a fit that has ranked them no better for `PATIENCE` passes ends early."""
    generator = torch.Generator().manual_seed(seed)
    held, taught = split(len(prompts), generator) if hold_out else (torch.arange(0), torch.arange(len(prompts)))
    optimizer = torch.optim.AdamW(head.rated(lr), weight_decay=weight_decay)
    batch = min(batch, len(taught))
    each = len(taught) // batch  # steps a pass; what is left over comes in another one
    passes = max(passes, -(-LEAST_STEPS // each))
    losses: list[float] = []
    best, right, since, made = None, math.nan, 0, 0
    while made < passes and since < PATIENCE:
        order = taught[torch.randperm(len(taught), generator=generator)]
        for index in order[: each * batch].split(batch):
            _set_rate(optimizer, lr, len(losses), passes * each)
            losses.append(_fit_step(head, optimizer, images, prompts, rewards, known, index, generator, high))
        made += 1
        if len(held):
            now = pairs_right(
                opinions(head, _Some(images, held), [prompts[i] for i in held.tolist()]), rewards[held], known[held]
            )
            since = 0 if best is None or now > right else since + 1
            if since == 0:
                right, best = now, (head.roles.state_dict(head.role), copy.deepcopy(head.state_dict()))
    if best is not None:
        head.roles.load_state_dict(head.role, best[0])
        head.load_state_dict(best[1])
    return Fitted(losses, made, right)


@dataclass(frozen=True)
class _Some:
    """Some groups' images."""

    images: Images
    index: torch.Tensor

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        return self.images[self.index[index]]


def _set_rate(optimizer: torch.optim.Optimizer, lr: float, step: int, steps: int) -> None:
    factor = min(1.0, (step + 1) / WARM_UP, (steps - step) / max(1.0, steps / 2))
    for group in optimizer.param_groups:
        group["lr"] = lr * factor * group["times"]


def _fit_step(head, optimizer, images, prompts, rewards, known, index: torch.Tensor, generator, high: float) -> float:
    """One step on the groups `index`; its loss."""
    chosen = images[index].float().to(head.backend.device)
    x, t = noisy(chosen, generator, high=high)
    conditioning = head.backend.encode([prompts[i] for i in index.tolist()]).repeat(chosen.shape[1])
    total = 0.0
    optimizer.zero_grad(set_to_none=True)
    for loss, share, _ in loss_in_parts(head, x, t, conditioning, rewards[index], known[index]):
        (loss * share).backward()
        total += loss.item() * share
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total
