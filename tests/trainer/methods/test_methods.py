"""Every method is a setting of a round: it learns from labels or an oracle, resumes exactly, and says what it cannot do."""

import pytest
import torch

from common.settings import TDMR1Settings
from tests.trainer.rounds_helpers import same, stop_after, weights
from trainer.backends.lora import modules_of
from trainer.methods import method_class
from trainer.methods.negative_aware import implicit_policies, negative_aware_loss, optimality
from trainer.roles import STUDENT
from trainer.rounds import RoundCancelled, prepare, run_round
from trainer.shares import Part

METHODS = TDMR1Settings.__dataclass_fields__["method"].metadata["choices"]
PEERS = [name for name in METHODS if name != "tdm_r1"]


def test_every_choice_is_a_method():
    assert [method_class(TDMR1Settings(method=name)).name for name in METHODS] == list(METHODS)
    assert method_class(TDMR1Settings(surrogate="head")).explicit
    assert not method_class(TDMR1Settings(surrogate="head", method="dgpo")).explicit


@pytest.mark.parametrize("name", PEERS)
def test_a_round_by_another_method_resumes_exactly(make_spec, reddish, groups_file, name):
    labels = {} if name == "flow_grpo" else {"reward_oracle": None, "groups_file": str(groups_file)}
    settings = {"method": name, "updates": 3, "validation_images": 4, "student_lr": 5e-5}
    seen = []
    straight = run_round(make_spec("straight", settings=settings, **labels), on_progress=seen.append, trackers="none")
    broken = make_spec("broken", settings=settings, **labels)
    with pytest.raises(RoundCancelled):
        run_round(broken, should_stop=stop_after(2), trackers="none")
    assert same(weights(run_round(broken, trackers="none")), weights(straight))
    assert "second_contrast" in seen[-1].metrics
    assert ("opinion" in seen[-1].metrics) == (name == "task_vector")  # the others have no surrogate to ask


@pytest.mark.parametrize("name", METHODS)
def test_few_images_at_once_make_the_same_update(make_spec, reddish, name):
    states = []
    for memory in ({}, {"micro_batch": 5}):
        settings = {"method": name, "validation_images": 0, "alarm": False}
        made = prepare(make_spec(f"{name} {memory}", settings=settings, memory=memory))
        made.method.bf16 = False
        made.step(0)
        states.append(made.method.roles.state_dict(STUDENT))
    whole, parts = (_changes(state) for state in states)
    assert max(change.norm() for change in whole.values()) > 0
    assert all((whole[layer] - parts[layer]).norm() <= 1e-3 * whole[layer].norm() for layer in whole)


def _changes(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What an adapter adds to each layer's weight. Its two factors are not compared: the task vector finds them by singular
    values, and rounding turns those that are nearly alike."""
    return {
        name: state[f"{name}.lora_B.weight"].flatten(1) @ state[f"{name}.lora_A.weight"].flatten(1)
        for name in modules_of(state)
    }


def test_what_a_method_cannot_do_is_said(make_spec, reddish, groups_file):
    with pytest.raises(ValueError, match="method: flow_grpo learns only from images that it samples itself"):
        make_spec(settings={"method": "flow_grpo"}, reward_oracle=None, groups_file=str(groups_file))
    with pytest.raises(ValueError, match="surrogate_first: dgpo trains no surrogate; set it to 0"):
        prepare(make_spec(settings={"method": "dgpo", "surrogate_first": 0.5}))


def test_liked_and_disliked_images_weigh_alike_in_every_group():
    seven_liked, even = [0.3] * 7 + [-2.1], [0.8, 0.8, -0.8, -0.8, 0.8, -0.8, 0.8, -0.8]
    good = optimality(torch.tensor([seven_liked, even, [0.0] * 8]))
    assert good.mean(1).tolist() == pytest.approx([0.5] * 3)
    assert good[0, -1] == 0 and good[0, 0] == pytest.approx(0.5 + 0.5 / 7)  # scaled down as a whole
    assert good[1, 0] == pytest.approx(0.9) and good[1, 2] == pytest.approx(0.1)  # less than 1: as it is
    assert good[2].tolist() == [0.5] * 8


def test_negative_aware_by_hand():
    """One pixel at level 1/2: x0 = 0 and eps = 2, so x = 1, v = 2 - 0 = 2 is right; the old policy says 1."""
    x0, x, tau = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1), torch.tensor([0.5])
    v, old = torch.full_like(x, 3.0, requires_grad=True), torch.ones_like(x)
    ahead, behind = implicit_policies(v, old, 0.5)
    assert (ahead.item(), behind.item()) == (2, 0)

    def loss(good):
        return negative_aware_loss(x0, x, tau, v, old, torch.tensor([good]), beta=0.5)

    assert loss(1.0).item() == 0  # right ahead: nothing to do
    assert loss(0.0).item() == pytest.approx(1)  # behind is x0 = 1: an error of 1 by its own size
    # What lies behind should come to match a disliked image, so the student goes the other way.
    slope = torch.autograd.grad(loss(0.0), v)[0]
    assert slope.item() == pytest.approx(2 * 1 * 0.25)  # error 1, d x0_behind / dv = tau·beta
    equal = negative_aware_loss(x0, x, tau, old.clone().requires_grad_(), old, torch.tensor([0.5]), beta=0.5)
    assert equal.item() == pytest.approx(0.5)


def test_negative_aware_goes_to_liked_images(make_spec, reddish):
    settings = {
        "method": "negative_aware",
        "validation_images": 0,
        "alarm": False,
        "student_lr": 1e-3,
        "initial_kl": 0.0,
    }
    made = prepare(make_spec(settings=settings))
    made.method.bf16 = False
    generator = torch.Generator().manual_seed(0)
    shape, conditioning = made.method.backend.latent_shape, made.method.backend.encode(["a star"]).repeat(16)
    x0 = torch.randn((16, *shape), generator=generator)
    x0[:8, 0] += 2
    good = torch.tensor([1.0] * 8 + [0.0] * 8)
    noise = torch.randn((8, *shape), generator=generator)

    def first_channel():
        return made.method.sample(conditioning.take(slice(0, 8)), noise, role=STUDENT)[:, -1, 0].mean().item()

    before = first_channel()
    for _ in range(12):
        made.method.contrast_step(x0, conditioning, good, generator, Part.whole(16))
    assert first_channel() > before + 0.02
