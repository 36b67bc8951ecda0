"""How much memory something takes, as the allocators see it."""

import torch


def held(backend):
    """Bytes of the model's tensors, adapters included, each storage once."""
    parts = [p for p in backend.pipeline.components.values() if isinstance(p, torch.nn.Module)]
    tensors = [t for part in parts for t in (*part.parameters(), *part.buffers())]
    if backend.memory.streamed:
        tensors += [*backend._stream.homes, *backend._stream._ring]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def peak_of(run, device="cpu"):
    """The most bytes that the allocator gave out beyond those it had given out before, during `run()`."""
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
    assert peak > 0
    return peak
