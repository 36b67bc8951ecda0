"""Labelled groups that a head looks at again: those in the round's files, and the last ones that the round made itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainer.data import GroupStore

MOST_GROUPS = 1024
MOST_BYTES = 2**28  # of final latents in fp16, which a checkpoint holds too


class StoredImages:
    """The final latents of the groups `index` (n,) of a store, read when they are asked for: (n, G, C, h, w)."""

    def __init__(self, store: GroupStore, index: torch.Tensor):
        self.store, self.index = store, index
        self.prompts = [store.prompts[i] for i in index.tolist()]
        self.rewards = store.rewards[index]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        return self.store.take(self.index[index]).trajectory[:, :, -1]


class Replay:
    """The newest groups of one round with their rewards, NaN where nobody decided, the oldest of which give way.

    It is part of a checkpoint, so its tensors have one shape from the start; the prompts are the owner's to keep."""

    def __init__(self, group_size: int, latent_shape: Sequence[int]):
        each = 2 * group_size * torch.Size(latent_shape).numel()
        self.capacity = max(1, min(MOST_GROUPS, MOST_BYTES // each))
        self.latents = torch.zeros(self.capacity, group_size, *latent_shape, dtype=torch.float16)
        self._rewards = torch.full((self.capacity, group_size), torch.nan)
        self.added = 0  # groups so far
        self.prompts: list[str] = []

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def rewards(self) -> torch.Tensor:
        """(P, G) of the groups that are there."""
        return self._rewards[: len(self)]

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        return self.latents[index].float()

    def add(self, latents: torch.Tensor, rewards: torch.Tensor, prompts: Sequence[str]) -> None:
        """Keep groups: final latents (n, G, C, h, w), rewards (n, G)."""
        for x, own, prompt in zip(latents, rewards, prompts, strict=True):
            place = self.added % self.capacity
            self.latents[place], self._rewards[place] = x.half().cpu(), own.cpu()
            self.prompts[place : place + 1] = [prompt]
            self.added += 1

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All but the prompts; what is not known is -1, as a checkpoint holds only finite numbers."""
        rewards = self._rewards.nan_to_num(-1)
        return {"latents": self.latents, "rewards": rewards, "added": torch.tensor(self.added)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Load what `state_dict` gave."""
        self.latents.copy_(state["latents"])
        self._rewards = torch.where(state["rewards"] < 0, torch.nan, state["rewards"])
        self.added = int(state["added"])
