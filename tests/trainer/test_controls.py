"""The two controls: who is dealt which label, and what the base's own error says of images."""

import pytest
import torch

from trainer.advantages import pairs_right
from trainer.controls import by_own_error, own_errors, ranked_by_base, shuffled, write_control
from trainer.data import LabelledGroup, load_groups, read_groups
from trainer.sampler import SampledGroup, save_trajectory

REWARDS = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.2, 0.8, 0.5, 0.0]])
KNOWN = torch.tensor([[True, True, True, True], [True, True, True, False]])


def test_rewards_go_to_the_smallest_errors():
    errors = torch.tensor([[3.0, 1.0, 2.0, 4.0], [2.0, 3.0, 1.0, 0.0]])
    dealt = by_own_error(REWARDS, KNOWN, errors)
    assert dealt.tolist() == [[0, 1, 1, 0], [0.5, pytest.approx(0.2), pytest.approx(0.8), 0]]
    assert pairs_right(-errors, dealt, KNOWN) == 1


def test_shuffling_keeps_what_each_group_has():
    dealt = shuffled(REWARDS, KNOWN, torch.Generator().manual_seed(1))
    assert not torch.equal(dealt, REWARDS)
    for new, old, known in zip(dealt, REWARDS, KNOWN, strict=True):
        assert sorted(new[known].tolist()) == sorted(old[known].tolist())
        assert torch.equal(new[~known], old[~known])


def stored(folder, backend, rewards):
    """Groups of latents: the model's own images, but where the reward is 0 noise that it cannot know."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number, mine in enumerate(rewards):
        latents = torch.stack(
            [torch.randn(backend.latent_shape, generator=generator) * (0.1 if r else 3.0) for r in mine]
        )
        group = SampledGroup([], latents[:, None], torch.zeros(1), tuple(range(len(mine))))
        save_trajectory(folder / f"{number}.safetensors", group, prompt="a heart", version="")
        rows.append(LabelledGroup(str(number), "a heart", {}, "", str(folder / f"{number}.safetensors"), tuple(mine)))
    return rows


def test_the_bases_error_is_small_on_what_it_finds_likely(backend, tmp_path):
    store = load_groups(stored(tmp_path, backend, [(1.0, 0.0, None), (0.0, 1.0, 1.0)]))
    assert ranked_by_base(backend, store, torch.arange(2)) == 1
    file = stored(tmp_path, backend, [(1.0, 0.0, 1.0)])[0].trajectory_file
    turned = load_groups([LabelledGroup("0", "a heart", {}, "", file, (0.0, 1.0, 0.0))])
    assert ranked_by_base(backend, turned, torch.arange(1)) == 0


def test_errors_do_not_depend_on_the_other_groups_order_of_images(backend):
    images = torch.randn((1, 4, *backend.latent_shape), generator=torch.Generator().manual_seed(0))
    errors = own_errors(backend, images, ["a heart"], draws=2)
    turned = own_errors(backend, images.flip(1), ["a heart"], draws=2)
    assert torch.allclose(errors.flip(1), turned, rtol=1e-4)


@pytest.mark.parametrize("kind", ["shuffled", "own_error"])
def test_a_control_is_a_groups_file(kind, backend, tmp_path):
    groups = stored(tmp_path, backend, [(1.0, 0.0, None, 0.0), (0.0, 1.0, 1.0, 0.0)])
    back = read_groups(write_control(groups, tmp_path / "elsewhere" / "groups.jsonl", kind, backend=backend))
    assert [g.prompt for g in back] == [g.prompt for g in groups]
    assert back[0].rewards[2] is None
    for new, old in zip(back, groups, strict=True):
        assert new.trajectory_file == old.trajectory_file
        assert sorted(r for r in new.rewards if r is not None) == sorted(r for r in old.rewards if r is not None)


def test_a_kind_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="kind: 'hidden' is not one of shuffled, own_error"):
        write_control([], tmp_path / "groups.jsonl", "hidden")
