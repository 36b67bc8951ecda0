"""An explicit reward: a small head on the backbone's own image tokens that reads noisy latents and says how well they are
liked.

The likelihood surrogate of TDM-R1 answers by how much better it explains an image than the base does, which is noisy and
says little where right and wrong images are equally likely. The head is trained to rank: Bradley–Terry within groups, at
all noise levels, so that its gradient can be followed at any point that is re-noised. It shares the backbone: one LoRA
role, and a perceptron over the mean image tokens of two blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from trainer.advantages import better_pairs
from trainer.backends import Backend, Conditioning, autocast
from trainer.flow import like, renoise
from trainer.roles import Roles

WIDTH = 256  # of the perceptron's hidden layer
LOWEST, HIGHEST = 0.02, 0.92  # levels that the head is trained at


def tapped_blocks(count: int) -> tuple[int, int]:
    """Which of a network's `count` blocks are read: two thirds of the way, where things are laid out, and the last."""
    return max(0, 2 * count // 3 - 1), count - 1


def ranking_loss(scores: torch.Tensor, rewards: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Bradley–Terry over the pairs of one group's images with unequal rewards: mean of `-log sigmoid(s_better - s_worse)`.
    All (P, G), `known` bool; 0 where no group has such a pair."""
    better = better_pairs(rewards, known)
    gap = scores[:, :, None] - scores[:, None, :]
    return (F.softplus(-gap) * better).sum() / better.sum().clamp_min(1)


class RewardHead(torch.nn.Module):
    """`r(x_t, t, prompt)` of latents under one LoRA role of the backbone.

    Trained are that role's adapter and the perceptron (`parameters_of_role` and `parameters`); everything else is frozen.
    """

    def __init__(self, backend: Backend, roles: Roles, role: str):
        """Raises ValueError for a family whose blocks cannot be read yet."""
        super().__init__()
        # Not submodules: the backbone is neither this module's to save nor to move.
        object.__setattr__(self, "backend", backend)
        object.__setattr__(self, "roles", roles)
        self.role = role
        blocks = backend.blocks()
        self.taps = [blocks[i] for i in tapped_blocks(len(blocks))]
        with torch.no_grad():
            x = torch.zeros(1, *backend.latent_shape, device=backend.device)
            width = self._tokens(x, torch.full((1,), 0.5, device=backend.device), backend.encode([""])).shape[1]
        self.perceptron = torch.nn.Sequential(
            torch.nn.LayerNorm(width), torch.nn.Linear(width, WIDTH), torch.nn.GELU(), torch.nn.Linear(WIDTH, 1)
        ).to(backend.device)

    def __setattr__(self, name: str, value) -> None:
        if name == "taps":  # blocks of the backbone, see above
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def parameters_of_role(self) -> list[torch.nn.Parameter]:
        """The adapter's tensors."""
        return self.roles.parameters(self.role)

    def forward(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """Scores (B,), float32, of latents (B, C, h, w) at levels `t` (B,); higher is better liked."""
        return self.perceptron(self._tokens(x, t, conditioning)).squeeze(-1)

    def _tokens(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        self.roles.use(self.role)
        with self._reading() as found, autocast(self.backend.device):
            self.backend.velocity(x, t, conditioning)
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

    def direction(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """How the image that `x` (B, C, h, w) at levels `t` (B,) becomes should change to be liked better: the shift of its
        x0, `t²/(1 - t)·grad_x r`. On a rectified flow that is what adding `r` to the log-density does to x0."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            gradient = torch.autograd.grad(self(x, t, conditioning).sum(), x)[0]
        return like(t**2 / (1 - t).clamp_min(1e-3), x) * gradient.detach()


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
    images: torch.Tensor,
    prompts: Sequence[str],
    *,
    levels: Sequence[float] = (0.05, 0.25, 0.5),
    seed: int = 0,
) -> torch.Tensor:
    """The head's mean score of each image, (P, G), over some levels, with noise that a group's images share."""
    p, g, *shape = images.shape
    generator, total = torch.Generator().manual_seed(seed), torch.zeros(p, g)
    for i in range(p):
        x0, conditioning = images[i].float().to(head.backend.device), head.backend.encode([prompts[i]]).repeat(g)
        for level in levels:
            t = torch.full((g,), level, device=x0.device)
            eps = torch.randn((1, *shape), generator=generator).to(x0.device).expand_as(x0)
            total[i] += head(renoise(x0, torch.zeros_like(t), t, eps), t, conditioning).cpu() / len(levels)
    return total


def fit(
    head: RewardHead,
    images: torch.Tensor,
    prompts: Sequence[str],
    rewards: torch.Tensor,
    known: torch.Tensor,
    *,
    passes: int = 2,
    batch: int = 8,
    lora_lr: float = 5e-4,
    lr: float = 1e-3,
    seed: int = 0,
) -> list[float]:
    """Train the head on groups: final latents (P, G, C, h, w), P prompts, rewards and known (P, G). Each group is seen
    `passes` times, `batch` groups a step, with a short warm-up and rates that fall over the last half. Returns the losses.
    """
    optimizer = torch.optim.AdamW(
        [{"params": head.parameters_of_role(), "lr": lora_lr}, {"params": list(head.parameters()), "lr": lr}],
        weight_decay=1e-3,
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    generator = torch.Generator().manual_seed(seed)
    steps = [
        index
        for _ in range(passes)
        for index in torch.randperm(len(images), generator=generator).split(batch)
        if len(index) == min(batch, len(images))
    ]
    losses = []
    for number, index in enumerate(steps):
        chosen = images[index].float().to(head.backend.device)
        x, t = noisy(chosen, generator)
        conditioning = head.backend.encode([prompts[i] for i in index.tolist()]).repeat(images.shape[1])
        scores = head(x, t, conditioning).unflatten(0, (len(index), -1))
        loss = ranking_loss(scores, rewards[index].to(scores.device), known[index].to(scores.device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        factor = min(1.0, (number + 1) / 20, (len(steps) - number) / max(1.0, len(steps) / 2))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        optimizer.step()
        losses.append(loss.item())
    return losses
