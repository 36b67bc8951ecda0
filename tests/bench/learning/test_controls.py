"""Controls of an oracle's round: the same scores, dealt out anew within each group."""

import pytest
import torch

from bench.learning.controls import deal_out, prepare_control
from tests.trainer.rounds_helpers import LINES, SMALL
from trainer.controls import own_errors
from trainer.roles import TEACHER
from trainer.rounds import prepare


@pytest.mark.parametrize("kind", ["shuffled", "own_error"])
def test_scores_are_dealt_out_within_their_groups(make_spec, reddish, kind):
    spec = make_spec(settings=SMALL | {"validation_images": 0})
    true, made = prepare(spec), prepare_control(spec, kind)
    size, prompts = SMALL["group_size"], [LINES[i]["prompt"] for i in (0, 1) for _ in range(4)]
    latents = torch.randn((8, *made.method.backend.latent_shape), generator=torch.Generator().manual_seed(0))
    arguments = latents, prompts, [{}] * 8
    scores = torch.tensor(list(true.source.score(*arguments))).reshape(-1, size)
    dealt = torch.tensor(made.source.score(*arguments)).reshape(-1, size)
    assert torch.equal(scores.sort(1).values, dealt.sort(1).values) and scores.std(1).min() > 0
    assert dealt.flatten().tolist() == made.source.score(*arguments)  # as a resumed round would
    if kind == "own_error":
        made.method.roles.use(TEACHER)
        errors = own_errors(made.method.backend, latents.unflatten(0, (-1, size)), prompts[::size])
        best = errors.argmin(1, keepdim=True)
        assert torch.equal(dealt.gather(1, best), scores.amax(1, keepdim=True))
    else:
        made.state.step = 1
        assert dealt.flatten().tolist() != made.source.score(*arguments)


def test_another_kind_is_refused(make_spec, reddish):
    with pytest.raises(ValueError, match="kind: 'best' is not one of shuffled, own_error"):
        deal_out(prepare(make_spec()), "best")
