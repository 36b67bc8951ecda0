"""Losses and advantages against cases worked out by hand."""

import math

import pytest
import torch

from trainer.advantages import group_advantages, has_signal
from trainer.losses import StudentTargets, fake_loss, group_weight, head_shift, student_loss, surrogate_loss


def image(value):
    return torch.full((1, 1, 1), float(value))


def grouped(*values):
    """One group of one-pixel images: (1, G, 1, 1, 1)."""
    return torch.stack([image(v) for v in values])[None]


ALL = {
    "beta_dpo": 2.0,
    "teacher_weight": 0.0,
    "clip": 10.0,
    "teacher_clip_from": 1e9,
    "relative": False,
}


def test_advantages_by_hand():
    rewards = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    got = group_advantages(rewards, torch.ones(2, 2, dtype=torch.bool))
    std = math.sqrt(3 / 16)  # of 1, 0, 1, 1
    assert got[0].tolist() == pytest.approx([0.5 / (std + 1e-4), -0.5 / (std + 1e-4)], rel=1e-4)
    assert got[1].tolist() == [0, 0]
    assert has_signal(rewards).tolist() == [True, False]


def test_unknown_rewards_neither_move_nor_count():
    rewards = torch.tensor([[1.0, 0.0, 9.0]])
    known = torch.tensor([[True, True, False]])
    got = group_advantages(rewards, known)
    assert got[0, 2] == 0
    assert got[0, 0] == pytest.approx(-got[0, 1].item())


def test_advantages_are_clipped():
    rewards = torch.zeros(100, 2)
    rewards[0, 0] = 1
    assert group_advantages(rewards, torch.ones(100, 2, dtype=torch.bool))[0, 0] == 5


def test_group_weight_by_hand():
    advantages = torch.tensor([[1.0, -1.0]])
    d_surrogate, d_reference = torch.tensor([[0.2, 0.6]]), torch.tensor([[0.5, 0.5]])
    # (1·2·(0.2-0.5) - 1·2·(0.6-0.5)) / 2 = -0.4: ranked right, so less than one half.
    expected = 1 / (1 + math.exp(0.4))
    assert group_weight(advantages, d_surrogate, d_reference, 2.0).item() == pytest.approx(expected)


def test_surrogate_loss_by_hand():
    v_star, surrogate, reference = grouped(0, 0), grouped(1, 2), grouped(1, 1)
    terms = surrogate_loss(v_star, surrogate, reference, reference, grouped(0, 0), torch.tensor([[1.0, -1.0]]), **ALL)
    weight = 1 / (1 + math.exp(-(2 * (1 - 1) - 2 * (4 - 1)) / 2))
    assert terms.group_weight.item() == pytest.approx(weight)
    assert terms.loss.item() == pytest.approx(weight * (1 - 4) / 2)


def test_the_gradient_pulls_to_the_liked_and_away_from_the_disliked():
    surrogate = grouped(1, 1).requires_grad_()
    others = grouped(1, 1)
    terms = surrogate_loss(grouped(0, 0), surrogate, others, others, others, torch.tensor([[1.0, -1.0]]), **ALL)
    terms.loss.backward()
    liked, disliked = surrogate.grad.flatten().tolist()
    assert liked > 0 > disliked  # descent lowers the liked image's error and raises the disliked one's


@pytest.mark.parametrize(
    ("surrogate", "advantage", "active"),
    [
        (0.9, 1.0, 0.0),  # already likelier than the old copy by more than the clip: no gradient
        (0.999999, 1.0, 1.0),
        (1.1, -1.0, 0.0),  # already less likely
        (1.1, 1.0, 1.0),  # wrong way: gradient
        (0.9, -1.0, 1.0),
    ],
)
def test_trust_region(surrogate, advantage, active):
    old = grouped(1.0)
    terms = surrogate_loss(
        grouped(0.0),
        grouped(surrogate),
        old,
        old,
        grouped(surrogate),
        torch.tensor([[advantage]]),
        **ALL | {"clip": 0.01},
    )
    assert terms.active.item() == active


