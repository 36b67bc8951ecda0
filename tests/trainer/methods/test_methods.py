"""Every method is a setting of a round: it learns from labels or an oracle, resumes exactly, and says what it cannot do."""

import pytest
import torch

from common.settings import TDMR1Settings
from tests.trainer.rounds_helpers import same, stop_after, weights
from trainer.methods import method_class
from trainer.roles import STUDENT
from trainer.rounds import RoundCancelled, prepare, run_round

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
    assert "second_contrast" in seen[-1].metrics and "opinion" not in seen[-1].metrics  # there is no surrogate to ask


@pytest.mark.parametrize("name", METHODS)
def test_few_images_at_once_make_the_same_update(make_spec, reddish, name):
    states = []
    for memory in ({}, {"micro_batch": 5}):
        settings = {"method": name, "validation_images": 0, "alarm": False}
        made = prepare(make_spec(f"{name} {memory}", settings=settings, memory=memory))
        made.method.bf16 = False
        made.step(0)
        states.append(made.method.roles.state_dict(STUDENT))
    whole, parts = states
    assert all(torch.allclose(whole[k], parts[k], atol=2e-5) for k in whole)


def test_what_a_method_cannot_do_is_said(make_spec, reddish, groups_file):
    with pytest.raises(ValueError, match="method: flow_grpo learns only from images that it samples itself"):
        make_spec(settings={"method": "flow_grpo"}, reward_oracle=None, groups_file=str(groups_file))
    with pytest.raises(ValueError, match="surrogate_first: dgpo trains no surrogate; set it to 0"):
        prepare(make_spec(settings={"method": "dgpo", "surrogate_first": 0.5}))
