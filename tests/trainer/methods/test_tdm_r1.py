"""The update: who learns from what, and that it learns."""

import dataclasses

import pytest
import torch

from common.settings import TDMR1Settings
from trainer.backends import load_backend
from trainer.methods import base, tdm, tdm_r1
from trainer.methods.base import Groups, rate_factor, read
from trainer.methods.tdm_r1 import TDMR1, step_orders
from trainer.roles import FAKE, STUDENT, STUDENT_EMA, SURROGATE, SURROGATE_EMA, TDM_R1_ROLES
from trainer.shares import Part

SETTINGS = TDMR1Settings(rank=4, alpha=8, student_lr=1e-3, fake_lr=1e-3, surrogate_lr=3e-3)


def make(model_dir, settings=SETTINGS, **options):
    torch.manual_seed(0)  # LoRA's A matrices are random
    return TDMR1(load_backend(model_dir), settings, bf16=False, **options)


def labelled(trainer, prompts, *, size=6, seed=0):
    """Groups whose "liked" images are those with the brighter first latent channel; (groups, rewards)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((len(prompts) * size, *trainer.backend.latent_shape), generator=generator)
    noise[:, 0] += torch.randn(len(noise), 1, 1, generator=generator)
    conditioning = trainer.backend.encode(prompts)
    points = trainer.sample(conditioning.repeat(size), noise).unflatten(0, (len(prompts), size))
    value = points[:, :, -1, 0].mean((-1, -2))
    liked = (value > value.median(1, keepdim=True).values).float()
    return Groups(points, conditioning, liked * 2 - 1)


def snapshot(trainer):
    return {role: trainer.roles.state_dict(role) for role in TDM_R1_ROLES}


def changed(before, after):
    return {role for role in before if any(not torch.equal(before[role][k], after[role][k]) for k in before[role])}


def backbone(trainer):
    return {k: v.clone() for k, v in trainer.backend.transformer.state_dict().items() if ".lora_" not in k}


def test_each_loss_moves_only_its_own_roles(model_dir):
    trainer = make(model_dir)
    frozen = backbone(trainer)
    generator = torch.Generator().manual_seed(0)
    groups = labelled(trainer, ["a star", "a red heart"])
    before = snapshot(trainer)
    trainer.surrogate_update(groups, generator)
    middle = snapshot(trainer)
    assert changed(before, middle) == {SURROGATE, SURROGATE_EMA}
    flat = groups.trajectory.flatten(0, 1)
    trainer.student_update(flat, groups.conditioning.repeat(6), torch.arange(12) % 4, generator)
    assert changed(middle, snapshot(trainer)) == {STUDENT, STUDENT_EMA, FAKE}
    assert all(torch.equal(v, frozen[k]) for k, v in backbone(trainer).items())


def test_the_surrogate_ranks_held_out_images_of_its_groups(model_dir):
    trainer = make(model_dir)
    everything = labelled(trainer, ["a star", "a red heart", "two squares", "a blue cross"], size=12)
    training = Groups(everything.trajectory[:, :8], everything.conditioning, everything.advantages[:, :8])
    held_out = Groups(everything.trajectory[:, 8:], everything.conditioning, everything.advantages[:, 8:])
    generator = torch.Generator().manual_seed(0)

    def margin():
        gain = trainer.learned_reward(held_out, draws=8, generator=torch.Generator().manual_seed(1))
        return (gain[held_out.advantages > 0].mean() - gain[held_out.advantages < 0].mean()).item()

    assert margin() == pytest.approx(0, abs=1e-6)
    for _ in range(60):
        trainer.surrogate_update(training, generator)
    gain = trainer.learned_reward(held_out, draws=8, generator=torch.Generator().manual_seed(1))
    right = total = 0
    for row, advantages in zip(gain, held_out.advantages, strict=True):
        for good in row[advantages > 0]:
            for bad in row[advantages < 0]:
                right, total = right + int(good > bad), total + 1
    assert margin() > 0
    assert right / total > 0.75


@pytest.mark.parametrize("reference", ["ema", "frozen"])
def test_both_references_train(model_dir, reference):
    trainer = make(model_dir, TDMR1Settings(**SETTINGS.to_json() | {"reference": reference}))
    groups = labelled(trainer, ["a star"])
    generator = torch.Generator().manual_seed(0)
    metrics = [trainer.surrogate_update(groups, generator) for _ in range(20)]
    assert metrics[-1]["margin"] > metrics[0]["margin"]


def test_equal_numbers_on_one_seed(model_dir):
    runs = []
    for _ in range(2):
        trainer = make(model_dir)
        generator = torch.Generator().manual_seed(4)
        groups = labelled(trainer, ["a star"])
        trainer.surrogate_update(groups, generator)
        trainer.student_update(groups.trajectory[0], groups.conditioning.repeat(6), torch.arange(6) % 4, generator)
        runs.append(snapshot(trainer))
    assert changed(*runs) == set()


def test_learning_rates_fall_to_nearly_zero_in_the_last_share_of_the_updates():
    assert [rate_factor(k, 8, 0.5) for k in range(8)] == [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert [rate_factor(k, 4, 0.0) for k in range(4)] == [1] * 4


def test_rewarded_steps_come_first_in_their_share_of_the_images():
    generator = torch.Generator().manual_seed(0)
    orders = step_orders(4000, 4, generator, rewarded=2, share=0.8)
    assert torch.equal(orders.sort(1).values, torch.arange(4).expand(4000, 4))
    early = orders[:, 0] < 2
    assert early.float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert (orders[early, :2] < 2).all()
    assert (orders[~early, :2] >= 2).all()
    assert orders[early, 0].float().mean().item() == pytest.approx(0.5, abs=0.04)  # either of the two alike
    assert orders[~early, 0].float().mean().item() == pytest.approx(2.5, abs=0.08)


@pytest.mark.parametrize(
    "chances", [{"rewarded": 1, "share": 0.0}, {"rewarded": 4, "share": 0.5}, {"rewarded": 0, "share": 0.5}]
)
def test_without_a_share_or_a_choice_all_steps_are_alike(chances):
    orders = step_orders(4000, 4, torch.Generator().manual_seed(0), **chances)
    counts = orders[:, 0].bincount(minlength=4)
    assert counts.float().div(4000).tolist() == pytest.approx([0.25] * 4, abs=0.03)


@pytest.mark.parametrize("guidance", ["teacher", "surrogate"])
def test_reward_targets_are_those_of_all_images_where_they_count(model_dir, guidance):
    trainer = make(model_dir, TDMR1Settings(**SETTINGS.to_json() | {"reward_guidance": guidance}))
    groups = labelled(trainer, ["a star", "a red heart"])
    trainer.surrogate_update(groups, torch.Generator().manual_seed(0))
    x_n, s_n = groups.trajectory[:, :, 1].flatten(0, 1), trainer.grid[1].expand(12)
    conditioning = groups.conditioning.repeat(6)

    def pair(where):
        generator = torch.Generator().manual_seed(1)
        found = trainer.reward_targets(x_n, s_n, conditioning, generator, Part.whole(12), where)
        return found, torch.rand(1, generator=generator).item()

    some = torch.arange(12) % 3 == 0
    rows = some.nonzero().flatten()
    (whole, after), (part, after_part), (none, after_none) = (pair(r) for r in (slice(None), rows, rows[:0]))
    assert after == after_part == after_none  # later random numbers do not depend on it
    for name, values in whole.items():
        assert torch.allclose(part[name][some], values[some], atol=1e-5)
        assert not part[name][~some].any()
        assert not none[name].any()
        assert values.abs().sum() > 0


def test_evenly_spread_looks_keep_the_mean_and_have_less_variance(model_dir):
    """Gradients of the surrogate from one group, looked at four times."""

    def gradients(stratified, count=24):
        changes = {"stratified": stratified, "surrogate_kl": 0.0, "clip": 1e6, "beta_dpo": 0.0, "surrogate_t_min": 0.3}
        trainer = make(model_dir, dataclasses.replace(SETTINGS, **changes))
        groups, found, parameters = labelled(trainer, ["a star"]).each(4), [], trainer.roles.parameters(SURROGATE)

        def keep(role, losses, part):
            total = [torch.zeros_like(p) for p in parameters]
            for loss, units in losses:
                torch._foreach_add_(total, torch.autograd.grad(loss * units / len(part.index), parameters))
            found.append(torch.cat([g.flatten() for g in total]))
            return 0.0

        trainer.step = keep
        for n in range(count):
            trainer.surrogate_update(groups, torch.Generator().manual_seed(n))
        return torch.stack(found)

    alone, spread = gradients(False), gradients(True)
    variance = [g.var(0).sum().item() for g in (alone, spread)]
    gap = (alone.mean(0) - spread.mean(0)).pow(2).sum().item()
    print(f"variance of the gradient: {variance[0]:.3g} drawn alone, {variance[1]:.3g} spread")
    assert variance[1] < 0.7 * variance[0]
    assert gap < 3 * sum(variance) / len(alone)  # what two means of so many draws differ by


def test_each_look_alone_is_drawn_as_before(model_dir):
    trainer = make(model_dir, dataclasses.replace(SETTINGS, stratified=True))
    drawn = [trainer.draw_points(5, torch.Generator().manual_seed(n)) for n in range(600)]
    steps, times = torch.stack([j for j, _ in drawn]), torch.stack([u for _, u in drawn])
    share = torch.bincount(steps[:, 2], minlength=4) / 600  # of one group
    assert torch.allclose(share, torch.arange(1, 5) / 10, atol=0.06)
    assert times[:, 2].mean().item() == pytest.approx(0.5, abs=0.04)
    assert torch.equal((times * 5).floor().sort(1).values, torch.arange(5.0).expand(600, -1))
    assert all(abs((steps == j).sum(1) - 0.5 * (j + 1)).max() < 1.5 for j in range(4))


def test_numbers_are_read_together(backend, monkeypatch):
    """A read waits for the device: three before optimizers step, two of what is logged, one of weights."""
    trainer = TDMR1(backend, TDMR1Settings(rank=4, alpha=8))
    generator = torch.Generator().manual_seed(0)
    conditioning = backend.encode(["a star", "a heart"])
    trajectory = trainer.sample(conditioning.repeat(4), torch.randn((8, *backend.latent_shape), generator=generator))
    advantages = torch.tensor([[1.0, -1.0, 0.5, -0.5]] * 2)
    waits = []
    for module in (base, tdm, tdm_r1):
        monkeypatch.setattr(module, "read", counted(waits))
    trainer.surrogate_update(Groups(trajectory.unflatten(0, (2, 4)), conditioning, advantages), generator)
    found = trainer.student_update(trajectory, conditioning.repeat(4), torch.arange(8) % 4, generator)
    trainer.check_weights()
    assert waits.count("read") == 6
    assert all(isinstance(value, float) for value in found.values())


def counted(waits):
    return lambda values: waits.append("read") or read(values)


def test_values_are_read_as_they_are():
    assert read({"a": torch.tensor(2.5), "b": 1.25, "c": torch.tensor(True)}) == {"a": 2.5, "b": 1.25, "c": 1.0}
    assert read({}) == {}
