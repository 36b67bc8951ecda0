"""Which images of a group are better, and how often an opinion says so."""

import torch

from trainer.advantages import group_advantages, pairs_right

REWARDS = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.2, 0.8, 0.5, 0.0]])
KNOWN = torch.tensor([[True, True, True, True], [True, True, True, False]])


def test_pairs_are_counted_within_groups_and_known_ones_only():
    assert pairs_right(REWARDS, REWARDS, KNOWN) == 1
    assert pairs_right(-REWARDS, REWARDS, KNOWN) == 0
    assert pairs_right(torch.zeros_like(REWARDS), REWARDS, KNOWN) == 0.5
    # The fourth image of the second group is unknown: what is thought of it does not count.
    thought = REWARDS.clone()
    thought[1, 3] = 9
    assert pairs_right(thought, REWARDS, KNOWN) == 1


def test_a_tie_is_half_right():
    opinions, advantages = torch.tensor([[0.1, 0.3, 0.1]]), torch.tensor([[1.0, -1.0, -1.0]])
    assert pairs_right(opinions, advantages, advantages != 0) == 0.25


def test_weighted_advantages_sum_up_to_those_of_all_images():
    """Shown images, each with the chance that it had: the group's mean is that of all, and sums over them are too."""
    rewards, inclusion = torch.tensor([[1.0, 0.0, 0.0, 1.0]]), torch.tensor([[0.25, 0.5, 0.5, 1.0]])
    known = torch.ones(1, 4, dtype=torch.bool)
    weight = 1 / inclusion
    mean = (rewards * weight).sum() / weight.sum()
    std = ((rewards - mean) ** 2 * weight).sum().div(weight.sum()).sqrt()
    expected = (rewards - mean) / (std + 1e-4) * weight / weight.mean()
    got = group_advantages(rewards, known, inclusion=inclusion)
    assert torch.allclose(got, expected, atol=1e-5) and abs(got.sum().item()) < 1e-5
    even = group_advantages(rewards, known, inclusion=torch.full((1, 4), 0.3))
    assert torch.allclose(even, group_advantages(rewards, known), atol=1e-6)
