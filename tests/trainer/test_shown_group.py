"""Groups of which more images are made than are shown: the ones that are shown are those of their seeds."""

import pytest
import torch

from common.settings import TDMR1Settings
from trainer.backends import load_backend
from trainer.methods.tdm_r1 import TDMR1
from trainer.roles import STUDENT
from trainer.sampler import Sampler
from trainer.shown_group import sample_shown
from trainer.surrogate_file import SURROGATE_NAME, save_surrogate


@pytest.fixture
def version(model_dir, tmp_path):
    """The folder of a version with its surrogate."""
    method = TDMR1(load_backend(model_dir), TDMR1Settings(rank=4, alpha=8))
    with torch.no_grad():
        for weights in method.roles.parameters("surrogate"):
            weights.add_(0.05 * torch.randn_like(weights))
    method.backend.save_lora(tmp_path, method.roles.state_dict(STUDENT), rank=4, alpha=8)
    save_surrogate(method, tmp_path)
    return tmp_path


def test_what_is_shown_is_what_the_version_makes_of_its_seeds(model_dir, version, caplog):
    sampler = Sampler(model_dir)
    sampler.use_version(version)
    made, inclusion = sample_shown(sampler, "a star", range(10, 16), 3, version)
    assert len(made.images) == len(made.trajectory) == len(inclusion) == 3
    assert set(made.seeds) < set(range(10, 16)) and all(0 < p <= 1 for p in inclusion)
    alone = sampler.sample_group("a star", made.seeds)  # the version is in use again
    assert torch.allclose(alone.trajectory, made.trajectory, atol=1e-3)
    again, chances = sample_shown(sampler, "a star", range(10, 16), 3, version)
    assert again.seeds == made.seeds and chances == pytest.approx(inclusion, rel=1e-3)
    (version / SURROGATE_NAME).write_bytes(b"nothing")
    by_latents, others = sample_shown(sampler, "a star", range(10, 16), 3, version)
    assert "chosen without it" in caplog.text and len(by_latents.images) == 3
    (version / SURROGATE_NAME).unlink()
    assert sample_shown(sampler, "a star", range(10, 16), 3, version)[1] == pytest.approx(others, rel=1e-3)
    assert others != pytest.approx(inclusion, rel=1e-3)
