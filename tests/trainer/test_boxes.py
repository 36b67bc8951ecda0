"""Boxes that people draw on disliked images, as weights of the surrogate's loss."""

import json

import pytest
import torch

from common.settings import SettingsError, TDMR1Settings
from trainer.boxes import box_weights, covered, group_weights
from trainer.data import read_groups
from trainer.losses import mean_square, surrogate_loss

LEFT_HALF = (0.0, 0.0, 0.5, 1.0)
HOW = {"beta_dpo": 0.0, "teacher_weight": 0.0, "clip": 1e9, "teacher_clip_from": 1e9, "relative": False}


def test_cells_count_by_how_much_of_them_is_in_a_box():
    assert covered([LEFT_HALF], (2, 4)).tolist() == [[1, 1, 0, 0]] * 2
    found = covered([(0.125, 0.5, 0.25, 0.25)], (2, 4))  # half of two cells across, half of one down
    assert found.tolist() == [[0, 0, 0, 0], [0.25, 0.25, 0, 0]]
    both = covered([LEFT_HALF, (0.25, 0, 0.5, 1)], (1, 4))
    assert both.tolist() == [[1, 1, 1, 0]]
    assert covered([], (2, 2)).sum() == 0
    assert torch.allclose(covered([(0.0, 0.0, 1.0, 1.001)], (3, 3)), torch.ones(3, 3))


@pytest.mark.parametrize("box", [LEFT_HALF, (0.1, 0.2, 0.33, 0.4), (0.0, 0.0, 1.0, 1.0), (0.9, 0.9, 0.01, 0.01)])
def test_weights_keep_the_scale_of_the_loss(box):
    weights = box_weights([box], (16, 16), 5.0)
    assert weights.mean().item() == pytest.approx(1, abs=1e-5) and weights.min() > 0
    assert weights.max() / weights.min() <= 5 + 1e-4
    assert torch.equal(box_weights([box], (8, 8), 1.0), torch.ones(8, 8))
    assert torch.equal(box_weights([], (8, 8), 5.0), torch.ones(8, 8))


def test_only_disliked_images_with_a_box_are_weighed():
    advantages = torch.tensor([[1.0, -1.0, -1.0], [0.0, -1.0, 1.0]])
    boxes = [((LEFT_HALF,), (LEFT_HALF,), ()), ()]
    weights = group_weights(boxes, advantages, (4, 4), 3.0)
    changed = [(p, g) for p in range(2) for g in range(3) if not torch.equal(weights[p, g], torch.ones(4, 4))]
    assert weights.shape == (2, 3, 4, 4) and changed == [(0, 1)]
    assert weights[0, 1, 0].tolist() == [1.5, 1.5, 0.5, 0.5]


def velocities():
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(1, 2, 3, 4, 4, generator=generator) for _ in range(5)]


def test_the_gradient_is_larger_in_the_box_and_as_large_in_all():
    star, mine, *others = velocities()
    advantages = torch.tensor([[1.0, -1.0]])
    cells = group_weights([((), (LEFT_HALF,))], advantages, (4, 4), 3.0)

    def gradient(cells):
        moving = mine.clone().requires_grad_()
        surrogate_loss(star, moving, *others, advantages, **HOW, cells=cells).loss.backward()
        return moving.grad

    plain, weighed = gradient(None), gradient(cells)
    assert torch.allclose(gradient(torch.ones(1, 2, 4, 4)), plain)
    assert torch.allclose(weighed[:, 0], plain[:, 0])  # the liked image
    assert torch.allclose(weighed[0, 1, :, :, :2], 1.5 * plain[0, 1, :, :, :2])
    assert torch.allclose(weighed[0, 1, :, :, 2:], 0.5 * plain[0, 1, :, :, 2:])


def test_a_weighed_mean_is_the_mean_where_all_weigh_the_same():
    x = velocities()[0]
    assert torch.allclose(mean_square(x, torch.ones(1, 2, 4, 4)), mean_square(x))
    left = torch.zeros(4, 4)
    left[:, :2] = 2
    assert torch.allclose(mean_square(x, left), mean_square(x[..., :2]))


def test_distances_of_every_role_are_weighed_alike():
    """A surrogate that is as the reference has gained nothing, whatever is marked."""
    star, mine, *_others = velocities()
    advantages = torch.tensor([[1.0, -1.0]])
    cells = group_weights([((), (LEFT_HALF,))], advantages, (4, 4), 3.0)
    terms = surrogate_loss(star, mine, mine, mine, mine, advantages, **{**HOW, "relative": True}, cells=cells)
    assert torch.allclose(terms.gain, torch.zeros(1, 2)) and terms.distance == 0


def line(**values):
    about = {"group": "1", "prompt": "a", "metadata": {}, "version": "1", "trajectory_file": "x", "rewards": [1, 0]}
    return json.dumps({**about, **values})


def test_boxes_come_with_the_groups(tmp_path):
    file = tmp_path / "groups.jsonl"
    file.write_text("\n".join([line(), line(boxes=[[], [list(LEFT_HALF)]])]))
    plain, marked = read_groups(file)
    assert (plain.boxes, marked.boxes) == ((), ((), (LEFT_HALF,)))
    for wrong in ([[], [[0, 0, 1]]], [[[0, 0, 2, 1]]], [[[0, 0, 0, 1]]], [[["a", 0, 1, 1]]], 7):
        file.write_text(line(boxes=wrong))
        with pytest.raises(ValueError, match="line 1: "):
            read_groups(file)


def test_the_setting_is_off_and_bounded():
    assert TDMR1Settings().box_weight == 1
    with pytest.raises(SettingsError, match="box_weight"):
        TDMR1Settings(box_weight=0.5)
