"""Which images of a group are better, and how often an opinion says so."""

import torch

from trainer.advantages import pairs_right

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