def test_the_teachers_trust_region_starts_at_its_threshold():
    old, teacher = grouped(0.9), grouped(1.5)
    near = surrogate_loss(grouped(0.0), grouped(1.0), old, old, teacher, torch.tensor([[1.0]]), **ALL | {"clip": 0.01})
    far = surrogate_loss(
        grouped(0.0),
        grouped(1.0),
        old,
        old,
        teacher,
        torch.tensor([[1.0]]),
        **ALL | {"clip": 0.01, "teacher_clip_from": 0.2},
    )
    assert (near.active.item(), far.active.item()) == (1.0, 0.0)


def test_relative_distances_do_not_depend_on_scale():
    torch.manual_seed(0)
    v = torch.randn(5, 2, 3, 1, 2, 2)
    advantages = torch.tensor([[1.0, 0.0, -1.0], [0.5, -1.0, 0.5]])
    options = ALL | {"relative": True, "teacher_weight": 0.1, "clip": 0.01, "teacher_clip_from": 0.5}
    small, large = (surrogate_loss(*(scale * v), advantages, **options) for scale in (1, 7))
    assert small.loss.item() == pytest.approx(large.loss.item(), rel=1e-5)
    assert torch.allclose(small.group_weight, large.group_weight)


def test_student_loss_by_hand():
    x0 = torch.full((1, 1, 1, 1), 1.0, requires_grad=True)
    targets = StudentTargets(*(torch.full((1, 1, 1, 1), v) for v in (2.0, 1.0, 0.5, 4.0, 2.5)))
    loss, terms = student_loss(x0, targets, guidance=3.0, guidance_weight=0.25, reward_on=torch.ones(1))
    # teacher_cfg = 2 + 2·(2 - 1) = 4: scale 3; directions: guidance 2, KL 1.5, reward 1.5 with scale |1 - 4| = 3
    assert terms["guidance"].item() == pytest.approx(4 / 3)
    assert terms["kl"].item() == pytest.approx(2.25 / 3)
    assert terms["reward"].item() == pytest.approx(2.25 / 3)
    assert loss.item() == pytest.approx(0.25 * 4 / 3 + 0.75 * 0.75 + 0.75)
    loss.backward()
    assert x0.grad.item() < 0  # every target lies above


def test_late_steps_drop_the_reward():
    x0 = torch.zeros(1, 1, 1, 1)
    targets = StudentTargets(*(torch.full((1, 1, 1, 1), v) for v in (2.0, 1.0, 0.5, 4.0, 2.5)))
    _, terms = student_loss(x0, targets, guidance=3.0, guidance_weight=0.25, reward_on=torch.zeros(1))
    assert terms["reward"].item() == 0


def test_fake_loss_is_zero_at_its_target():
    x0, eps = torch.randn(2, 3, 1, 2, 2)
    tau = torch.tensor([0.3, 0.6, 0.9])
    x_tau = (1 - tau[:, None, None, None]) * x0 + tau[:, None, None, None] * eps
    velocity = eps - x0
    assert fake_loss(velocity, x_tau, tau, x0, velocity, teacher_weight=0.5).item() == pytest.approx(0, abs=1e-10)
    assert fake_loss(velocity, x_tau, tau, x0, velocity + 1, teacher_weight=0.5).item() == pytest.approx(0.5)


def test_a_head_moves_an_image_by_bayes_rule_or_as_far_as_guidance():
    gradient = torch.cat([image(1), image(3), image(-20)])[:, None]  # pixels: lengths are absolute values
    tau, pull = torch.tensor([0.5, 0.8, 0.5]), torch.cat([image(2), image(-4), image(6)])[:, None]
    by_bayes = head_shift(gradient, tau, pull, strength=2.0, norm="posterior").flatten()
    assert by_bayes.tolist() == pytest.approx([2 * 0.5, 2 * 3.2 * 3, -2 * 0.5 * 20])
    along = head_shift(gradient, tau, pull, strength=0.5, norm="guidance").flatten()
    assert along.tolist() == pytest.approx([0.5 * 4 / 8, 0.5 * 4 * 3 / 8, -0.5 * 4 * 2])  # twice as far at most
    steeper = head_shift(1e3 * gradient, tau, pull, strength=0.5, norm="guidance").flatten()
    torch.testing.assert_close(steeper, along)
