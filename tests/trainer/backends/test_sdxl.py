"""SDXL's change of variables, against a DDPM's own formulas."""

import pytest
import torch

from tests.trainer.backends.tiny import sdxl
from trainer.backends import load_backend
from trainer.flow import rollout, sample_tau


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    torch.manual_seed(0)
    return load_backend(sdxl(tmp_path_factory.mktemp("sdxl")))


class Knowing(torch.nn.Module):
    """A UNet that knows the noise, and checks that it is asked at the DDPM's own point and time."""

    def __init__(self, config, points, time, eps):
        super().__init__()
        self.config = config  # says its sizes
        self.points, self.time, self.eps = points, time, eps

    def forward(self, x, time, **_):
        assert torch.allclose(x, self.points, atol=1e-4)
        assert torch.allclose(time, self.time.float(), atol=1e-2)
        return (self.eps,)


@pytest.mark.parametrize("time", [1, 249, 500, 998])
def test_points_times_and_velocity_are_the_ddpms(backend, monkeypatch, time):
    x0, eps = torch.randn(2, 3, *backend.latent_shape, generator=torch.Generator().manual_seed(0))
    scheduler = backend.pipeline.scheduler
    abar = scheduler.alphas_cumprod[time]
    sigma = ((1 - abar) / abar).sqrt()
    level = (sigma / (1 + sigma)).expand(3)
    x_t = (1 - level[0]) * x0 + level[0] * eps
    times = torch.full((3,), time)
    vp = abar.sqrt() * x0 + (1 - abar).sqrt() * eps
    monkeypatch.setattr(backend.inner, "transformer", Knowing(backend.transformer.config, vp, times, eps))
    velocity = backend.velocity(x_t, level, backend.encode(["a", "b", "c"]))
    assert torch.allclose(velocity, eps - x0, atol=1e-3)


def test_the_grid_starts_at_the_noisiest_level_it_knows(backend):
    grid = backend.grid(4)
    assert grid[0].item() == pytest.approx(14.6146 / 15.6146, abs=1e-4)
    assert grid[-1] == 0
    noise = torch.randn(2, *backend.latent_shape)
    points = rollout(lambda x, t: torch.zeros_like(x), noise, grid)
    assert torch.equal(points[:, 0], grid[0].item() * noise)


def test_training_draws_no_level_above_it():
    u, s = torch.linspace(0, 0.999, 50), torch.full((50,), 0.9)
    levels = sample_tau(s, 1.0, gap=0.02, u=u, high=0.936)
    assert levels.max().item() == pytest.approx(0.936)
    assert levels.min() >= 0.92
    # Where there is no room above the point, the top is taken.
    assert torch.allclose(sample_tau(s, 1.0, gap=0.5, u=u, high=0.936), torch.tensor(0.936))


def test_the_empty_prompt_is_zero_as_in_the_stock_pipeline(backend):
    empty = backend.encode([""])
    assert not empty.embeds.any() and not empty.pooled.any()
    assert backend.encode(["a"]).embeds.any()
