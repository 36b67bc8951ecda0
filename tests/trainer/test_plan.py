"""The dry run's estimate against what a real round takes, and its advice."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

import trainer.backends.base
from common.settings import MemorySettings, TDMR1Settings
from tests.trainer.peaks import held, peak_of
from trainer.backends import load_backend
from trainer.cli import main
from trainer.methods.base import Groups
from trainer.methods.tdm_r1 import TDMR1
from trainer.plan import FREE_OF_COST, advise, options_text, parse_gpu, plan_round
from trainer.rounds import prepare, run

SETTINGS = {"updates": 2, "prompts_per_update": 3, "group_size": 4, "student_batch": 8, "validation_images": 0}
LINES = [{"prompt": f"{count} red stars", "tag": "counting"} for count in range(16)]  # as many as a grid shows
ALL = {"half": True, "text_encoders": "free", "vae_batch": 1, "micro_batch": 4, "checkpointing": True}
OPTIONS = {
    "none": {},
    "one image decoded at a time": {"vae_batch": 1},
    "bf16, no encoders, computed again in parts": ALL,
}

ATTENTION = {  # of the CPU, which torch's counter does not know
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda g, q, k, v, *_, **__: sdpa_backward_flop_count(g, q, k, v)
    ),
}


@pytest.fixture(scope="module")
def costs():
    return {}


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif("not torch.cuda.is_available()"))]
)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_estimate_is_within_15_percent_of_the_measured_peak(
    model_dir,
    make_spec,
    reddish,
    costs,
    options,
    device,
):
    spec = make_spec(settings=SETTINGS, memory=options, validation=LINES)
    made = prepare(spec, device=device)
    measured = held(made.method.backend) + peak_of(lambda: run(made), device)
    estimate = plan_round(
        model_dir, TDMR1Settings.from_json(spec.settings), MemorySettings(**options), device=device, costs=costs
    )
    assert estimate.tensors == pytest.approx(measured, rel=0.15)


@pytest.fixture(scope="module")
def plan(model_dir, costs):
    return plan_round(model_dir, TDMR1Settings(**SETTINGS, rank=4, alpha=8), MemorySettings(), costs=costs)


def test_work_is_what_torch_counts_in_a_real_update(model_dir, parent, plan, costs):
    made = TDMR1(load_backend(model_dir), TDMR1Settings(**SETTINGS), parent=parent)
    generator = torch.Generator().manual_seed(0)
    conditioning = made.backend.encode(["a star"] * 3)
    made.backend.encode([""])
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counted:
        trajectory = made.sample(conditioning.repeat(4), torch.randn((12, *made.backend.latent_shape)))
        made.surrogate_update(Groups(trajectory.unflatten(0, (3, 4)), conditioning, torch.ones(3, 4)), generator)
        rows = conditioning.repeat(4).map(lambda t: t[:8])
        made.student_update(trajectory[:8], rows, torch.zeros(8, dtype=torch.long), generator)
    decoding = costs["cuda", "decode bf16", False].flops.at(12)
    assert plan.update_flops - decoding == pytest.approx(counted.get_total_flops(), rel=0.05)
    longer = dataclasses.replace(plan.settings, updates=4)
    assert dataclasses.replace(plan, settings=longer).flops == plan.flops + 2 * plan.update_flops


def test_a_plan_for_a_gpu_is_in_bf16_also_on_a_cpu_without(model_dir, plan, monkeypatch):
    monkeypatch.setattr(trainer.backends.base, "bf16_pays", lambda kind: kind != "cpu")
    gpus, own = (plan_round(model_dir, plan.settings, MemorySettings(), device=device) for device in ("cuda", "cpu"))
    assert gpus.phases == plan.phases
    assert all(gpus.phases[phase] < own.phases[phase] for phase in ("sample", "surrogate", "student"))


@pytest.mark.parametrize("method", ["dgpo", "best_of_group", "flow_grpo"])
def test_other_methods_need_less_than_tdm_r1(model_dir, plan, costs, method):
    settings = TDMR1Settings(**SETTINGS, rank=4, alpha=8, method=method)
    other = plan_round(model_dir, settings, MemorySettings(), costs=costs)
    assert 0 < other.adapters < plan.adapters and other.optimizers == pytest.approx(plan.optimizers / 3)
    assert 0 < other.update_flops < plan.update_flops


def test_weights_are_counted_by_part_and_place(model_dir, plan, costs):
    settings = TDMR1Settings(**SETTINGS, rank=4, alpha=8)
    thrifty = MemorySettings(half=True, text_encoders="free", vae_offload=True)
    away = plan_round(model_dir, settings, thrifty, costs=costs)
    assert away.weights["transformer"] < 0.6 * plan.weights["transformer"]
    assert away.weights["vae"] == plan.weights["vae"]
    assert set(plan.resident) == {"transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"}
    assert set(away.resident) == {"transformer", "vae"}  # decoding is the highest peak, so the VAE is there
    assert away.phases["surrogate"] < plan.phases["surrogate"] - plan.weights["vae"]


def test_advice_is_the_first_set_of_options_that_fits(model_dir, plan, costs):
    settings, limit, told = TDMR1Settings(**SETTINGS, rank=4, alpha=8), plan.total - 10e6, []
    asked, fits = advise(model_dir, settings, MemorySettings(), limit, tell=told.append, costs=costs)
    assert asked.total == plan.total > limit >= fits.total
    assert told == [fits.memory] and fits.memory == MemorySettings(**FREE_OF_COST)
    assert options_text(fits.memory) == "--half --text-encoders free --vae-batch 2"


def test_the_command_prints_parts_total_and_advice(model_dir, capsys):
    options = [
        "--model",
        str(model_dir),
        "--rank",
        "4",
        "--alpha",
        "8",
        "--prompts-per-update",
        "4",
        "--group-size",
        "2",
    ]
    assert main(["plan", *options, "--gpu", "24GB", "--processes", "2", "--student-batch", "4"]) == 0
    text = capsys.readouterr().out
    assert "2 × 24 GB, 71 TFLOP/s (as rtx3090)" in text and "It fits into 24 GB." in text
    assert "transformer, fp32" in text and "peak while it does: surrogate" in text and "time, roughly:" in text
    assert main(["plan", *options, "--gpu", "24GB", "--processes", "3"]) == 2
    assert "processes: 4 prompts and 48 images" in capsys.readouterr().err


def test_gpus_by_size_and_by_name():
    assert parse_gpu("24GB") == (24, 71, "rtx3090")
    assert parse_gpu("80 gb")[2] == "a100"
    assert parse_gpu("H100") == (80, 989, "h100")
    with pytest.raises(ValueError, match="gpu: 'big' is neither a size such as 24GB nor one of rtx3090"):
        parse_gpu("big")
