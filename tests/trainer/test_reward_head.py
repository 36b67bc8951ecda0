"""The explicit reward: a loss worked out by hand, a head that learns a taste, and a gradient that leads there."""

import math

import pytest
import torch

from trainer.advantages import pairs_right
from trainer.reward_head import (
    RewardHead,
    calibration_loss,
    cautious,
    fit,
    head_loss,
    noisy,
    opinions,
    ranking_loss,
    split,
    tapped_blocks,
)
from trainer.roles import STUDENT, SURROGATE, Roles


@pytest.fixture
def head(backend):
    roles = Roles(backend.transformer, backend.lora_targets, rank=4, alpha=8, roles=(STUDENT, SURROGATE))
    torch.manual_seed(0)
    return RewardHead(backend, roles, SURROGATE)


def test_the_loss_is_bradley_terry_over_differing_pairs():
    scores = torch.tensor([[1.0, 0.0, 5.0], [3.0, 3.0, 3.0]])
    rewards = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    known = torch.tensor([[True, True, False], [True, True, True]])
    by_hand = (math.log(1 + math.exp(-1)) + 2 * math.log(2)) / 3
    assert ranking_loss(scores, rewards, known).item() == pytest.approx(by_hand)
    assert ranking_loss(scores, torch.ones_like(rewards), known).item() == 0


def test_the_blocks_that_are_read():
    assert tapped_blocks(6) == (3, 5)
    assert tapped_blocks(1) == (0, 0)


def groups(backend, count, seed):
    """Groups in which images with the larger first channel are liked."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn((count, 4, *backend.latent_shape), generator=generator)
    taste = torch.randn((count, 4), generator=generator)
    images[:, :, 0] += taste[:, :, None, None]
    return images, ["a heart"] * count, (taste > taste.median(1, keepdim=True).values).float()


def test_it_learns_a_taste_and_its_gradient_leads_there(head, backend):
    images, prompts, rewards = groups(backend, 48, 0)
    known = torch.ones_like(rewards, dtype=torch.bool)
    before = {name: p.clone() for name, p in backend.transformer.named_parameters()}
    losses = fit(head, images, prompts, rewards, known, passes=4, lr=2e-3).losses
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])
    fresh, prompts, rewards = groups(backend, 16, 1)
    assert pairs_right(opinions(head, fresh, prompts), rewards, torch.ones_like(rewards, dtype=torch.bool)) > 0.85
    changed = {n for n, p in backend.transformer.named_parameters() if not torch.equal(p, before[n])}
    assert changed and all(f".{SURROGATE}." in name for name in changed)

    x, t = noisy(fresh, torch.Generator().manual_seed(2), low=0.3, high=0.5)
    shift = head.gradient(x, t, backend.encode(["a heart"]).repeat(len(x)))
    assert shift.shape == x.shape and not shift.requires_grad
    assert shift[:, 0].mean() > 0 and shift[:, 0].mean() > shift[:, 1:].mean().abs()


def test_the_head_saves_only_what_is_its_own(head):
    assert set(head.state_dict()) == {f"perceptrons.0.{i}.{n}" for i in (0, 1, 3) for n in ("weight", "bias")}


def test_calibration_is_cross_entropy_of_what_is_known():
    scores = torch.tensor([[2.0, -1.0, 9.0]])
    rewards, known = torch.tensor([[1.0, 0.25, torch.nan]]), torch.tensor([[True, True, False]])
    by_hand = (math.log(1 + math.exp(-2)) + 0.25 * math.log(1 + math.e) + 0.75 * math.log(1 + 1 / math.e)) / 2
    assert calibration_loss(scores, rewards, known).item() == pytest.approx(by_hand)
    one, two = (head_loss(scores[..., None].expand(-1, -1, m), rewards, known, calibration=0.5) for m in (1, 2))
    assert one.item() == pytest.approx(math.log(1 + math.exp(-3)) + 0.5 * by_hand) and torch.equal(one, two)


def test_what_an_ensemble_disagrees_on_is_liked_less():
    agreed, divided = torch.tensor([[1.0, 1.0], [0.0, 2.0]]).unbind(0)
    assert cautious(agreed).item() == pytest.approx(1, abs=2e-3)
    assert cautious(divided).item() == pytest.approx(1 - 2**0.5, abs=2e-3)
    assert cautious(torch.tensor([[3.0]])).item() == 3


def test_a_fit_ends_as_it_ranked_what_it_kept_back_best(head, backend):
    images, prompts, rewards = groups(backend, 40, 0)
    known = torch.ones_like(rewards, dtype=torch.bool)
    found = fit(head, images, prompts, rewards, known, passes=40, lr=2e-3, hold_out=True)
    held, taught = split(40, torch.Generator().manual_seed(0))
    assert len(held) == 5 and not set(held.tolist()) & set(taught.tolist())
    ranked = pairs_right(opinions(head, images[held], prompts[:5]), rewards[held], known[held])
    assert ranked == pytest.approx(found.right) and found.right > 0.7
    assert found.passes < 40 and len(found.losses) == found.passes * (35 // 8)
    assert math.isnan(fit(head, images[:8], prompts[:8], rewards[:8], known[:8], hold_out=True).right)
