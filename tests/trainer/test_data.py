"""Labelled groups stay in their files until a batch needs them."""

import json

import pytest
import torch

from trainer.data import load_groups, read_groups
from trainer.sampler import SampledGroup, load_trajectory, save_trajectory


@pytest.fixture
def groups(tmp_path):
    """Five groups of two and three images, of which the last says nothing, and one that is cut off."""
    rewards = [(1, 0), (0, 1, 1), (1, None, 0), (0, 1), (1, 1)]
    lines = []
    for i, values in enumerate(rewards):
        trajectory = torch.randn(len(values), 5, 2, 4, 4, generator=torch.Generator().manual_seed(i))
        made = SampledGroup([], trajectory, torch.linspace(1, 0, 5), tuple(range(len(values))))
        save_trajectory(tmp_path / f"{i}.safetensors", made, prompt=f"prompt {i}", version="1")
        line = {"group": str(i), "prompt": f"prompt {i}", "metadata": {}, "version": "1", "rewards": values}
        lines.append(json.dumps(line | {"trajectory_file": f"{i}.safetensors"}))
    whole = (tmp_path / "3.safetensors").read_bytes()
    (tmp_path / "3.safetensors").write_bytes(whole[:-8])
    (tmp_path / "groups.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_a_batch_has_the_trajectories_of_its_files(groups):
    store = load_groups(read_groups(groups / "groups.jsonl"))
    assert (len(store), store.silent, len(store.damaged)) == (3, 1, 1)
    assert "3.safetensors" in store.damaged[0]
    batch = store.take(torch.tensor([2, 0]))
    assert batch.prompts == ["prompt 2", "prompt 0"]
    assert batch.trajectory.shape == (2, 3, 5, 2, 4, 4)
    assert torch.equal(batch.trajectory[0], load_trajectory(groups / "2.safetensors").trajectory)
    assert torch.equal(batch.trajectory[1, :2], load_trajectory(groups / "0.safetensors").trajectory)
    assert torch.equal(batch.advantages, store.advantages[[2, 0]])
    assert batch.advantages[1, 2] == 0  # where there is no third image
    empty = store.take(torch.tensor([], dtype=torch.long))
    assert empty.trajectory.shape == (0, 3, 5, 2, 4, 4) and empty.advantages.shape == (0, 3)


def test_nothing_is_held_in_memory(groups):
    store = load_groups(read_groups(groups / "groups.jsonl"))
    (groups / "0.safetensors").unlink()
    with pytest.raises(ValueError, match=r"trajectory: .*0\.safetensors cannot be read"):
        store.take(torch.tensor([0]))
    assert store.take(torch.tensor([1])).prompts == ["prompt 1"]


def test_chances_of_chosen_images_weigh_their_advantages(groups):
    file = groups / "groups.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    plain = load_groups(read_groups(file)).advantages
    lines[0]["inclusion"] = [0.5, 0.25]
    file.write_text("\n".join(map(json.dumps, lines)))
    weighed = load_groups(read_groups(file)).advantages
    assert weighed[0, 0] < plain[0, 0] and abs(weighed[0].sum()) < 1e-5
    for wrong in ([0.5], [0, 1], [2, 1]):
        lines[0]["inclusion"] = wrong
        file.write_text("\n".join(map(json.dumps, lines)))
        with pytest.raises(ValueError, match="line 1: inclusion"):
            read_groups(file)
