"""Trajectories, checkpoints and model options that are whole files of something else: refused by name before use."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.files import sha256_of
from common.settings import DistillSettings, MemorySettings, SettingsError, TDMR1Settings, option
from trainer.backends.options import ModelOptions
from trainer.checkpoint import load_checkpoint, save_checkpoint, whole_step
from trainer.data import LabelledGroup, load_groups
from trainer.sampler import load_trajectory

ABOUT = {"prompt": "p", "version": "1", "seeds": "[1, 2]"}


def write(path, *, about=None, **changes):
    """A trajectory of two images, but for `changes`; None leaves a tensor out."""
    tensors = {"trajectory": torch.zeros(2, 5, 1, 2, 2).half(), "sigmas": torch.linspace(1, 0, 5)} | changes
    save_file({k: v for k, v in tensors.items() if v is not None}, path, metadata={**ABOUT, **(about or {})})
    return path


def filled(value):
    tensor = torch.zeros(2, 5, 1, 2, 2).half()
    tensor[1, 2, 0, 1, 1] = value
    return tensor


BAD = {
    "nan": ({"trajectory": filled(float("nan"))}, "not finite"),
    "infinite": ({"trajectory": filled(float("inf"))}, "not finite"),
    "whole numbers": ({"trajectory": torch.zeros(2, 5, 1, 2, 2, dtype=torch.int64)}, "I64"),
    "double": ({"trajectory": torch.zeros(2, 5, 1, 2, 2, dtype=torch.float64)}, "F64"),
    "four dimensions": ({"trajectory": torch.zeros(2, 5, 2, 2)}, r"not \(images"),
    "no image": ({"trajectory": torch.zeros(0, 5, 1, 2, 2), "about": {"seeds": "[]"}}, "of some size"),
    "a seed too many": ({"about": {"seeds": "[1, 2, 3]"}}, "of 3 seeds"),
    "seeds of text": ({"about": {"seeds": '["a", "b"]'}}, "not a list of whole numbers"),
    "a huge seed": ({"about": {"seeds": f"[1, {10**400}]"}}, "not a list of whole numbers"),
    "deep seeds": ({"about": {"seeds": "[" * 100_000}}, "recursion"),
    "a time too few": ({"sigmas": torch.linspace(1, 0, 4)}, r"is not of 5 times"),
    "times beyond 1": ({"sigmas": torch.linspace(2, 0, 5)}, "within 0 and 1"),
    "times without number": ({"sigmas": torch.full((5,), float("nan"))}, "within 0 and 1"),
    "no times": ({"sigmas": None}, "does not hold a trajectory"),
    "another tensor": ({"more": torch.zeros(1)}, "does not hold a trajectory"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_trajectory_of_another_kind(kind, tmp_path):
    changes, message = BAD[kind]
    with pytest.raises(ValueError, match=rf"trajectory: .*g\.safetensors cannot be read \(.*{message}"):
        load_trajectory(write(tmp_path / "g.safetensors", **changes))


def test_groups_that_do_not_fit_their_labels_or_each_other_are_left_out(tmp_path):
    def group(name, rewards, **changes):
        return LabelledGroup(name, "p", {}, "1", str(write(tmp_path / name, **changes)), rewards)

    deep, wide = ({"trajectory": torch.zeros(2, 5, *shape)} for shape in ((3, 2, 2), (1, 2, 4)))
    groups = [group("a", (1, 0)), group("b", (1, 0, 0)), group("c", (0, 1), **deep), group("d", (0, 1))]
    store = load_groups([*groups, group("e", (0, 1), **wide)])
    assert (len(store), store.shapes, len(store.damaged)) == (3, [(5, 1, 2, 2)] * 2 + [(5, 1, 2, 4)], 2)
    assert "b is of 2 images" in store.damaged[0] and "(5, 3, 2, 2)" in store.damaged[1]
    equal, others = store.by_size(torch.arange(3))
    assert (equal.tolist(), others.tolist()) == ([0, 1], [2])
    assert store.take(equal).trajectory.shape == (2, 3, 5, 1, 2, 2)
    assert store.take(others[:0], store.shapes[2]).trajectory.shape == (0, 3, 5, 1, 2, 4)


@pytest.fixture
def learned(tmp_path):
    """(folder, module, optimizer) of a checkpoint after an update."""
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "c", step=3, modules={"m": module}, optimizers={"o": optimizer})
    return tmp_path / "c", module, optimizer


def changed(tensors, name, value):
    return {k: v for k, v in {**tensors, name: value}.items() if v is not None}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("module/m/weight", torch.full((2, 3), float("nan")), "module/m/weight: a number is not finite"),
        ("module/m/weight", torch.zeros(3, 2), r"m: weight is \(3, 2\), not \(2, 3\)"),
        ("module/m/weight", torch.zeros(2, 3, dtype=torch.int64), "m: weight is"),
        ("module/m/weight", None, "m: weight is missing"),
        ("module/m/other", torch.zeros(1), "m: other is not known"),
        ("optimizer/o/0/exp_avg", torch.full((2, 3), float("inf")), "exp_avg: a number is not finite"),
        ("optimizer/o/0/exp_avg", torch.zeros(7), "exp_avg of shape .* fits no parameter"),
        ("optimizer/o/9/exp_avg", torch.zeros(2), "fits no parameter"),
        ("optimizer/o/²/exp_avg", torch.zeros(2), "fits no parameter"),
        (f"optimizer/o/{'9' * 5000}/exp_avg", torch.zeros(2), "fits no parameter"),
    ],
)
def test_a_checkpoint_of_another_kind(learned, name, value, message):
    folder, module, optimizer = learned
    before = {k: v.clone() for k, v in module.state_dict().items()}
    save_file(changed(load_file(folder / "state.safetensors"), name, value), folder / "state.safetensors")
    (folder / "state.json").write_text(
        json.dumps({"step": 3, "sha256": sha256_of(folder / "state.safetensors")}, ensure_ascii=False)
    )
    with pytest.raises(ValueError, match=f"checkpoint: .* is damaged .*{message}.*delete it to start over"):
        load_checkpoint(folder, modules={"m": module}, optimizers={"o": optimizer})
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())  # nothing is half loaded


@pytest.mark.parametrize("text", ["[]", '{"step": "3"}', '{"step": true}', '{"step": 1e9}', "{}", "[" * 100_000])
def test_a_checkpoint_without_a_step(learned, text):
    folder, module, optimizer = learned
    (folder / "state.json").write_text(text)
    assert whole_step(folder) is None
    with pytest.raises(ValueError, match="is damaged"):
        load_checkpoint(folder, modules={"m": module}, optimizers={"o": optimizer})


@pytest.mark.parametrize(
    "text",
    ["[]", "[" * 100_000, '{"size": 1e400}', f'{{"size": {10**400}}}', '{"size": true}', '{"a": 1}', " " * 70_000],
)
def test_model_options_of_another_kind(text, tmp_path):
    (tmp_path / "likestep.json").write_text(text)
    with pytest.raises(ValueError, match=r"likestep\.json: "):
        ModelOptions.read(tmp_path)


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("inf"), 1e308, True, "9" * 5000, "²", None])
@pytest.mark.parametrize(
    ("settings", "name"),
    [(TDMR1Settings, "seed"), (TDMR1Settings, "student_lr"), (DistillSettings, "batch"), (MemorySettings, "vae_batch")],
)
def test_numbers_that_no_setting_takes(settings, name, value):
    with pytest.raises(SettingsError, match=f"^{name}: ") as refused:
        settings.from_json({name: value})
    assert len(str(refused.value)) < 200


def test_every_number_among_the_settings_has_both_bounds():
    with pytest.raises(TypeError, match="both bounds"):
        option(1, "A number.", low=0)
