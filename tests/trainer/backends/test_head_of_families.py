"""A head reads the image of every family whose blocks it can read, and refuses the others."""

import pytest
import torch

from trainer.backends.pipeline import PipelineBackend
from trainer.reward_head import RewardHead
from trainer.roles import STUDENT, SURROGATE, Roles
from trainer.sampler import initial_noise

PROMPTS = ["a red star", "two blue hearts beside a green cross, and the word CAT"]


@pytest.fixture
def head(backend):
    if type(backend.inner).blocks is PipelineBackend.blocks:
        with pytest.raises(ValueError, match="does not say which of its blocks a reward head can read"):
            backend.blocks()
        pytest.skip("refused")
    roles = Roles(backend.transformer, backend.lora_targets, rank=4, alpha=8, roles=(STUDENT, SURROGATE))
    torch.manual_seed(0)
    return RewardHead(backend, roles, SURROGATE)


def test_every_block_gives_the_images_tokens(head, backend):
    x, t = initial_noise([1, 2], backend.latent_shape), torch.tensor([0.9, 0.4])
    seen, hooks = [], []
    for block in backend.blocks():
        hooks.append(
            block.register_forward_hook(lambda module, given, output: seen.append(backend.image_tokens(output)))
        )
    with torch.no_grad():
        backend.velocity(x, t, backend.encode(PROMPTS))
    for hook in hooks:
        hook.remove()
    patches = {backend.latent_shape[1] * backend.latent_shape[2] // patch for patch in (1, 4)}
    assert len(seen) == len(backend.blocks())
    assert len({tokens.shape for tokens in seen}) == 1 and seen[0].shape[1] in patches


def test_an_images_score_does_not_depend_on_those_beside_it(head, backend):
    x, t = initial_noise([1, 2], backend.latent_shape), torch.tensor([0.5, 0.5])
    with torch.no_grad():
        together = head(x, t, backend.encode(PROMPTS))
        alone = torch.cat([head(x[i : i + 1], t[:1], backend.encode([PROMPTS[i]])) for i in range(2)])
    assert torch.allclose(together, alone, atol=1e-4) and (together[0] - together[1]).abs() > 1e-4


def test_its_gradient_leads_to_what_it_likes(head, backend):
    x, t, prompts = initial_noise([1, 2], backend.latent_shape), torch.tensor([0.5, 0.2]), backend.encode(PROMPTS)
    gradient = head.gradient(x, t, prompts)
    assert gradient.shape == x.shape and gradient.isfinite().all() and (gradient.flatten(1).norm(dim=1) > 0).all()
    with torch.no_grad():
        before, after = head(x, t, prompts), head(x + 0.01 * gradient / gradient.std(), t, prompts)
    assert (after > before).all()
