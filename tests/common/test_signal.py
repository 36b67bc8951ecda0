"""The one rule of signal, and its twin for tensors."""

import random

import torch

from common.signal import SAME, has_signal
from trainer import advantages
from trainer.data import pad_rewards


def test_a_difference_that_can_teach():
    assert has_signal([0.2, None, 0.9])
    assert has_signal([0.5, 0.5101])
    assert not has_signal([0.5, 0.5 + SAME])
    assert not has_signal([0.5, 0.505, None])
    assert not has_signal([None, 1.0])
    assert not has_signal([])


def test_the_rule_for_tensors_is_the_same():
    draw = random.Random(3)
    values = [None, 0.0, 1.0, 0.5, 0.51, 0.5099, 0.5101, 0.33, 0.34, 0.345]
    groups = [[draw.choice(values) for _ in range(draw.randint(1, 4))] for _ in range(2000)]
    expected = [has_signal(group) for group in groups]
    assert 0 < sum(expected) < len(expected)
    assert advantages.has_signal(*pad_rewards(groups)).tolist() == expected
    assert advantages.has_signal(torch.tensor([[0.5, 0.51], [0.0, 1.0]])).tolist() == [False, True]
    assert advantages.has_signal(*pad_rewards([])).tolist() == []
