"""The dry run's estimate against what a real round takes, and its advice."""

import json

import pytest
import torch

from tests.trainer.test_rounds import make_spec, parent, reddish  # noqa: F401 - fixtures
from trainer.plan import plan_round
from trainer.rounds import _Round
from trainer.settings import MemorySettings, TDMR1Settings

SETTINGS = {"updates": 2, "prompts_per_update": 3, "group_size": 4, "student_batch": 8, "validation_images": 0}
LINES = [{"prompt": f"{count} red stars", "tag": "counting"} for count in range(16)]  # as many as a grid shows
OPTIONS = {
    "none": {},
    "one image decoded at a time": {"vae_batch": 1},
    "blocks computed again": {"vae_batch": 1, "checkpointing": True},
    "bf16, encoders freed, parts": {"half": True, "text_encoders": "free", "vae_batch": 4, "vae_tiling": True, "micro_batch": 4},
}


def held(backend):
    """Bytes of the model's tensors, adapters included, each storage once."""
    parts = [p for p in backend.pipeline.components.values() if isinstance(p, torch.nn.Module)]
    tensors = [t for part in parts for t in (*part.parameters(), *part.buffers())]
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


@pytest.fixture(scope="module")
def costs():
    return {}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif("not torch.cuda.is_available()"))])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_estimate_is_within_15_percent_of_the_measured_peak(
    model_dir,
    make_spec,  # noqa: F811
    reddish,  # noqa: F811
    costs,
    options,
    device,
):
    spec = make_spec(settings=SETTINGS, memory=options, validation=LINES)
    made = _Round(spec, lambda progress: None, lambda: False, device, 1e9)
    measured = held(made.trainer.backend) + peak_of(made.run, device)
    estimate = plan_round(
        model_dir, TDMR1Settings.from_json(spec.settings), MemorySettings(**options), device=device, costs=costs
    )
    print(json.dumps({"measured": measured, "estimate": estimate.tensors, "ratio": estimate.tensors / measured, **estimate.phases}))
    assert estimate.tensors == pytest.approx(measured, rel=0.15)
