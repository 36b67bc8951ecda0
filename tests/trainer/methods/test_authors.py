"""With the settings of the authors' public code, an update's losses and gradients are theirs.

The formulas below are written down from scripts/train_tdmr1_pub.py of github.com/Luo-Yihong/TDM-R1, over plain velocities:
which points an update looks at is drawn by the update itself, and every pass is noted on the way.
"""

import pytest
import torch

from common.settings import TDMR1Settings
from trainer.backends import load_backend
from trainer.flow import renoise_coefficients
from trainer.methods.base import Groups, Rollouts
from trainer.methods.tdm_r1 import TDMR1
from trainer.roles import FAKE, STUDENT, SURROGATE, SURROGATE_EMA, TEACHER
from trainer.shares import Part

SIZE = 3
SMALL = {"rank": 4, "alpha": 8, "prompts_per_update": 2, "group_size": SIZE, "student_batch": 2 * SIZE}
PROMPTS = ["a star", "a red heart"]


def of(values, x):
    return values.reshape(-1, *(1,) * (x.ndim - 1))


class Noted(TDMR1):
    """Notes every pass, the points of each re-noising, and each step's loss and gradient, and changes no weight."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.passes, self.steps_made, self.drawn = [], {}, []

    def velocity(self, role, x, t, conditioning):
        v = super().velocity(role, x, t, conditioning)
        self.passes.append((role, x, t, v))
        return v

    def fixed_velocity(self, role, x, t, conditioning):
        v = super().fixed_velocity(role, x, t, conditioning)
        self.passes.append((role, x, t, v))
        return v

    def noise(self, part, shape, generator):
        self.drawn.append(super().noise(part, shape, generator))
        return self.drawn[-1]

    def step(self, role, losses, part):
        parameters, total = self.roles.parameters(role), 0.0
        ((loss, _),) = losses
        self.steps_made[role] = (loss.detach(), torch.autograd.grad(loss, parameters, retain_graph=True))
        return total + loss.item()

    def made(self, role):
        """The passes of a role, in order: (x, t, v)."""
        return [found[1:] for found in self.passes if found[0] == role]


@pytest.fixture(params=["geneval", "preference"])
def method(request, model_dir):
    torch.manual_seed(0)
    settings = TDMR1Settings.from_json({**TDMR1Settings.paper(request.param).to_json(), **SMALL})
    made = Noted(load_backend(model_dir), settings, bf16=False)
    for role in (STUDENT, FAKE, SURROGATE, SURROGATE_EMA):
        for name, p in zip(made.roles.state_dict(role), made.roles.parameters(role), strict=True):
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.05)
    return made


def sampled(method):
    noise = torch.randn(2 * SIZE, *method.backend.latent_shape, generator=torch.Generator().manual_seed(1))
    prompts = [prompt for prompt in PROMPTS for _ in range(SIZE)]
    return method.sample(method.backend.encode(prompts), noise), prompts


def same(made, loss, gradient):
    assert made[0].item() == pytest.approx(loss.item(), rel=1e-5, abs=1e-5)
    for a, b in zip(made[1], gradient, strict=True):
        assert torch.allclose(a, b, atol=1e-5, rtol=1e-4)


def test_the_surrogates_update(method):
    s = method.settings
    trajectory, _ = sampled(method)
    advantages = torch.tensor([[1.2, -0.4, -0.8], [0.7, 0.7, -1.4]])
    groups = Groups(trajectory.unflatten(0, (2, SIZE)), method.backend.encode(PROMPTS), advantages)
    method.passes.clear(), method.drawn.clear()
    method.learn(groups, torch.Generator().manual_seed(2))

    ((x_tau, tau, v),) = method.made(SURROGATE)
    ((_, _, old),), ((_, _, frozen),) = method.made(SURROGATE_EMA), method.made(TEACHER)
    # Two points of each group, from the same draws.
    generator = torch.Generator().manual_seed(2)
    j = torch.multinomial(torch.arange(1.0, 5), 4, replacement=True, generator=generator)
    held, a = trajectory.unflatten(0, (2, SIZE)).repeat_interleave(2, 0), advantages.repeat_interleave(2, 0).flatten()
    x_next = held[torch.arange(4), :, j + 1].flatten(0, 1)
    s_next = method.grid[j + 1].repeat_interleave(SIZE)
    eps = method.drawn[0].expand(4, SIZE, *x_next.shape[1:]).flatten(0, 1)
    alpha = (1 - tau) / (1 - s_next)
    beta = (tau**2 - (s_next * alpha) ** 2).sqrt()
    assert torch.allclose(x_tau, of(alpha, x_next) * x_next + of(beta, eps) * eps, atol=1e-6)
    assert (tau >= s.surrogate_t_min - 1e-6).all()
    later = tau + s_next**2 * alpha / (1 - s_next)
    target = -x_next / of(1 - s_next, x_next) + eps / of(beta, eps) * of(later, eps)

    def errors(velocity):
        return (target - velocity).square().flatten(1).mean(1)

    d, d_old, d_frozen = errors(v), errors(old), errors(frozen)
    ratio, ratio_frozen = (d_old - d).exp(), (d_frozen - d).exp()
    distance = (v - frozen).square().flatten(1).mean(1)
    stop = torch.where(a > 0, ratio > 1 + s.clip, ratio < 1 - s.clip)
    by_frozen = (distance.mean() > 0.05) & torch.where(a > 0, ratio_frozen > 1, ratio_frozen < 1)
    d_kept = torch.where(stop | by_frozen, d.detach(), d)
    in_group = (a * s.beta_dpo * (d - d_frozen).detach() / SIZE).unflatten(0, (4, SIZE)).sum(1)
    weight = in_group.sigmoid().repeat_interleave(SIZE)
    step_weight = (j + 1).repeat_interleave(SIZE) / 4
    loss = (step_weight * (weight * a * d_kept + 1e-3 * distance)).mean()
    gradient = torch.autograd.grad(loss, method.roles.parameters(SURROGATE), retain_graph=True)
    # An image whose gradient is stopped still shows in their loss's value; ours leaves it out.
    shown = (step_weight * weight * a * d.detach() * (stop | by_frozen)).mean()
    same(method.steps_made[SURROGATE], loss - shown, gradient)
    assert stop.any() and not stop.all()


def test_fakes_and_students_update(method):
    s = method.settings
    trajectory, prompts = sampled(method)
    method.passes.clear(), method.drawn.clear()
    method.follow(Rollouts(trajectory, prompts, Part.whole(len(prompts))), torch.Generator().manual_seed(3))

    j = method.draw_orders(len(prompts), torch.Generator().manual_seed(3))[:, :2].flatten()
    rows = torch.arange(len(prompts)).repeat_interleave(2)
    x, t, t_next = trajectory[rows, j], method.grid[j], method.grid[j + 1]
    ((_, _, v),) = method.made(STUDENT)
    x0 = x - of(t, x) * v
    x_next = (x - of(t - t_next, x) * v).detach()
    (x_tau, tau, v_fake), (_, _, v_fake_fixed) = method.made(FAKE)
    a, b = renoise_coefficients(t_next, tau)
    assert torch.allclose(x_tau, of(a, x) * x_next + of(b, x) * method.drawn[0], atol=1e-5)
    (_, _, frozen), (x_reward, tau_reward, v_reference) = method.made(TEACHER)
    cond, uncond = frozen.chunk(2)

    target = ((x_tau - x0) / of(tau, x)).detach()
    loss = (target - v_fake).square().mean() + 0.02 * (cond - v_fake).square().mean()
    same(
        method.steps_made[FAKE],
        loss,
        torch.autograd.grad(loss, method.roles.parameters(FAKE), retain_graph=True),
    )

    def clean(x_t, level, velocity):
        return x_t - of(level, x_t) * velocity

    now = x0.detach()
    real, bare, fake = (clean(x_tau, tau, u) for u in (cond, uncond, v_fake_fixed))
    scale = (now - (bare + 4.5 * (real - bare))).abs().mean((1, 2, 3))

    def term(direction, normaliser):
        return (now + direction - x0).square().mean((1, 2, 3)) / normaliser

    guidance, kl = term(3.5 * (real - bare), scale), term(real - fake, scale)
    rewarded = j < s.trunc_steps
    assert rewarded.any()
    ((_, _, both),) = method.made(SURROGATE)
    with_text, without = both.chunk(2)
    liked = clean(x_reward, tau_reward, without + s.rl_cfg * (with_text - without))
    reference = clean(x_reward, tau_reward, v_reference)
    there = now[rewarded]
    reward = torch.zeros(len(j))
    reward[rewarded] = (there + liked - reference - x0[rewarded]).square().mean((1, 2, 3)) / (there - liked).abs().mean(
        (1, 2, 3)
    )
    loss = torch.where(rewarded, 0.3 * guidance + 0.7 * reward + kl, 0.3 * (guidance + kl)).mean()
    same(
        method.steps_made[STUDENT],
        loss,
        torch.autograd.grad(loss, method.roles.parameters(STUDENT), retain_graph=True),
    )


def test_each_of_the_authors_settings_changes_an_update(model_dir):
    """None is without effect."""
    authors = TDMR1Settings.from_json({**TDMR1Settings.paper("preference").to_json(), **SMALL})
    ours = {
        "steps_together": False,
        "solver": "euler",
        "lora_init": "uniform",
        "step_weight": "advantages",
        "late_steps": "full",
        "surrogate_t_min": 0.25,
    }

    def losses(settings):
        torch.manual_seed(0)
        method = Noted(load_backend(model_dir), settings, bf16=False)
        for role in (STUDENT, FAKE, SURROGATE):
            for p in method.roles.parameters(role)[1::2]:
                torch.nn.init.normal_(p, std=0.05, generator=torch.Generator().manual_seed(4))
        trajectory, prompts = sampled(method)
        advantages = torch.tensor([[1.2, -0.4, -0.8], [0.7, 0.7, -1.4]])
        groups = Groups(trajectory.unflatten(0, (2, SIZE)), method.backend.encode(PROMPTS), advantages)
        method.learn(groups, torch.Generator().manual_seed(2))
        method.follow(Rollouts(trajectory, prompts, Part.whole(len(prompts))), torch.Generator().manual_seed(3))
        return [method.steps_made[role][0].item() for role in (SURROGATE, STUDENT)]

    theirs = losses(authors)
    assert losses(authors) == theirs
    for name, value in ours.items():
        assert losses(TDMR1Settings.from_json({**authors.to_json(), name: value})) != theirs, name
