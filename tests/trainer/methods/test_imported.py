"""Own images teach by the one point that is known of them, and methods that train the student by images leave them out."""

import json
from dataclasses import replace

import pytest
import torch

from common.settings import WITH_SURROGATE, TDMR1Settings
from trainer.backends import load_backend
from trainer.data import load_groups, read_groups, without_imported
from trainer.methods import method_class
from trainer.methods.base import Groups, NotFinite
from trainer.methods.tdm_r1 import TDMR1
from trainer.roles import STUDENT, SURROGATE
from trainer.sampler import SampledGroup, save_trajectory

SETTINGS = TDMR1Settings(rank=4, alpha=8, surrogate_lr=3e-3)


@pytest.fixture
def method(model_dir):
    torch.manual_seed(0)
    return TDMR1(load_backend(model_dir), SETTINGS, bf16=False)


def images(method, count=2, size=6):
    """Encoded images as groups of one point, of which the brighter ones in the first channel are liked."""
    shape = method.backend.latent_shape
    x0 = torch.randn((count, size, 1, *shape), generator=torch.Generator().manual_seed(0))
    x0[:, :, :, 0] += torch.randn((count, size, 1, 1, 1), generator=torch.Generator().manual_seed(1))
    value = x0[:, :, -1, 0].mean((-1, -2))
    liked = (value > value.median(1, keepdim=True).values).float()
    conditioning = method.backend.encode([f"{n} stars" for n in range(count)])
    return Groups(x0, conditioning, liked * 2 - 1, imported=torch.ones(count, dtype=torch.bool))


def surrogate_after(method, groups):
    before = method.roles.state_dict(SURROGATE)
    loss = method.surrogate_update(groups, torch.Generator().manual_seed(3))["surrogate"]
    after = method.roles.state_dict(SURROGATE)
    method.roles.load_state_dict(SURROGATE, before)
    return loss, after


def test_only_the_image_counts_whatever_stands_before_it(method):
    """In a batch with generated groups the one point fills all places; what stood there would change nothing."""
    alone = images(method)
    points = alone.trajectory.expand(-1, -1, 5, -1, -1, -1).clone()
    points[:, :, :-1] = torch.nan
    assert surrogate_after(method, replace(alone, trajectory=points))[0] == pytest.approx(
        surrogate_after(method, alone)[0]
    )
    with pytest.raises(NotFinite):  # a group with points of its own is looked at anywhere
        surrogate_after(method, replace(alone, trajectory=points, imported=None))


def test_a_surrogate_learns_from_them_and_the_student_stays(method):
    groups = images(method)
    student = method.roles.state_dict(STUDENT)

    def margin():
        opinion = method.learned_reward(groups, draws=16, generator=torch.Generator().manual_seed(9))
        return (opinion[groups.advantages > 0].mean() - opinion[groups.advantages < 0].mean()).item()

    before, generator = margin(), torch.Generator().manual_seed(0)
    for _ in range(40):
        method.surrogate_update(groups, generator)
    assert margin() > before + 1e-3
    assert all(torch.equal(v, student[k]) for k, v in method.roles.state_dict(STUDENT).items())


def test_which_methods_take_them():
    takes = {
        name: method_class(TDMR1Settings(method=name)).takes_imported
        for name in ("tdm_r1", "task_vector", "dgpo", "negative_aware", "best_of_group", "flow_grpo")
    }
    direct = ("dgpo", "negative_aware", "best_of_group", "flow_grpo")
    assert takes == {"tdm_r1": True, "task_vector": True} | dict.fromkeys(direct, False)
    assert tuple(name for name in takes if takes[name]) == WITH_SURROGATE  # what the app goes by
    assert method_class(TDMR1Settings(surrogate="head")).takes_imported


@pytest.fixture
def mixed(tmp_path):
    """A generated group, two imported ones, and imported ones of other latents and with too many points."""
    lines = []
    for name, points, channels, imported in (
        ("made", 5, 2, False),
        ("own", 1, 2, True),
        ("own, more images", 1, 2, True),
        ("other latents", 1, 3, True),
        ("too many points", 5, 2, True),
    ):
        rewards = [1.0, 0.0] if "more" not in name else [0.0, 1.0, 1.0]
        trajectory = torch.randn(len(rewards), points, channels, 4, 4)
        seeds = () if points == 1 else tuple(range(len(rewards)))
        made = SampledGroup([], trajectory, torch.linspace(1, 0, points) if points > 1 else torch.zeros(1), seeds)
        save_trajectory(tmp_path / f"{name}.safetensors", made, prompt=name, version="")
        line = {"group": name, "prompt": name, "metadata": {}, "version": "", "rewards": rewards}
        lines.append(json.dumps(line | {"trajectory_file": f"{name}.safetensors", "imported": imported}))
    (tmp_path / "groups.jsonl").write_text("\n".join(lines))
    return tmp_path / "groups.jsonl"


def test_a_store_holds_both(mixed):
    store = load_groups(read_groups(mixed))
    assert store.prompts == ["made", "own", "own, more images"] and store.imported.tolist() == [False, True, True]
    assert len(store.damaged) == 2 and store.shapes == [(5, 2, 4, 4)] * 3
    batch = store.take(torch.tensor([2, 0]))
    assert batch.trajectory.shape == (2, 3, 5, 2, 4, 4) and batch.imported.tolist() == [True, False]
    assert torch.equal(batch.trajectory[0, :, 0], batch.trajectory[0, :, -1])


def test_a_store_without_any(mixed):
    groups = without_imported(read_groups(mixed))
    store = load_groups(groups)
    assert store.prompts == ["made"] and store.imported is None and store.take(torch.tensor([0])).imported is None
    with pytest.raises(ValueError, match="never teach the student itself"):
        without_imported([group for group in read_groups(mixed) if group.imported])
    assert without_imported([]) == []
