"""TDM-R1 with a head for a surrogate: it learns what is liked, points the student there, and resumes exactly."""

import dataclasses

import pytest
import torch

from common.settings import TDMR1Settings
from tests.trainer.rounds_helpers import same, stop_after, weights
from trainer.backends import load_backend
from trainer.methods.base import Groups
from trainer.methods.tdm_r1_head import TDMR1Head
from trainer.replay import Replay
from trainer.roles import FAKE, STUDENT, STUDENT_EMA, SURROGATE
from trainer.rounds import RoundCancelled, prepare, run_round
from trainer.shares import Part

PROMPTS = ["a star", "a red heart", "two squares", "a blue cross"]
SETTINGS = TDMR1Settings(rank=4, alpha=8, surrogate="head", surrogate_lr=5e-3, group_size=6, rl_cfg=1.0, head_members=2)
HEAD = {"surrogate": "head", "head_groups": 5, "head_passes": 1, "student_lr": 5e-5}


def make(model_dir, settings=SETTINGS):
    return TDMR1Head(load_backend(model_dir), settings, bf16=False)


def redder(method, count, seed):
    """Groups whose liked images are those with more of the first latent channel."""
    generator = torch.Generator().manual_seed(seed)
    prompts = tuple(PROMPTS[i % 4] for i in range(count))
    images = torch.randn((count, 6, *method.backend.latent_shape), generator=generator)
    taste = torch.randn((count, 6), generator=generator)
    images[:, :, 0] += taste[:, :, None, None]
    liked = (taste > taste.median(1, keepdim=True).values).float()
    points = images[:, :, None].expand(-1, -1, 5, -1, -1, -1)
    conditioning = method.backend.encode(list(prompts))
    sampled = torch.arange(count)
    return Groups(points, conditioning, liked * 2 - 1, sampled=sampled, rewards=liked, prompts=prompts)


@pytest.fixture
def taught(model_dir):
    method = make(model_dir)
    method.use_labels(None, None, sampled=True)
    method.first = method.begin(lambda count: iter([redder(method, 40, 0)]))
    return method


def test_it_is_fitted_first_and_its_loss_falls_in_updates(taught):
    assert taught.first["head_groups"] == 40 and taught.first["head_ranks"] > 0.6
    generator = torch.Generator().manual_seed(0)
    before = {role: taught.roles.state_dict(role) for role in taught.roles.names}
    seen = [taught.learn(redder(taught, 4, 10 + i), generator) for i in range(12)]
    assert sum(s["surrogate"] for s in seen[-4:]) < sum(s["surrogate"] for s in seen[:4])
    assert sum(s["fresh_pairs"] for s in seen[-4:]) / 4 > 0.75 and seen[-1]["margin"] > 0
    changed = {r for r, was in before.items() if not same(was, taught.roles.state_dict(r))}
    assert changed == {SURROGATE} and len(taught.replay) == 40 + 12 * 4


def test_its_gradient_is_the_reward_of_the_student(taught):
    x, cond = torch.randn((6, *taught.backend.latent_shape), generator=torch.Generator().manual_seed(1)), "a star"
    conditioning, s_n = taught.backend.encode([cond]).repeat(6), torch.full((6,), 0.3)

    def shift(**changes):
        taught.settings = dataclasses.replace(taught.settings, **changes)
        generator = torch.Generator().manual_seed(2)
        pair = taught.reward_targets(x, s_n, conditioning, generator, Part.whole(6), slice(None))
        return pair["surrogate_cfg"] - pair["reference"]

    redder = shift()
    assert redder[:, 0].mean() > 0 and redder[:, 0].mean() > redder[:, 1:].mean().abs()
    assert torch.allclose(shift(head_strength=2.0), 2 * redder, atol=1e-5)
    assert shift(head_norm="posterior")[:, 0].mean() > 0
    some = taught.reward_targets(
        x, s_n, conditioning, torch.Generator().manual_seed(2), Part.whole(6), torch.tensor([1, 4])
    )
    assert not some["reference"][[0, 2, 3, 5]].any() and some["reference"][[1, 4]].any()


def test_the_student_follows_and_the_head_stays(taught):
    before = {role: taught.roles.state_dict(role) for role in taught.roles.names}
    head = {k: v.clone() for k, v in taught.head.state_dict().items()}
    points = taught.sample(taught.backend.encode(PROMPTS), torch.randn((4, *taught.backend.latent_shape)))
    found = taught.student_update(
        points, taught.backend.encode(PROMPTS), torch.tensor([0, 1, 0, 3]), torch.Generator().manual_seed(0)
    )
    assert found["student_reward"] > 0
    changed = {r for r, was in before.items() if not same(was, taught.roles.state_dict(r))}
    assert changed == {STUDENT, STUDENT_EMA, FAKE} and same(head, taught.head.state_dict())


@pytest.mark.parametrize("source", ["oracle", "labels", "both"])
def test_a_round_resumes_exactly(make_spec, reddish, groups_file, source):
    labels = {"groups_file": str(groups_file)} if source != "oracle" else {}
    labels |= {"reward_oracle": None} if source == "labels" else {}
    seen = []
    straight = run_round(make_spec("straight", settings=HEAD, **labels), on_progress=seen.append, trackers="none")
    broken = make_spec("broken", settings=HEAD, **labels)
    with pytest.raises(RoundCancelled):
        run_round(broken, should_stop=stop_after(2), trackers="none")
    assert same(weights(run_round(broken, trackers="none")), weights(straight))
    first = next(progress.metrics for progress in seen if progress.step == 1)
    assert first["head_groups"] == (3 if labels else pytest.approx(5, abs=1)) and "opinion" in seen[-1].metrics
    assert ("pairs" if source == "labels" else "fresh_pairs") in first


def test_labels_beside_an_oracle_are_for_a_head_alone(make_spec, groups_file):
    with pytest.raises(ValueError, match="give one of the two, labels or an oracle; both only with surrogate head"):
        make_spec(groups_file=str(groups_file))
    made = prepare(make_spec(settings=HEAD, groups_file=str(groups_file)), oracles=lambda name: object())
    assert len(made.method.stored) == 3 and len(made.method.replay) == 0


def test_what_it_cannot_do_is_said(model_dir):
    with pytest.raises(ValueError, match="head_norm: without guidance there is no such length; use posterior"):
        make(model_dir, dataclasses.replace(SETTINGS, guidance=1.0))


def test_the_oldest_groups_give_way(monkeypatch):
    monkeypatch.setattr("trainer.replay.MOST_GROUPS", 3)
    replay = Replay(2, (1, 1, 1))
    values = torch.arange(4.0)
    replay.add(values[:, None, None, None, None].expand(4, 2, 1, 1, 1), torch.full((4, 2), torch.nan), "abcd")
    assert replay.prompts == ["d", "b", "c"] and replay[torch.tensor([0, 2])].flatten().tolist() == [3, 3, 2, 2]
    other = Replay(2, (1, 1, 1))
    other.load_state_dict(replay.state_dict())
    assert other.added == 4 and torch.equal(other.latents, replay.latents) and other._rewards.isnan().all()
