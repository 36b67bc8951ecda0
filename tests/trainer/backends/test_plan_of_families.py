"""`plan` knows every family: its estimate of a tiny model's round is within 15% of what the round takes, however its
weights are held."""

import sys

import pytest
import torch

from common.settings import MemorySettings, TDMR1Settings
from tests.trainer.backends.tiny import CASES
from tests.trainer.peaks import held, peak_of
from trainer.backends import bf16_pays
from trainer.plan import plan_round
from trainer.roles import STUDENT, Roles
from trainer.rounds import RoundSpec, prepare, run

SMALL = {"updates": 1, "prompts_per_update": 3, "group_size": 4, "student_batch": 8, "validation_images": 0}
SETTINGS = TDMR1Settings(**SMALL, rank=4, alpha=8, guidance=1, rl_cfg=1)
LINES = [{"prompt": f"{count} red stars", "tag": "counting"} for count in range(16)]


HELD = {"whole": {}, "int8": {"weights": "int8"}, "nf4": {"weights": "nf4"}, "streamed": {"streamed": 2}}


@pytest.mark.parametrize("options", HELD.values(), ids=HELD)
def test_the_estimate_is_within_15_percent_of_the_measured_peak(
    family, backend, tmp_path, reddish, monkeypatch, options
):
    case, folder = family
    if case is CASES["qwen_image"] and not bf16_pays("cpu"):
        pytest.skip("in fp32 torch unrolls the inputs of the VAE's 3D convolutions, which a plan does not count")
    lengths = backend.encode([line["prompt"] for line in LINES]).lengths
    if lengths is not None:  # a plan takes prompts of usual length
        monkeypatch.setattr(sys.modules[type(backend.inner).__module__], "OUTLINE_TOKENS", int(lengths.max()))
    torch.manual_seed(1)
    state = Roles(backend.transformer, backend.lora_targets, rank=4, alpha=8).state_dict(STUDENT)
    backend.save_lora(tmp_path / "parent", state, rank=4, alpha=8)
    spec = RoundSpec(
        model_dir=str(folder),
        parent_dir=str(tmp_path / "parent"),
        work_dir=str(tmp_path / "work"),
        output_dir=str(tmp_path / "version"),
        train_prompts=LINES,
        reward_oracle="reddish",
        settings=SETTINGS.to_json(),
        memory=options,
    )
    made = prepare(spec)
    measured = held(made.method.backend) + peak_of(lambda: run(made))
    estimate = plan_round(folder, SETTINGS, MemorySettings(**options), device="cpu")
    assert estimate.tensors == pytest.approx(measured, rel=0.15)
