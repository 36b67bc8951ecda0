"""Blocks that are on the device only while they work: a ring of places there, the rest once in the machine's memory.

docs/decisions.md says why this is not diffusers' group offloading, which cannot train adapters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch

ALIGNED = 512  # bytes; tensors of every dtype begin there


class Streamed:
    """A network of which `places` blocks at most are on the device.

    Each block's tensors lie in one stretch of pinned memory, so a block comes with one copy. Which block follows which is
    seen as they run, so the next one is on its way, on a stream of its own, while one computes; in a backward pass that is
    the one before. A block with gradient keeps its inputs and is computed again in the backward pass, where it comes once
    more: `recompute(function, *arguments)` as in `Managed`. Adapters that are put into blocks later stay on the device.

    A tensor of a block that is away has its shape and device and no memory; it reads as NaN.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        blocks: Sequence[torch.nn.Module],
        places: int,
        device: torch.device,
        recompute: Callable,
    ):
        """Takes the blocks' tensors into the machine's memory, one block after another. `to` must follow."""
        self.network, self.device, self.places, self.recompute = network, device, places, recompute
        self.tensors = [list({id(t): t for t in (*block.parameters(), *block.buffers())}.values()) for block in blocks]
        self.homes = [self._take(tensors) for tensors in self.tensors]
        self._mine = {id(tensor) for tensors in self.tensors for tensor in tensors}
        self._ring: list[torch.Tensor] = []
        self._free: list[int] = []
        self._where: OrderedDict[int, int] = OrderedDict()  # block → place, the longest unused first
        self._arrived: dict[int, torch.cuda.Event] = {}
        self._follows: dict[tuple[int, int], int] = {}  # (a block, the one after it) → the next one
        self._before = self._now = -1
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        for i, block in enumerate(blocks):
            for module in block.modules():
                module.whole = False  # no adapter can be added into weights that come and go; see `Roles.merged`
            block.forward = self._around(i, block.forward)

    def _take(self, tensors: list[torch.Tensor]) -> torch.Tensor:
        """One stretch of the machine's memory with all these tensors, which are then away."""
        home = torch.empty(stretch(tensors), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        for tensor, view in zip(tensors, _views(home, tensors), strict=True):
            view.copy_(tensor)
        self._send_away(tensors)
        return home

    def _send_away(self, tensors: list[torch.Tensor]) -> None:
        for tensor in tensors:
            nothing = torch.full((tensor.element_size(),), 255, dtype=torch.uint8, device=self.device)
            tensor.data = nothing.view(tensor.dtype).expand(tensor.shape)

    def to(self, device: torch.device | str) -> None:
        """Move all that is no block's, adapters included; the ring is there with its device and gone elsewhere."""
        device = torch.device(device)
        if self._side is not None:
            torch.cuda.synchronize(self.device)
        for tensor in (*self.network.parameters(), *self.network.buffers()):
            if id(tensor) not in self._mine:
                tensor.data = tensor.data.to(device)
                if tensor.grad is not None:
                    tensor.grad.data = tensor.grad.data.to(device)
        while self._where:
            self._evict()
        self._ring, self._free = [], []
        if device == self.device:
            size = max(len(home) for home in self.homes)
            self._ring = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(self.places)]
            self._free = list(range(self.places))

    def _around(self, i: int, forward: Callable) -> Callable:
        def run(*arguments, **options):
            def compute(*arguments):
                self._enter(i)
                return forward(*arguments, **options)

            return self.recompute(compute, *arguments) if torch.is_grad_enabled() else compute(*arguments)

        return run

    def _enter(self, i: int) -> None:
        """Have block i on the device, and the one that will probably follow on its way."""
        if i != self._now:
            if self._before >= 0:
                self._follows[self._before, self._now] = i
            self._before, self._now = self._now, i
        if i in self._where:
            self._where.move_to_end(i)
        else:
            self._load(i)
        if self._side is not None:
            torch.cuda.current_stream(self.device).wait_event(self._arrived[i])
        following = self._follows.get((self._before, i))
        if following is not None and following not in self._where and self.places > 1:
            self._load(following)
            self._where.move_to_end(i)

    def _evict(self) -> None:
        block, place = self._where.popitem(last=False)
        self._send_away(self.tensors[block])
        self._free.append(place)

    def _load(self, i: int) -> None:
        if not self._free:
            self._evict()
        place, home = self._free.pop(), self.homes[i]
        target = self._ring[place][: len(home)]
        if self._side is not None:
            # What the device computes by now still reads from this place; what it is told later does not.
            self._side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._side) if self._side is not None else nullcontext():
            target.copy_(home, non_blocking=True)
        if self._side is not None:
            self._arrived[i] = self._side.record_event()
        for tensor, view in zip(self.tensors[i], _views(target, self.tensors[i]), strict=True):
            tensor.data = view
        self._where[i] = place


def stretch(tensors: Sequence[torch.Tensor]) -> int:
    """Bytes that these tensors take side by side."""
    return sum(-(-tensor.nbytes // ALIGNED) * ALIGNED for tensor in tensors)


def _views(flat: torch.Tensor, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors of these shapes and types, one after another in `flat`."""
    found, start = [], 0
    for tensor in tensors:
        found.append(flat[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape))
        start += -(-tensor.nbytes // ALIGNED) * ALIGNED
    return found
