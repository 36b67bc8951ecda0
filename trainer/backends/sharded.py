"""Frozen parts of which every process holds a share (FSDP2), for what does not fit onto one card.

All processes make the same update from the same random numbers, and each passes its share of every batch through the
network: so they always ask for the same blocks, which is what gathering them needs. docs/decisions.md says why the batch
itself is not dealt out, as it is where every process holds the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from trainer.backends.base import Conditioning


def world() -> int:
    """How many processes there are. Raises ValueError where one process is alone."""
    count = distributed.get_world_size() if distributed.is_initialized() else 1
    if count == 1:
        raise ValueError("shard: there is one process; start several with accelerate launch, or turn shard off")
    return count


def shard(part: torch.nn.Module, blocks: Sequence[torch.nn.Module], device: torch.device, *, trained: bool) -> None:
    """Leave this process its share of the blocks' weights, on the device; what is in no block stays whole and where it is.
    Adapters that are put into blocks later stay whole too."""
    mesh = init_device_mesh(device.type, (world(),))
    mine = {id(p) for block in blocks for p in block.parameters()}
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
        for module in block.modules():
            module.whole = False  # no adapter can be added into weights of which a share is here; see `Roles.merged`
    if trained:  # blocks then wait for each other in a backward pass; transformers knows encoders by their own class
        fully_shard(part, mesh=mesh, ignored_params={p for p in part.parameters() if id(p) not in mine})


def encoder_blocks(part: torch.nn.Module) -> list[torch.nn.Module]:
    """The blocks of a text encoder: what its largest list holds. One for images, which some have beside it, stays whole."""
    lists = [module for module in part.modules() if isinstance(module, torch.nn.ModuleList)]
    return list(max(lists, key=lambda blocks: sum(p.numel() for p in blocks.parameters()), default=()))


class _Gathered(torch.autograd.Function):
    """Everybody's rows, one process' after the other's; the gradient of this process' own."""

    @staticmethod
    def forward(ctx, mine: torch.Tensor) -> torch.Tensor:
        ctx.rows = len(mine)
        made = mine.new_empty((ctx.rows * distributed.get_world_size(), *mine.shape[1:]))
        distributed.all_gather_into_tensor(made, mine.contiguous())
        return made

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        start = distributed.get_rank() * ctx.rows
        return gradient[start : start + ctx.rows]


def share_of(count: int, processes: int) -> int:
    """Of `count` rows or bytes, those that each process has at most."""
    return -(-count // processes)


def divided(run: Callable, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
    """`run(x, t, conditioning)`, of which each process makes as many rows as every other. With gradient, that of the
    adapters is each process' share of a sum."""
    each = share_of(len(x), distributed.get_world_size())
    start = distributed.get_rank() * each
    rows = torch.arange(start, start + each, device=x.device).clamp(max=len(x) - 1)  # what is too much is thrown away
    return _Gathered.apply(run(x[rows], t[rows], conditioning.take(rows)))[: len(x)]
