"""The dry run's estimate against what a real round takes, and its advice."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

import trainer.backends.base
from common.settings import MemorySettings, TDMR1Settings
from tests.trainer.backends.tiny import deep
from tests.trainer.peaks import held, peak_of
from trainer.backends import load_backend
from trainer.backends.cpu import restore
from trainer.cli import main
from trainer.methods.base import Groups
from trainer.methods.tdm_r1 import TDMR1
from trainer.plan import advise, fitted, options_text, parse_gpu, plan_round, rungs
from trainer.rounds import prepare, run

SETTINGS = {"updates": 2, "prompts_per_update": 3, "group_size": 4, "student_batch": 8, "validation_images": 0}
LINES = [{"prompt": f"{count} red stars", "tag": "counting"} for count in range(16)]  # as many as a grid shows
ALL = {"half": True, "text_encoders": "free", "vae_batch": 1, "micro_batch": 4, "checkpointing": True}
OPTIONS = {
    "none": {},
    "one image decoded at a time": {"vae_batch": 1},
    "bf16, no encoders, computed again in parts": ALL,
    "coded": ALL | {"weights": "int8"},
    "streamed": ALL | {"weights": "nf4", "streamed": 2},
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
    restore(made.backend.transformer)  # oneDNN's products are not counted
    generator = torch.Generator().manual_seed(0)
    conditioning = made.backend.encode(["a star"] * 3)
    made.backend.encode([""])
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counted:
        trajectory = made.sample(conditioning.repeat(4), torch.randn((12, *made.backend.latent_shape)))
        made.surrogate_update(Groups(trajectory.unflatten(0, (3, 4)), conditioning, torch.ones(3, 4)), generator)
        rows = conditioning.repeat(4).map(lambda t: t[:8])
        made.student_update(trajectory[:8], rows, torch.zeros(8, dtype=torch.long), generator)
    outline = costs[model_dir, plan.settings, False, "cuda", None]
    decoding = outline.costs(plan.memory)["decode bf16"].flops.at(12)
    assert plan.update_flops - decoding == pytest.approx(counted.get_total_flops(), rel=0.05)
    longer = dataclasses.replace(plan.settings, updates=4)
    assert dataclasses.replace(plan, settings=longer).flops == plan.flops + 2 * plan.update_flops


def test_a_round_with_a_head_is_within_15_percent_of_the_measured_peak(model_dir, make_spec, reddish):
    spec = make_spec(settings=SETTINGS | {"surrogate": "head", "head_groups": 6, "head_passes": 1}, validation=LINES)
    made = prepare(spec)
    measured = held(made.method.backend) + peak_of(lambda: run(made))
    estimate = plan_round(model_dir, TDMR1Settings.from_json(spec.settings), MemorySettings(), device="cpu")
    assert estimate.tensors == pytest.approx(measured, rel=0.15)
    own = sum(p.nbytes for p in made.method.head.parameters())
    roles = made.method.roles
    assert estimate.adapters == own + sum(p.nbytes for role in roles.names for p in roles.parameters(role))
    twice = dataclasses.replace(estimate.settings, head_groups=2 * estimate.settings.head_groups)
    longer = plan_round(model_dir, twice, MemorySettings(), device="cpu")
    assert longer.other_flops > estimate.other_flops and longer.update_flops == pytest.approx(estimate.update_flops)


def test_each_process_holds_its_share(model_dir, plan, costs):
    shared = plan_round(model_dir, plan.settings, MemorySettings(shard=True), costs=costs, processes=4)
    (outline,) = (found for key, found in costs.items() if key[:3] == (model_dir, plan.settings, False))
    for name in ("transformer", "text_encoder", "text_encoder_3"):
        blocks, largest = outline.dealt[name]
        assert 0 < largest <= blocks <= plan.weights[name]
        assert shared.resident[name] == plan.weights[name] - blocks + -(-blocks // 4)
    blocks, largest = outline.dealt["transformer"]
    assert blocks == sum(p.nbytes for b in load_backend(model_dir).streamed_blocks() for p in b.parameters())
    assert shared.resident["blocks gathered"] == 3 * largest
    assert shared.adapters == plan.adapters and shared.trajectories == plan.trajectories
    decoding = outline.costs(plan.memory)["decode bf16"].flops.at(
        12
    )  # images are decoded by all, of passes each makes a share
    assert shared.update_flops - decoding == pytest.approx((plan.update_flops - decoding) / 4, rel=0.2)
    ladder = list(rungs(MemorySettings(shard=True)))
    assert ladder and all(memory.shard and memory.weights == "none" and not memory.streamed for memory in ladder)


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


def test_a_smaller_size_needs_less(model_dir, plan, costs):
    half = plan_round(model_dir, plan.settings, MemorySettings(), size=(128, 64), costs=costs)
    own = plan_round(model_dir, plan.settings, MemorySettings(), size=(128, 128), costs=costs)
    assert own.phases == plan.phases and own.update_flops == plan.update_flops
    assert half.trajectories == plan.trajectories / 2 and half.update_flops < 0.7 * plan.update_flops


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
    settings = TDMR1Settings(**SETTINGS, rank=4, alpha=8)
    ladder = list(rungs(MemorySettings()))
    totals = [plan_round(model_dir, settings, memory, costs=costs).total for memory in ladder]
    limit = (min(totals) + plan.total) / 2
    told = []
    asked, fits = advise(model_dir, settings, MemorySettings(), limit, tell=told.append, costs=costs)
    first = next(i for i, total in enumerate(totals) if total <= limit)
    assert asked.total == plan.total > limit >= fits.total == totals[first]
    assert told == ladder[: first + 1]
    assert advise(model_dir, settings, MemorySettings(), min(totals) - 1, costs=costs)[1] is None


def test_the_ladder_goes_from_what_costs_nothing_to_what_moves_weights():
    ladder = list(rungs(MemorySettings()))
    assert options_text(ladder[1]) == "--half --text-encoders free --vae-batch 2"
    firsts = {name: next(i for i, m in enumerate(ladder) if getattr(m, name)) for name in ("half", "micro_batch")}
    firsts["checkpointing"] = next(i for i, m in enumerate(ladder) if m.checkpointing)
    firsts["int8"] = next(i for i, m in enumerate(ladder) if m.weights == "int8")
    firsts["streamed"] = next(i for i, m in enumerate(ladder) if m.streamed)
    firsts["nf4"] = next(i for i, m in enumerate(ladder) if m.weights == "nf4")
    assert list(firsts.values()) == sorted(firsts.values())
    own = MemorySettings(
        weights="fp8", micro_batch=2, vae_batch=1, text_encoders="offload", compile=True, embeddings="x"
    )
    for memory in rungs(own):
        assert (memory.weights, memory.text_encoders, memory.embeddings, memory.vae_batch) == ("fp8", "offload", "x", 1)
        assert memory.micro_batch in (1, 2) and memory.compile == (not memory.streamed)


def test_auto_takes_what_fits_into_what_the_gpu_has_free(model_dir, plan, costs, monkeypatch):
    auto = MemorySettings(auto=True, embeddings="x")
    assert fitted(model_dir, auto, "cpu") == MemorySettings(embeddings="x")
    assert fitted(model_dir, MemorySettings(half=True), "cuda") == MemorySettings(half=True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(plan.total) + 1, int(80e9)))
    assert fitted(model_dir, auto, "cuda", plan.settings) == MemorySettings(embeddings="x")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(plan.total) - 5_000_000, int(80e9)))
    found = fitted(model_dir, auto, "cuda", plan.settings)
    assert found.half and found.embeddings == "x" and not found.auto
    assert plan.total_to_generate < plan.total
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1_000_000, int(80e9)))
    with pytest.raises(ValueError, match=r"does not fit into the 0\.0 GB that cuda has free under any options"):
        fitted(model_dir, auto, "cuda", plan.settings)


def test_blocks_that_repeat_are_measured_once_and_multiplied(tmp_path, monkeypatch):
    """A deeper network's plan is the one that measures every block."""
    folder = deep(tmp_path / "deep")
    settings = TDMR1Settings(**SETTINGS, rank=4, alpha=8)
    memory = MemorySettings(half=True, weights="int8")
    short = plan_round(folder, settings, memory, device="cpu")
    monkeypatch.setattr("trainer.plan._shorten", lambda inner: [])
    whole = plan_round(folder, settings, memory, device="cpu")
    assert short.weights == whole.weights and short.adapters == whole.adapters
    assert short.update_flops == pytest.approx(whole.update_flops, rel=0.01)
    for phase, peak in whole.phases.items():
        assert short.phases[phase] == pytest.approx(peak, rel=0.05), phase


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


def test_the_command_plans_processes_that_shard(model_dir, capsys):
    options = [
        "--model",
        str(model_dir),
        "--rank",
        "4",
        "--alpha",
        "8",
        "--prompts-per-update",
        "3",
        "--group-size",
        "2",
    ]
    assert main(["plan", *options, "--gpu", "24GB", "--processes", "2", "--shard"]) == 0
    assert "of it in each of 2 processes" in capsys.readouterr().out
    assert main(["plan", *options, "--gpu", "24GB", "--shard"]) == 2
    assert "shard: there is one process; give --processes" in capsys.readouterr().err


def test_gpus_by_size_and_by_name():
    assert parse_gpu("24GB") == (24, 71, "rtx3090")
    assert parse_gpu("80 gb")[2] == "a100"
    assert parse_gpu("H100") == (80, 989, "h100")
    with pytest.raises(ValueError, match="gpu: 'big' is neither a size such as 24GB nor one of rtx3060"):
        parse_gpu("big")
