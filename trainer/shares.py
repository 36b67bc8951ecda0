"""Which rows of a batch a process holds. Every process draws the same random numbers for the whole batch and keeps its own
rows of them, so that an update does not depend on how many processes make it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator


@dataclass(frozen=True)
class Part:
    """Rows `index` (n,) of a batch of `total` rows."""

    index: torch.Tensor
    total: int

    @classmethod
    def whole(cls, total: int) -> Part:
        """Every row."""
        return cls(torch.arange(total), total)

    def pick(self, everything: torch.Tensor) -> torch.Tensor:
        """This process' rows of a tensor (total, …)."""
        return everything[self.index.to(everything.device)]

    def each(self, times: int) -> Part:
        """The same rows `times` times, neighbours together."""
        index = (self.index[:, None] * times + torch.arange(times)).flatten()
        return Part(index, self.total * times)

    def weight(self, processes: int) -> float:
        """What this part's mean counts for in a mean over processes, so that the result is the mean over all rows."""
        return len(self.index) * processes / self.total


@dataclass(frozen=True)
class Share:
    """Process `rank` of `processes`: whole groups are dealt out in turn, so that no group is torn apart."""

    rank: int
    processes: int

    @classmethod
    def of(cls, accelerator: Accelerator) -> Share:
        """This process' share."""
        return cls(accelerator.process_index, accelerator.num_processes)

    def part(self, total: int) -> Part:
        """The rows of a batch of `total` that fall to this process: rank, rank + processes, …"""
        return Part(torch.arange(self.rank, total, self.processes), total)

    def among(self, owner: torch.Tensor) -> Part:
        """The rows whose unit's number `owner` (total,) falls to this process."""
        return Part((owner % self.processes == self.rank).nonzero().flatten().cpu(), len(owner))


def gather_rows(accelerator: Accelerator, mine: torch.Tensor) -> torch.Tensor:
    """The whole batch (total, …) from every process' equally many rows, in the batch's order."""
    if accelerator.num_processes == 1:
        return mine
    rows = accelerator.gather(mine.contiguous())
    return rows.unflatten(0, (accelerator.num_processes, -1)).transpose(0, 1).flatten(0, 1)
