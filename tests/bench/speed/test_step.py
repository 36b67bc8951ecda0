"""The bench's naive order of evaluations is the same step: equal losses from equal random numbers."""

import pytest

from bench.harness import EVERY_STEP
from bench.speed.step import LOSSES, Naive, Ours
from trainer.rounds import prepare

ORACLE = {"prompts_per_update": 3, "group_size": 4, "student_batch": 6, "validation_images": 0}
CHANGES = {
    "ours": ORACLE,
    "every step": ORACLE | EVERY_STEP,
    "the paper's guidance and reference": ORACLE | {"reward_guidance": "surrogate", "reference": "ema"},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_both_orders_have_equal_losses(make_spec, reddish, changes):
    ours, naive = Ours(prepare(make_spec(settings=changes)), bf16=False), Naive(prepare(make_spec(settings=changes)))
    for step in range(2):  # the second from weights that both have trained
        a, b = ours.step(step), naive.step(step)
        assert {name: b[name] for name in LOSSES} == pytest.approx({name: a[name] for name in LOSSES}, abs=1e-4)
    assert (naive.passes.evaluations, ours.passes.evaluations) == (2 * (4 + 13), 2 * (4 + 9))
