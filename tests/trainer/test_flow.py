"""The maths of flow.py where it can be wrong."""

import pytest
import torch

from trainer.flow import (
    conditional_velocity,
    like,
    renoise,
    renoise_coefficients,
    rollout,
    rollout_dpm,
    sample_tau,
    shift_time,
    step_grid,
    unshift_time,
    x0_from_velocity,
)


def test_shift_and_back():
    u = torch.linspace(0, 1, 11)
    assert torch.allclose(unshift_time(shift_time(u, 3.0), 3.0), u, atol=1e-6)


def test_the_grid_of_sd3():
    assert step_grid(4, 3.0).tolist() == pytest.approx([1, 0.9, 0.75, 0.5, 0])


def test_renoising_reaches_the_marginal_of_the_path():
    # x_s = (1-s)·x0 + s·e re-noised to tau must be distributed as (1-tau)·x0 + tau·e'.
    generator = torch.Generator().manual_seed(0)
    n, s, tau = 200_000, torch.tensor([0.5]), torch.tensor([0.8])
    noise, eps = torch.randn(2, n, 1, 1, 1, generator=generator)
    x_s = 0.5 * 2.0 + 0.5 * noise
    x_tau = renoise(x_s, s, tau, eps)
    assert x_tau.mean().item() == pytest.approx(0.2 * 2.0, abs=0.01)
    assert x_tau.std().item() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(("s", "tau"), [(0.0, 0.4), (0.3, 0.7), (0.5, 0.99), (0.9, 0.95)])
def test_the_conditional_velocity_has_the_score_of_the_gaussian(s, tau):
    torch.manual_seed(1)
    x_s, eps = torch.randn(2, 1, 2, 3, 3, dtype=torch.float64)
    s, tau = torch.tensor([s], dtype=torch.float64), torch.tensor([tau], dtype=torch.float64)
    a, b = renoise_coefficients(s, tau)
    x_tau = renoise(x_s, s, tau, eps).requires_grad_()
    log_density = -((x_tau - a * x_s) ** 2).sum() / (2 * b**2)
    (score,) = torch.autograd.grad(log_density.sum(), x_tau)
    predicted_noise = -tau * score  # on a linear path
    predicted_x0 = (x_tau - tau * predicted_noise) / (1 - tau)
    expected = (predicted_noise - predicted_x0).detach()
    assert torch.allclose(conditional_velocity(x_s, s, tau, eps), expected, atol=1e-9)


def test_at_the_image_the_conditional_velocity_is_the_flows():
    x0, eps = torch.randn(2, 5, 1, 2, 2)
    zero, tau = torch.zeros(5), torch.rand(5)
    assert torch.allclose(conditional_velocity(x0, zero, tau, eps), eps - x0, atol=1e-5)


def test_tau_lies_above_the_point_and_the_floor():
    s = torch.tensor([0.0, 0.5, 0.9]).repeat(2000)
    tau = sample_tau(s, 3.0, gap=0.02, low=0.6, u=torch.rand(s.shape, generator=torch.Generator().manual_seed(0)))
    assert (tau > s).all() and (tau >= 0.6 - 1e-6).all() and (tau <= 1).all()
    assert tau[s == 0].min() < 0.62


def test_a_straight_flow_is_followed_exactly():
    x0, noise = torch.randn(2, 3, 1, 2, 2)
    points = rollout(lambda x, t: noise - x0, noise, step_grid(4, 3.0))
    assert points.shape == (3, 5, 1, 2, 2)
    assert torch.allclose(points[:, -1], x0, atol=1e-6)
    t = torch.full((3,), 0.75)
    assert torch.allclose(x0_from_velocity(points[:, 2], t, noise - x0), x0, atol=1e-5)


@pytest.mark.parametrize("steps", [2, 4, 9])
def test_dpm_solver_is_diffusers_own(steps):
    from diffusers import DPMSolverMultistepScheduler

    grid = step_grid(steps, 3.0)
    grid[0] = 0.999  # at 1 diffusers' own is not finite
    noise = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))

    def velocity(x, t):
        return torch.sin(3 * x) * like(1 + t, x) - 0.2 * x

    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, algorithm_type="dpmsolver++", solver_order=2
    )
    scheduler.set_timesteps(steps)
    scheduler.sigmas = grid.clone()
    scheduler.timesteps = grid[:-1] * 1000
    x, points = grid[0] * noise, []
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(velocity(x, grid[i].expand(2)), t, x, return_dict=False)[0]
        points.append(x)
    made = rollout_dpm(velocity, noise, grid)
    assert torch.allclose(made[:, 1:], torch.stack(points, 1), atol=2e-5)


def test_dpm_solver_starts_from_pure_noise_with_two_euler_steps():
    noise, grid = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0)), step_grid(4, 3.0)

    def velocity(x, t):
        return torch.sin(3 * x)

    plain, made = rollout(velocity, noise, grid), rollout_dpm(velocity, noise, grid)
    assert made.isfinite().all()
    assert torch.allclose(plain[:, :3], made[:, :3], atol=1e-5) and not torch.allclose(plain[:, 3], made[:, 3])
