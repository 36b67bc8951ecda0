"""What a surrogate learned is added to the student: the sum of two adapters within one rank, and what comes of it."""

from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer

from trainer.flow import renoise
from trainer.methods.base import Groups
from trainer.methods.student_only import INITIAL
from trainer.methods.task_vector import relative_distance
from trainer.roles import STUDENT, STUDENT_EMA, SURROGATE, SURROGATE_EMA, TEACHER, nearest_sum
from trainer.rounds import prepare, run_round
from trainer.surrogate_file import load_surrogate

QUIET = {"method": "task_vector", "validation_images": 0, "alarm": False, "surrogate_lr": 1e-3}


@pytest.mark.parametrize("shape", [(12, 9), (3, 9), (12, 2)])
def test_the_nearest_sum_is_as_near_as_its_rank_allows(shape):
    torch.manual_seed(0)
    out, width = shape
    pairs = [(torch.randn(out, 4), torch.randn(4, width)) for _ in range(2)]
    whole = sum(up @ down for up, down in pairs)
    for rank in (4, 8):
        up, down = nearest_sum(*pairs, rank)
        assert up.shape == (out, rank) and down.shape == (rank, width)
        left_out = torch.linalg.svdvals(whole)[rank:].square().sum()
        assert (whole - up @ down).square().sum() == pytest.approx(left_out.item(), abs=1e-3)


def groups_of(method, count=2):
    """Groups of eight, the first half of each with a brighter first channel and liked."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((count, 8, 1, *method.backend.latent_shape), generator=generator)
    images[:, :4, :, 0] += 2
    advantages = torch.tensor([1.0] * 4 + [-1.0] * 4).repeat(count, 1)
    return Groups(images, method.backend.encode(["a star"]).repeat(count), advantages)


def test_its_reference_follows_slowly(make_spec, reddish):
    method = prepare(make_spec(settings=QUIET | {"reference": "ema", "ema": 0.75})).method
    method.learn(groups_of(method), torch.Generator().manual_seed(1))
    first = method.roles.state_dict(SURROGATE)
    method.learn(groups_of(method), torch.Generator().manual_seed(2))
    second, average = method.roles.state_dict(SURROGATE), method.roles.state_dict(SURROGATE_EMA)
    key = next(key for key in average if "lora_B" in key)  # starts at 0
    assert torch.allclose(average[key], 0.25 * (0.75 * first[key] + second[key]), atol=1e-7)
    assert average[key].abs().sum() > 0


@pytest.mark.parametrize("pull", [0.0, 1.0])
def test_the_pull_is_to_the_base_where_the_reference_moves(make_spec, reddish, pull):
    """Where no image is liked more than another the reference holds the surrogate where it is; the pull leads it back."""
    method = prepare(make_spec(settings=QUIET | {"reference": "ema", "ema": 1.0, "surrogate_kl": pull})).method
    method.bf16 = False
    generator, groups = torch.Generator().manual_seed(0), groups_of(method)
    groups.advantages.zero_()
    with torch.no_grad():
        for weights in method.roles.parameters(SURROGATE):
            weights.add_(0.05 * torch.randn(weights.shape, generator=generator))
    method.roles.copy(SURROGATE, SURROGATE_EMA)

    images = groups.trajectory[:, :, -1].flatten(0, 1)
    at = images, torch.full((len(images),), 0.7), groups.conditioning.repeat(8)

    def learned():
        return (method.fixed_velocity(SURROGATE, *at) - method.fixed_velocity(TEACHER, *at)).square().mean().item()

    before = learned()
    for _ in range(8):
        method.learn(groups, generator)
    assert learned() < 0.8 * before if pull else learned() == pytest.approx(before, rel=0.05)


def test_the_distance_is_in_the_loss_s_own_unit():
    torch.manual_seed(0)
    x0, eps, v, teacher = (torch.randn(3, 2, 4, 4) for _ in range(4))
    tau = torch.tensor([0.2, 0.5, 1.0])
    x_tau = renoise(x0, torch.zeros(3), tau, eps)
    level = tau.view(-1, 1, 1, 1)
    error = (x_tau - level * teacher - x0).abs().mean((1, 2, 3))
    expected = (level * (v - teacher)).square().mean((1, 2, 3)) / error
    assert torch.allclose(relative_distance(x0, x_tau, tau, v, teacher), expected)
    assert relative_distance(x0, x_tau, tau, v, v).abs().max() == 0


def test_the_student_is_its_start_and_times_what_was_learned(make_spec, reddish):
    method = prepare(make_spec(settings=QUIET | {"vector_strength": 0.5})).method
    method.bf16 = False
    assert STUDENT not in method.optimizers
    start = method.roles.state_dict(INITIAL)
    method.learn(groups_of(method), torch.Generator().manual_seed(1))
    assert all(torch.equal(value, start[key]) for key, value in method.roles.state_dict(INITIAL).items())
    student, average = method.roles.state_dict(STUDENT), method.roles.state_dict(STUDENT_EMA)
    assert all(torch.equal(value, average[key]) for key, value in student.items())
    moved = 0.0
    for layer in (m for m in method.backend.transformer.modules() if isinstance(m, LoraLayer)):
        change = {role: layer.get_delta_weight(role) for role in (INITIAL, SURROGATE, STUDENT)}
        whole = change[INITIAL] + 0.5 * change[SURROGATE]
        left_out = torch.linalg.svdvals(whole)[method.rank :].square().sum().sqrt().item()
        assert (change[STUDENT] - whole).norm().item() == pytest.approx(left_out, abs=1e-5)
        moved += change[SURROGATE].norm().item()
    assert moved > 0


def test_the_student_makes_what_is_liked(make_spec, reddish):
    method = prepare(make_spec(settings=QUIET)).method
    method.bf16 = False
    noise = torch.randn((8, *method.backend.latent_shape), generator=torch.Generator().manual_seed(2))
    conditioning = method.backend.encode(["a star"]).repeat(8)

    def first_channel():
        return method.sample(conditioning, noise, role=STUDENT_EMA)[:, -1, 0].mean().item()

    before, generator = first_channel(), torch.Generator().manual_seed(3)
    for _ in range(12):
        method.learn(groups_of(method), generator)
    assert first_channel() > before + 0.02


def test_its_surrogate_can_be_looked_at(make_spec, reddish, backend):
    done = make_spec(settings=QUIET | {"updates": 1, "surrogate": "head"})
    run_round(done, trackers="none")
    made = load_surrogate(backend, Path(done.output_dir))
    assert any(value.abs().sum() > 0 for key, value in made.roles.state_dict(SURROGATE).items() if "lora_B" in key)


def test_it_has_no_part_for_the_student_alone(make_spec, reddish):
    with pytest.raises(ValueError, match="surrogate_first: with task_vector the student follows nothing; set it to 0"):
        prepare(make_spec(settings=QUIET | {"surrogate_first": 0.5}))
