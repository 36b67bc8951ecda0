"""TDM-R1 with an explicit reward: `surrogate = "head"`. A `RewardHead` learns from groups which images are liked, and the
student follows its gradient where the likelihood gain of the surrogate would be.

Before a round's first update the head is fitted to all labelled groups; an oracle's round without stored ones has some
sampled and scored first. From then on it makes a step an update, since a student that follows a head that stays as it is
soon finds what only the head likes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.nn.functional import pad

from common.settings import TDMR1Settings
from trainer.advantages import pairs_right
from trainer.backends import Conditioning
from trainer.data import GroupStore
from trainer.flow import guided, like, renoise, x0_from_velocity
from trainer.losses import head_shift
from trainer.methods.base import Groups
from trainer.methods.tdm_r1 import TDMR1
from trainer.replay import Replay, StoredImages
from trainer.reward_head import RewardHead, fit, loss_in_parts, noisy
from trainer.roles import SURROGATE, TDM_ROLES, TEACHER
from trainer.shares import Part

REFRESH_RATE = 0.4  # of the surrogate's learning rate, in a step an update after the fit
HIGHEST = 0.96  # level that the head is trained and asked at: nearer to noise nobody can tell


class TDMR1Head(TDMR1):
    """See the module's docstring. The role of the surrogate is the head's adapter."""

    roles_needed = (*TDM_ROLES, SURROGATE)
    explicit = True

    def __init__(self, backend, settings: TDMR1Settings, **options):
        """See `Method`."""
        self.head: RewardHead | None = None
        self.replay: Replay | None = None
        super().__init__(backend, settings, **options)
        if self.share.processes > 1:
            raise ValueError(
                f"surrogate: a head is trained in one process, not in {self.share.processes}; use likelihood"
            )
        if self.as_one:
            raise ValueError("surrogate: a head reads blocks that shard parts among processes; use likelihood")
        if settings.head_norm == "guidance" and settings.guidance <= 1:
            raise ValueError("head_norm: without guidance there is no such length; use posterior, or raise guidance")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.head = RewardHead(backend, self.roles, SURROGATE, members=settings.head_members, bf16=self.bf16)
        self.rates[SURROGATE] = REFRESH_RATE * settings.surrogate_lr
        self.optimizers[SURROGATE] = torch.optim.AdamW(
            self.head.rated(self.rates[SURROGATE]), betas=self.betas[SURROGATE], weight_decay=settings.weight_decay
        )
        self.stored: StoredImages | None = None
        self._added: torch.Tensor | None = None  # rewards of the last groups that went into the replay

    def trained(self, role: str) -> list[torch.nn.Parameter]:
        """See `Method.trained`."""
        own = list(self.head.parameters()) if role == SURROGATE and self.head is not None else []
        return [*super().trained(role), *own]

    def use_labels(self, store: GroupStore | None, taught: torch.Tensor | None, *, sampled: bool) -> None:
        """See `Method.use_labels`."""
        if store is not None:
            self.stored = StoredImages(store, torch.arange(len(store)) if taught is None else taught)
        if sampled:
            self.replay = Replay(self.settings.group_size, self.backend.latent_shape)

    def parts(self) -> dict:
        """See `Method.parts`."""
        own = {"head": self.head} | ({"replay": self.replay} if self.replay is not None else {})
        return super().parts() | own

    @property
    def replayed(self) -> list[str]:
        """See `Method.replayed`."""
        return self.replay.prompts if self.replay is not None else []

    @replayed.setter
    def replayed(self, prompts: list[str]) -> None:
        if self.replay is not None:
            self.replay.prompts = list(prompts)

    def begin(self, sample: Callable[[int], Iterator[Groups]]) -> dict[str, float]:
        """See `Method.begin`: the fit."""
        s = self.settings
        if self.stored is None:
            for groups in sample(s.head_groups):
                self._remember(groups)
        pool = self.replay if self.stored is None else self.stored
        if not len(pool):
            return {}
        found = fit(
            self.head,
            pool,
            pool.prompts,
            pool.rewards,
            ~pool.rewards.isnan(),
            passes=s.head_passes,
            lr=s.surrogate_lr,
            weight_decay=s.weight_decay,
            high=HIGHEST,
            hold_out=True,
            seed=s.seed,
        )
        metrics = {"head_groups": len(pool), "head_passes": found.passes}
        return metrics if found.right != found.right else {**metrics, "head_ranks": found.right}

    def learn(self, groups: Groups, generator: torch.Generator) -> dict[str, float]:
        """See `Method.learn`: one step on the groups; with fresh ones of the student's, on as many old ones too."""
        x0, rewards = groups.trajectory[:, :, -1], groups.rewards
        conditioning = groups.conditioning
        if groups.sampled is not None:
            old, liked, prompts = self._old(len(x0), x0.shape[1], generator)
            x0 = torch.cat([x0, old.to(x0.device)])
            rewards = torch.cat([rewards, liked.to(rewards.device)])
            if prompts:
                conditioning = Conditioning.concatenate([conditioning, self.backend.encode(prompts)])
        x, t = noisy(x0, generator, high=HIGHEST)
        known, count = ~rewards.isnan(), len(x0)
        seen: list[torch.Tensor] = []

        def losses() -> Iterator[tuple[torch.Tensor, float]]:
            every_image = conditioning.repeat(x0.shape[1])
            for loss, share, scores in loss_in_parts(self.head, x, t, every_image, rewards, known):
                seen.append(scores)
                yield loss, share * count

        loss = self.step(SURROGATE, losses(), Part.whole(count))
        self.surrogate_count += 1
        if groups.sampled is not None:
            self._remember(groups)
        own = torch.cat(seen)[: len(groups.rewards)].cpu()
        given = groups.rewards.cpu()
        liked, disliked = groups.advantages.cpu() > 0, groups.advantages.cpu() < 0
        return {
            "surrogate": loss,
            "fresh_pairs" if groups.sampled is not None else "pairs": pairs_right(own, given, ~given.isnan()),
            "margin": (mean_of(own, liked) - mean_of(own, disliked)).item(),
        }

    def _old(self, count: int, size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        """`count` old groups or as many as there are: final latents and rewards, in groups of `size`, and prompts."""
        pools = [pool for pool in (self.stored, self.replay) if pool]
        sizes = torch.tensor([len(pool) for pool in pools])
        drawn = torch.randperm(int(sizes.sum()), generator=generator)[:count]
        found = [(torch.empty(0, size, *self.backend.latent_shape), torch.empty(0, size), [])]
        for pool, end in zip(pools, sizes.cumsum(0).tolist(), strict=True):
            index = drawn[(drawn < end) & (drawn >= end - len(pool))] - (end - len(pool))
            if len(index):
                found.append((pool[index], pool.rewards[index], [pool.prompts[i] for i in index.tolist()]))
        latents, rewards = ([_sized(part[k], size) for part in found] for k in (0, 1))
        return torch.cat(latents), torch.cat(rewards), [prompt for part in found for prompt in part[2]]

    def _remember(self, groups: Groups) -> None:
        """Put fresh groups into the replay, once however often they are learned from."""
        if groups.rewards is not self._added:
            self.replay.add(groups.trajectory[:, :, -1], groups.rewards, groups.prompts)
            self._added = groups.rewards

    @torch.no_grad()
    def reward_targets(self, x_n, s_n, conditioning: Conditioning, generator, part, where) -> dict[str, torch.Tensor]:
        """See `TDMR1.reward_targets`: the teacher's guided prediction, moved by the head's gradient, against its own."""
        s = self.settings
        tau = self.tau(s_n, self.uniform(part, generator), low=s.t_min)
        tau = torch.minimum(tau, s_n.clamp(min=HIGHEST))  # never below the point itself
        eps = self.noise(Part.whole(1), x_n.shape[1:], generator).expand_as(x_n)
        pair = {name: torch.zeros_like(x_n) for name in ("surrogate_cfg", "reference")}
        x_n, s_n, tau, eps = (values[where] for values in (x_n, s_n, tau, eps))
        if not len(x_n):
            return pair
        conditioning = conditioning.take(where)
        x_tau = renoise(x_n, s_n, tau, eps)
        velocities = self.both_branches(TEACHER, x_tau, tau, conditioning)
        cond, uncond = (x0_from_velocity(x_tau, tau, v) for v in velocities)
        pull = (s.guidance - 1) * (cond - uncond)
        shift = head_shift(
            self.head_gradient(x_tau, tau, conditioning), tau, pull, strength=s.head_strength, norm=s.head_norm
        )
        pair["surrogate_cfg"][where] = guided(cond, uncond, s.rl_cfg) + shift
        pair["reference"][where] = cond
        return pair

    def learned_velocity(self, x, t, conditioning: Conditioning, teacher: torch.Tensor) -> torch.Tensor:
        """See `TDMR1.learned_velocity`: Bayes' rule, where x0 moves by `t²/(1 - t)·grad log p(liked)` and the velocity by
        -1/t of that; nothing nearer to noise than the head was trained."""
        known = t <= HIGHEST
        moved = torch.zeros_like(x)
        if known.any():
            gradient = self.head_gradient(x[known], t[known], conditioning.take(known))
            moved[known] = -like(t[known] / (1 - t[known]), gradient) * gradient
        return moved

    def surrogate_parts(self) -> dict:
        """See `TDMR1.surrogate_parts`."""
        return super().surrogate_parts() | {"head": self.head}

    def head_gradient(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """`RewardHead.gradient`, a few images at a time."""
        parts = [self.head.gradient(x[i], t[i], conditioning.take(i)) for i in self.graphs(len(x))]
        return torch.cat(parts)

    @torch.no_grad()
    def learned_reward(self, groups: Groups, *, draws: int = 4, generator: torch.Generator) -> torch.Tensor:
        """See `TDMR1.learned_reward`: the head's score, averaged over `draws` times and noises of the finished image."""
        p, g = groups.advantages.shape
        x0 = groups.trajectory[:, :, -1].flatten(0, 1)
        conditioning = groups.conditioning.repeat(g)
        total = torch.zeros(p, g, device=x0.device)
        for _ in range(draws):
            tau = self.draw_levels(p, generator).repeat_interleave(g)
            eps = self.noise(Part.whole(p), (1, *x0.shape[1:]), generator).expand(p, g, *x0.shape[1:]).flatten(0, 1)
            total += self.score(x0, conditioning, tau, eps).unflatten(0, (p, g))
        return total / draws

    @torch.no_grad()
    def score(self, x0: torch.Tensor, conditioning: Conditioning, tau: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """The head's scores (B,) of images with noise `eps` at levels `tau`, never above `HIGHEST`."""
        tau = tau.clamp(max=HIGHEST)
        return self.head(renoise(x0, torch.zeros_like(tau), tau, eps), tau, conditioning)


def mean_of(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """The mean of the values that are `chosen` (bool, of the same shape); NaN where none is."""
    return torch.where(chosen, values, 0.0).sum() / chosen.sum()


def _sized(groups: torch.Tensor, size: int) -> torch.Tensor:
    """Groups (P, G, …) cut to `size` images, or filled up: latents by the first image, rewards by NaN."""
    missing = size - groups.shape[1]
    if missing <= 0:
        return groups[:, :size]
    if groups.ndim == 2:
        return pad(groups, (0, missing), value=torch.nan)
    return torch.cat([groups, groups[:, :1].expand(-1, missing, *groups.shape[2:])], 1)
