"""How much memory something takes, as the allocators see it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from trainer.backends import Managed


def held(backend: Managed) -> int:
    """Bytes of the model's tensors, adapters included, each storage once."""
    parts = [part for part in backend.pipeline.components.values() if isinstance(part, torch.nn.Module)]
    tensors = [t for part in parts for t in (*part.parameters(), *part.buffers())]
    if backend.memory.streamed:  # the blocks' tensors come and go
        tensors += [*backend._stream.homes, *backend._stream._ring]
    storages = [t.untyped_storage() for t in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def peak_of(run: Callable[[], object], device: str = "cpu") -> int:
    """The most bytes that the allocator gave out beyond those it had given out before, during `run()`. On a CPU it comes
    from the allocator's events, which cost time: no timing."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak
