"""Only the round that a checkpoint is of goes on from it, and numbers that are none never reach one."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.round_folder import RoundFolder
from common.settings import DistillSettings
from tests.trainer.rounds_helpers import LINES, SMALL, stop_after
from trainer.backends import load_backend
from trainer.checkpoint import whole_step
from trainer.methods import tdm
from trainer.methods.base import NotFinite
from trainer.methods.distill import DistillStopped, distill
from trainer.methods.tdm import TDM
from trainer.roles import FAKE
from trainer.rounds import RoundCancelled, prepare, run_round
from trainer.shares import Part

QUICK = {"validation_images": 0}


def stopped(spec, after=0):
    with pytest.raises(RoundCancelled):
        run_round(spec, should_stop=stop_after(after), trackers="none")
    return spec


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"settings": QUICK | {"student_lr": 0.01}},
            "student_lr: .* was made with 0.0002, this round says 0.01; set it",
        ),
        ({"settings": QUICK | {"seed": 7}}, "seed: the checkpoint in .*checkpoint was made with 0, this round says 7"),
        ({"settings": QUICK | {"method": "dgpo"}}, "method: .* made with tdm_r1, this round says dgpo"),
        ({"train_prompts": LINES[:3]}, "train_prompts: .* was made with another one"),
        ({"reward_oracle": "other"}, "reward_oracle: .* made with reddish, this round says other"),
    ],
    ids=["rate", "seed", "method", "prompts", "oracle"],
)
def test_another_round_does_not_go_on_from_a_checkpoint(make_spec, reddish, change, sentence):
    stopped(make_spec(settings=QUICK))
    with pytest.raises(ValueError, match=sentence):
        prepare(make_spec(**{"settings": QUICK} | change), oracles=lambda name: None)


def test_nor_one_of_another_parent_or_model(make_spec, reddish, parent, model_dir, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(model_dir, copy)
    stopped(make_spec(settings=QUICK, model_dir=str(copy)))
    prepare(make_spec(settings=QUICK))  # the same model elsewhere
    file = copy / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file({k: v + 1e-3 for k, v in tensors.items()}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"model_dir: .* was made with another one"):
        prepare(make_spec(settings=QUICK, model_dir=str(copy)))
    file = parent / "pytorch_lora_weights.safetensors"
    backend = load_backend(model_dir)
    lora = backend.load_lora(parent)
    changed = {k: v + 1e-3 for k, v in lora.state.items()}
    backend.save_lora(parent, changed, rank=lora.rank, alpha=lora.alpha)
    with pytest.raises(ValueError, match=r"parent_dir: .* was made with another one"):
        prepare(make_spec(settings=QUICK))


def test_nor_one_of_other_labels(make_spec, groups_file):
    labels = {"reward_oracle": None, "groups_file": str(groups_file), "settings": QUICK}
    stopped(make_spec(**labels))
    prepare(make_spec(**labels))
    groups_file.write_text(groups_file.read_text().replace("[1.0, 0.0, null, 1.0]", "[0.0, 1.0, null, 1.0]", 1))
    with pytest.raises(ValueError, match=r"groups_file: .* was made with another one"):
        prepare(make_spec(**labels))


def test_a_distillation_goes_on_with_its_own_model_prompts_and_settings(model_dir, tmp_path):
    def go(*, prompts=("a red star",), model=model_dir, stop=False, **settings):
        options = DistillSettings(
            **{"updates": 2, "updates_per_rollout": 2, "batch": 2, "rank": 4, "alpha": 8} | settings
        )
        work, output = tmp_path / "work", tmp_path / "student"
        how = {"steps": 2, "drawn_from": prompts, "should_stop": lambda: stop}
        return distill(model, lambda rng: prompts[0], options, work, output, **how)

    with pytest.raises(DistillStopped, match="stopped after 2 of 4 updates"):
        go(updates=4, stop=True)
    with pytest.raises(ValueError, match=r"student_lr: .* was made with .*, this call says 0.5; set it back"):
        go(student_lr=0.5)
    with pytest.raises(ValueError, match=r"prompts: .* was made with another one"):
        go(prompts=("a blue star",))
    shutil.copytree(model_dir, tmp_path / "model")
    config = tmp_path / "model" / "transformer" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(ValueError, match=r"model: .* was made with another one"):
        go(model=tmp_path / "model")
    assert go(updates=4)["updates"] == 4


def test_a_distillation_may_start_from_another_student(model_dir, parent, tmp_path):
    settings = DistillSettings(updates=2, batch=2, student_lr=0)
    how = {"steps": 2, "start": parent}
    distill(model_dir, lambda rng: "a red star", settings, tmp_path / "work", tmp_path / "student", **how)
    backend = load_backend(model_dir)
    started, ended = backend.load_lora(parent), backend.load_lora(tmp_path / "student")
    assert (ended.rank, ended.alpha) == (started.rank, started.alpha)
    torch.testing.assert_close(ended.state, started.state)
    with pytest.raises(ValueError, match=r"start: the checkpoint in .* was made with another one"):
        distill(model_dir, lambda rng: "a red star", settings, tmp_path / "work", tmp_path / "student", steps=2)


def test_updates_memory_and_validation_may_change_on_the_way(make_spec, reddish):
    stopped(make_spec(), after=2)
    settings = {"updates": 3, "validation_images": 3, "validate_every": 1}
    changed = make_spec(settings=settings, validation=LINES[1:3], memory={"micro_batch": 4})
    result = run_round(changed, trackers="none")
    assert result.steps == 3
    straight = prepare(make_spec("other", settings=settings, validation=LINES[1:3]))
    straight.judge.first()
    assert result.scores_before == pytest.approx(straight.state.scores_before, abs=1e-3)  # of the new prompts
    assert SMALL["validation_images"] != 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_round_and_keeps_the_checkpoint(make_spec, reddish, monkeypatch, bad):
    real, made = tdm.fake_loss, []

    def spoilt(*arguments, **options):
        made.append(None)
        return real(*arguments, **options) * (bad if len(made) == 3 else 1.0)

    monkeypatch.setattr(tdm, "fake_loss", spoilt)
    spec = make_spec(settings=QUICK)
    with pytest.raises(NotFinite, match=r"fake: its loss is not finite in update 3.* lower fake_lr"):
        run_round(spec, save_seconds=0, trackers="none")
    assert whole_step(RoundFolder(Path(spec.work_dir)).checkpoint) == 2


def test_gradients_and_weights_that_are_no_numbers_are_named(backend, parent):
    method = TDM(backend, DistillSettings(rank=4, alpha=8), parent=parent)
    (first, *_), part = method.roles.parameters(FAKE), Part.whole(1)
    everything = sum(p.sum() for p in method.roles.parameters(FAKE))
    before = first.detach().clone()
    with pytest.raises(NotFinite, match="fake: its gradient is not finite, so"):
        method.step(FAKE, [(everything + (first.sum() * 0).sqrt(), 1)], part)
    assert torch.equal(first, before)
    method.optimizers[FAKE].param_groups[0]["lr"] = float("inf")
    everything = sum(p.sum() for p in method.roles.parameters(FAKE))
    method.step(FAKE, [(everything, 1)], part)
    with pytest.raises(NotFinite, match="fake: its weights are not finite, so"):
        method.check_weights()
