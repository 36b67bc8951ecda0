"""The ablation's other methods: their formulas, and that each teaches the student and nothing else."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import bench.learning.ablation
from bench.harness import START, svg
from bench.learning import peers
from bench.learning.ablation import ROWS, plot, prepare_row, settings_of, table, train
from bench.learning.gains import color_purity
from bench.learning.peers import PeerSettings
from common.settings import SettingsError
from tests.bench.conftest import dots
from tests.trainer.rounds_helpers import SMALL
from trainer.demo.scenes.world import COLORS
from trainer.flow import rollout, step_grid
from trainer.methods import flow_grpo
from trainer.roles import FAKE, STUDENT, STUDENT_EMA, SURROGATE, SURROGATE_EMA

GRID = step_grid(4, 3.0)


def velocity(x, t):
    return torch.tanh(x) * (1 + t.reshape(-1, 1, 1, 1))


def noise(seed=0, shape=(6, 2, 3, 3)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_log_probability_is_the_normal_distribution_s():
    here, there = GRID[:3].repeat(2), GRID[1:4].repeat(2)
    mean, std = flow_grpo.sde_transition(noise(1), noise(2), here, there, noise_level=0.7, top=GRID[1].item())
    points = mean + 0.3 * noise(3)
    truth = torch.distributions.Normal(mean, std.reshape(-1, 1, 1, 1)).log_prob(points).mean((1, 2, 3))
    assert torch.allclose(flow_grpo.transition_log_probability(points, mean, std), truth, atol=1e-5)


def test_divergence_of_two_steps_is_the_normal_distribution_s():
    std = torch.linspace(0.2, 1.2, 6)
    a, b = (torch.distributions.Normal(noise(i), std.reshape(-1, 1, 1, 1)) for i in (1, 2))
    truth = torch.distributions.kl_divergence(a, b).mean((1, 2, 3))
    assert torch.allclose(flow_grpo.transition_kl(noise(1), noise(2), std), truth, atol=1e-5)


def test_the_sde_without_noise_is_euler():
    points, _ = flow_grpo.sde_rollout(velocity, noise(), GRID, noise, noise_level=0.0)
    assert torch.allclose(points, rollout(velocity, noise(), GRID), atol=1e-6)


def test_fine_sde_steps_keep_the_marginals():
    """Images that are all 0 make `v = x / t` exact; then x_t has standard deviation t, with any noise."""
    start, draws = noise(0, (4000, 1, 2, 2)), torch.Generator().manual_seed(1)
    grid = torch.linspace(0.99, 0, 400)
    points, log_probabilities = flow_grpo.sde_rollout(
        lambda x, t: x / t.reshape(-1, 1, 1, 1),
        start,
        grid,
        lambda: torch.randn(start.shape, generator=draws),
        noise_level=0.7,
    )
    assert torch.allclose(points[:, :380].std((0, 2, 3, 4)), grid[:380], rtol=0.05)  # the last steps are too coarse
    assert log_probabilities.shape == (4000, 398)


def test_the_first_and_the_last_step_of_the_sde_are_finite():
    levels = GRID[:4], GRID[1:]
    mean, std = flow_grpo.sde_transition(noise()[:4], noise(1)[:4], *levels, noise_level=0.7, top=GRID[1].item())
    assert mean.isfinite().all()
    assert std.isfinite().all()
    assert (std > 0).tolist() == [True, True, True, False]
    assert std[0].item() == pytest.approx(0.7 * (1 / 0.1) ** 0.5 * 0.1**0.5, rel=1e-5)


def test_stochastic_steps_have_the_right_level():
    """With the true `x0_hat` of images that are all 2, each point is (1 - s)·2 + s·noise."""
    start, draws = noise(0, (5000, 1, 2, 2)), torch.Generator().manual_seed(1)
    points = peers.stochastic_rollout(
        lambda x, t: (x - 2) / t.reshape(-1, 1, 1, 1), start, GRID, lambda: torch.randn(start.shape, generator=draws)
    )
    assert torch.allclose(points.mean((0, 2, 3, 4)), 2 * (1 - GRID), atol=0.03)
    assert torch.allclose(points.std((0, 2, 3, 4)), GRID, atol=0.03)
    fresh = torch.corrcoef(torch.stack([points[:, j].flatten() for j in (0, 1)]))[0, 1]
    assert abs(fresh) < 0.05


def test_equal_rewards_teach_grpo_nothing():
    log_ratio = torch.tensor([0.0, 0.1, -0.2], requires_grad=True)
    (gradient,) = torch.autograd.grad(flow_grpo.grpo_loss(log_ratio, torch.zeros(3), 0.2), log_ratio)
    assert not gradient.any()


def test_grpo_raises_what_is_good_until_the_clip():
    log_ratio = torch.tensor([0.0, 0.0, 0.5, -0.5, -0.5], requires_grad=True)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    (gradient,) = torch.autograd.grad(flow_grpo.grpo_loss(log_ratio, advantages, 0.2), log_ratio)
    assert gradient.sign().tolist() == [-1, 1, 0, 0, -1]


def test_the_best_siblings():
    x = torch.arange(6.0).reshape(2, 3, 1)
    rewards = torch.tensor([[0.1, 0.9, 0.5], [0.7, 0.2, 0.7]])
    assert peers.best_siblings(x, rewards).squeeze(-1).tolist() == [[1, 1, 1], [3, 3, 5]]


@pytest.fixture
def small(make_spec, reddish, monkeypatch):
    """Runs one update of a row; gives the roles whose weights it changed."""

    def run(name, *, updates=1, **changes):
        row = ROWS[name]
        settings, peer = settings_of({**SMALL, "validation_images": 0, "updates": updates, **row.changes, **changes})
        made = prepare_row(row, make_spec(name, settings=settings.to_json()), peer)
        roles = made.method.roles
        before = {role: roles.state_dict(role) for role in roles.names}
        backbone = {k: v.clone() for k, v in made.method.backend.transformer.state_dict().items() if ".lora_" not in k}
        metrics = [made.step(step) for step in range(updates)]
        after = made.method.backend.transformer.state_dict()
        assert all(torch.equal(v, after[k]) for k, v in backbone.items())
        now = {role: roles.state_dict(role) for role in roles.names}
        return metrics, {r for r in before if any(not torch.equal(before[r][k], now[r][k]) for k in before[r])}, made

    return run


LEARNED = {STUDENT, STUDENT_EMA}
TDM = {*LEARNED, FAKE}
CHANGED = {
    "student": LEARNED,
    "distilled_student": TDM,
    "flow_grpo": LEARNED,
    "best": LEARNED,
    "sibling": TDM,
    "tdm_r1": {*TDM, SURROGATE, SURROGATE_EMA},
    "ema": {*TDM, SURROGATE, SURROGATE_EMA},
    "refresh": {*TDM, SURROGATE},
    "stochastic": {*TDM, SURROGATE, SURROGATE_EMA},
}


@pytest.mark.parametrize("name", CHANGED)
def test_an_update_trains_only_its_own_roles(small, name):
    _, changed, made = small(name)
    assert changed == CHANGED[name]
    assert made.state.images_scored == 12


def test_a_reward_trained_before_is_frozen_while_the_student_follows(small):
    metrics, changed, made = small("pretrained", updates=2)
    assert changed == {*TDM, SURROGATE, SURROGATE_EMA}
    assert "surrogate" in metrics[0] and "student" not in metrics[0]
    assert "student" in metrics[1] and "surrogate" not in metrics[1]
    assert made.state.images_scored == 12


def test_a_refresh_copies_the_surrogate(small):
    _, changed, made = small("refresh", updates=2, refresh_every=2)
    assert SURROGATE_EMA in changed
    kept, live = (made.method.roles.state_dict(role) for role in (SURROGATE_EMA, SURROGATE))
    assert all(torch.equal(kept[k], live[k]) for k in kept)


def test_the_first_ratio_is_one(small):
    """The gradient steps see what the rollout saw, so the first of them is on the policy that sampled."""
    metrics, _, _ = small("flow_grpo", gradient_steps=1)
    assert metrics[0]["outside"] == 0


def test_group_preference_favours_liked_images(small):
    """What is liked comes nearer to the student than what is disliked, by more than before."""
    _, _, made = small("student", student_lr=1e-3)
    trainer = made.method
    (groups,) = made.source.scored(0).batches
    p, g = groups.advantages.shape
    x0 = groups.trajectory[:, :, -1].flatten(0, 1)
    tau = trainer.grid[2].expand(p * g)
    eps = torch.randn((p, 1, *x0.shape[1:]), generator=torch.Generator().manual_seed(1)).repeat(1, g, 1, 1, 1)

    def lead():
        d = trainer.denoising_error(STUDENT, x0, groups.conditioning.repeat(g), tau, eps.flatten(0, 1))
        return -(groups.advantages * d.unflatten(0, (p, g))).mean().item()

    before = lead()
    for seed in range(8):
        trainer.learn(groups, torch.Generator().manual_seed(seed))
    assert lead() > before + 1e-4


def test_unknown_settings_are_named():
    settings, peer = settings_of({"sibling_scale": 0.5, "reference": "ema"}, seed=3)
    assert (settings.seed, settings.reference, peer) == (3, "ema", PeerSettings(sibling_scale=0.5))
    with pytest.raises(SettingsError, match="noise_levle: no such setting"):
        settings_of({"noise_levle": 0.5})


def test_a_run_goes_through_and_says_what_it_spent(make_spec, reddish, monkeypatch, tmp_path, parent):
    monkeypatch.setattr(
        bench.learning.ablation, "oracle_spec", lambda work, settings: make_spec(settings=settings.to_json())
    )
    changes = SMALL | {"validation_images": 4}
    changes = {k: v for k, v in changes.items() if k not in ("updates", "validate_every")}
    version, spent = train(ROWS["best"], 0, 24, changes, 2, tmp_path / "round" / "work")
    assert (spent["updates"], spent["scored_images"]) == (2, 24)
    assert [point["images"] for point in spent["curve"]] == [0, 12, 24]
    assert all(set(point) == {"images", "strict", "geneval", "reward"} for point in spent["curve"])
    new, old = (load_file(Path(f) / "pytorch_lora_weights.safetensors") for f in (version, parent))
    assert any(not torch.equal(new[k], old[k]) for k in new)


def lines():
    base = {"strict": 0.5, "geneval": 0.6, "reward": 0.7, "sharpness": 0.4, "diversity": 0.3}
    base |= dict.fromkeys(bench.learning.ablation.TAGS, 0.5)
    rows = [{"row": START, "seed": 0, "scores": base}]
    for seed, gain in ((0, 0.1), (1, 0.2)):
        scores = {k: v + gain for k, v in base.items()}
        rows.append({"row": "flow_grpo", "seed": seed, "minutes": 10.0, "scores": scores})
    return rows


def test_the_table_has_gains_and_their_spread():
    text = table(lines())
    assert "| Flow-GRPO | 2 | +0.150 ± 0.071 |" in text
    assert "| before, of 2 runs | | 0.500 | 0.600 |" in text
    assert "hard refresh" not in text  # nothing was run


def test_a_run_is_compared_with_the_start_that_was_measured_before_it():
    later = {key: value + 0.05 for key, value in lines()[0]["scores"].items()}
    again = {"row": START, "seed": 0, "scores": later}
    last = {
        "row": "flow_grpo",
        "seed": 2,
        "minutes": 10.0,
        "scores": {key: value + 0.3 for key, value in later.items()},
    }
    text = table([*lines(), again, last])
    assert "| before, of 1 runs | | 0.550 | 0.650 |" in text
    assert "| Flow-GRPO | 3 | +0.200 ± 0.100 |" in text  # .1 and .2 over .5, .3 over .55


def test_the_plot_has_a_dot_a_seed():
    figure = plot(lines())
    assert dots(figure) == 2 * 3
    assert b">Flow-GRPO<" in svg(figure)


def test_curves_are_drawn_where_runs_were_looked_at_on_their_way():
    found = lines()
    for line in found[1:]:
        line["curve"] = [{"images": n, "strict": 0.5, "geneval": 0.6, "reward": 0.7} for n in (0, 12, 24)]
    figure = plot(found)
    drawn = [axes for part in figure.subfigs for axes in part.axes if axes.get_xlabel() == "scored images"]
    assert [len(axes.lines) for axes in drawn] == [3, 3]  # two seeds and their mean


def test_colour_purity_is_the_share_of_a_shape_that_has_a_colour_of_the_world():
    image = Image.new("RGB", (64, 64), "white")
    assert color_purity(image) == 0
    image.paste(COLORS["red"], (8, 8, 28, 28))
    assert color_purity(image) == 1
    image.paste((110, 110, 110), (36, 36, 56, 56))
    assert color_purity(image) == pytest.approx(0.5)
