"""What every family must show, however its weights are held; parametrised by tests.trainer.backends.tiny.CASES.

Codes of fp8 go the way of int8's through all of the code, so they are tried on two families only.
"""

import dataclasses
import json

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from common.settings import MemorySettings, TDMR1Settings
from tests.trainer.backends.tiny import CASES, decoded, training
from trainer.backends import load_backend
from trainer.losses import mean_square
from trainer.methods import tdm
from trainer.methods.base import Groups
from trainer.methods.tdm_r1 import TDMR1
from trainer.roles import FAKE, STUDENT, STUDENT_EMA, SURROGATE, SURROGATE_EMA, TDM_R1_ROLES, TEACHER, Roles
from trainer.rounds import RoundSpec, run_round
from trainer.sampler import Sampler, initial_noise, load_trajectory, sample_latents, save_trajectory

HELD = {
    "whole": MemorySettings(),
    "int8": MemorySettings(weights="int8"),
    "fp8": MemorySettings(weights="fp8"),
    "nf4": MemorySettings(weights="nf4"),
    "streamed": MemorySettings(streamed=2),
}
PROMPTS = ("a red star", "two blue hearts beside a dog, and the word CAT")


FP8 = ("sd35", "z_image")
WAYS = [(name, how) for name in CASES for how in HELD if how != "fp8" or name in FP8]


@pytest.fixture(scope="session", params=WAYS, ids=[f"{name}-{how}" for name, how in WAYS])
def way(request):
    return request.param


@pytest.fixture(scope="session")
def held(way):
    return HELD[way[1]]


@pytest.fixture(scope="session")
def family(way, held, built, tmp_path_factory):
    """(its case, its folder): one whose weights are what their codes stand for, so that stock computes the same."""
    folder, kind = built(way[0]), held.weights
    return CASES[way[0]], folder if kind == "none" else decoded(folder, kind, tmp_path_factory.mktemp(kind))


@pytest.fixture
def backend(family, held):
    return load_backend(family[1], memory=held)


def stock_points(family, backend, noise, *, guidance=1.0, lora=None):
    """(points after each step as the trainer sees them, images) of the family's own pipeline."""
    case, folder = family
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    if lora is not None:
        pipeline.load_lora_weights(lora)
    grid, points = backend.grid(4).tolist(), []

    def keep(_, j, __, values):
        points.append(case.point(values["latents"], backend, grid[j + 1]))
        return values

    call = case.call(backend, noise, guidance)
    images = pipeline(prompt=list(PROMPTS), callback_on_step_end=keep, **call).images
    return torch.stack(points, 1), images


def frozen(backend):
    """Copies of the network's own tensors; of streamed blocks, which come and go, as they wait."""
    if backend.memory.streamed:
        return {str(i): home.clone() for i, home in enumerate(backend._stream.homes)}
    return {k: v.clone() for k, v in backend.transformer.state_dict().items() if ".lora_" not in k}


def assert_close(ours, stock):
    """To 1e-4 of the latents' spread, which is about 1 for flow models."""
    assert (ours - stock).abs().max() < 1e-4 * max(1, stock.std().item())


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_it_walks_the_stock_pipelines_four_steps(family, backend, guidance):
    if guidance > 1 and not family[0].guided:
        with pytest.raises(ValueError, match=r"guidance: .* set guidance to 1"):
            backend.stock_call(4, guidance)
        return
    noise = initial_noise([1, 2], backend.latent_shape)
    ours = sample_latents(backend, backend.encode(PROMPTS), noise, backend.grid(4), guidance=guidance)
    stock, images = stock_points(family, backend, noise, guidance=guidance)
    assert_close(ours[:, 1:], stock)
    mine, theirs = (np.stack(pictures).astype(int) for pictures in (backend.decode(ours[:, -1]), images))
    assert np.abs(mine - theirs).max() <= 1
    # The comparison has teeth: noise is no answer, and another prompt is another image.
    assert (ours[:, -1] - ours[:, 0]).std() > 0.05
    other = sample_latents(backend, backend.encode(PROMPTS[::-1]), noise, backend.grid(4), guidance=guidance)
    assert (ours - other)[:, -1].abs().max() > 2e-3


def test_it_walks_the_stock_pipelines_steps_at_any_size(family, backend):
    own, shift = backend.size, backend.shift
    size = own[0] * 3 // 2, own[1] // 2
    with backend.sized(size):
        assert backend.size == size == backend.size_of(backend.latent_shape)
        noise = initial_noise([1, 2], backend.latent_shape)
        ours = sample_latents(backend, backend.encode(PROMPTS), noise, backend.grid(4))
        stock, images = stock_points(family, backend, noise)
        assert_close(ours[:, 1:], stock)
        decoded = backend.decode(ours[:, -1])
    assert [image.size for image in decoded] == [size] * 2 == [image.size for image in images]
    assert (backend.size, backend.shift) == (own, shift)
    with pytest.raises(ValueError, match=r"size: 40x63 is not of multiples of"), backend.sized((40, 63)):
        pass


def test_latents_come_back(backend, tmp_path):
    latents = torch.randn(2, *backend.latent_shape)
    assert torch.allclose(backend.from_vae(backend.to_vae(latents)), latents, atol=1e-5)

    images = backend.decode(latents)
    assert [image.size for image in images] == [backend.size] * 2
    encoded = backend.encode_images(images)
    assert encoded.shape == latents.shape
    pixels = backend.pipeline.image_processor.preprocess(images)
    assert torch.allclose(backend.to_vae(encoded), backend.vae_encode(pixels), atol=1e-4)


def test_groups_are_sampled_and_kept(family, held, tmp_path):
    sampler = Sampler(family[1], memory=held)
    group = sampler.sample_group(PROMPTS[0], [5, 6, 7])
    assert group.trajectory.shape == (3, 5, *sampler.backend.latent_shape)
    assert torch.allclose(sampler.sample_group(PROMPTS[0], [6]).trajectory, group.trajectory[1:2], atol=1e-4)
    save_trajectory(tmp_path / "g.safetensors", group, prompt=PROMPTS[0], version="v1")
    stored = load_trajectory(tmp_path / "g.safetensors")
    assert torch.allclose(stored.trajectory, group.trajectory, atol=2e-2)
    assert torch.equal(stored.sigmas, group.sigmas)


def test_a_prompt_does_not_disturb_its_neighbours(backend):
    noise, t = initial_noise([1, 2, 3], backend.latent_shape), torch.tensor([0.3, 0.6, 0.9])
    mixed = backend.encode([*PROMPTS, ""])
    together = backend.velocity(noise, t, mixed)
    alone = [
        backend.velocity(noise[i : i + 1], t[i : i + 1], backend.encode([prompt]))
        for i, prompt in enumerate([*PROMPTS, ""])
    ]
    assert torch.allclose(together, torch.cat(alone), atol=1e-4)
    assert torch.equal(mixed.repeat(2).embeds[2], mixed.embeds[1])


def test_the_velocity_is_finite_at_every_level(backend):
    levels = torch.linspace(0.01, backend.grid(4)[0].item(), 9)
    noise = initial_noise(range(9), backend.latent_shape)
    assert backend.velocity(noise, levels, backend.encode(PROMPTS[:1] * 9)).isfinite().all()


def test_lora_sits_where_it_is_stated(family, backend):
    roles = Roles(backend.transformer, backend.lora_targets, rank=4, alpha=8)
    assert len(roles._layers) == family[0].lora_modules
    for target in backend.lora_targets:
        assert any(f"{target}.lora_A" in name for name in roles.state_dict(STUDENT)), target
    parts = backend.pipeline.components.values()
    rest = [part for part in parts if isinstance(part, torch.nn.Module) and part is not backend.transformer]
    assert not any(p.requires_grad for part in rest for p in part.parameters())


def test_adapters_are_isolated(backend):
    noise, t, prompt = initial_noise([1], backend.latent_shape), torch.tensor([0.7]), backend.encode(PROMPTS[:1])
    bare = backend.velocity(noise, t, prompt)
    roles = Roles(backend.transformer, backend.lora_targets, rank=4, alpha=8, roles=TDM_R1_ROLES)
    weights = frozen(backend)
    torch.manual_seed(3)
    for p in roles.parameters(STUDENT):
        torch.nn.init.normal_(p, std=0.2)
    seen = {}
    for role in (STUDENT, *TDM_R1_ROLES, TEACHER):
        roles.use(role)
        seen[role] = backend.velocity(noise, t, prompt).detach()
    assert (seen.pop(STUDENT) - bare).abs().max() > 1e-3
    for role, velocity in seen.items():
        assert torch.equal(velocity, bare.detach()), role
    with roles.merged(STUDENT):
        merged = backend.velocity(noise, t, prompt)
    roles.use(STUDENT)
    assert torch.allclose(merged, backend.velocity(noise, t, prompt), atol=1e-3)
    after = frozen(backend)
    assert all(torch.equal(after[k], v) for k, v in weights.items())


def test_memory_settings_change_no_number(family, backend, held, tmp_path):
    noise, t = initial_noise([1, 2, 3], backend.latent_shape), torch.tensor([0.3, 0.6, 0.9])
    prompts = [*PROMPTS, ""]
    memory = dataclasses.replace(
        held,
        embeddings=str(tmp_path),
        text_encoders="free",
        checkpointing=True,
        micro_batch=2,
        vae_batch=1,
        vae_offload=True,
    )
    results = []
    # The second of the frugal two has only the kept embeddings to read.
    for made in (backend, load_backend(family[1], memory=memory), load_backend(family[1], memory=memory)):
        roles = Roles(made.transformer, made.lora_targets, rank=4, alpha=8)
        made.recompute = roles.recompute
        torch.manual_seed(3)
        for p in roles.parameters(STUDENT):
            torch.nn.init.normal_(p, std=0.2)
        velocity = made.velocity(noise, t, made.encode(prompts))
        gradients = torch.autograd.grad(velocity.square().sum(), roles.parameters(STUDENT))
        results.append((velocity.detach(), torch.cat([g.flatten() for g in gradients]), np.stack(made.decode(noise))))
    plain, *frugal = results
    for velocity, gradients, images in frugal:
        assert torch.allclose(velocity, plain[0], atol=1e-4)
        assert (gradients - plain[1]).norm() < 1e-4 * plain[1].norm()
        assert np.abs(images.astype(int) - plain[2].astype(int)).max() <= 1


def test_a_half_precision_model_draws_nearly_the_same(family, backend, held):
    half = load_backend(family[1], memory=dataclasses.replace(held, half=True))
    assert next(half.transformer.parameters()).dtype == torch.bfloat16
    noise = initial_noise([1, 2], backend.latent_shape)
    plain, rough = (sample_latents(made, made.encode(PROMPTS), noise, made.grid(4))[:, -1] for made in (backend, half))
    assert rough.dtype == torch.float32
    assert (rough - plain).std() < 0.05 * plain.std()


def settings_for(backend):
    return TDMR1Settings(rank=4, alpha=8, student_lr=1e-4, fake_lr=1e-4, surrogate_lr=1e-4, **training(backend))


def test_a_step_moves_its_own_roles_and_lowers_their_losses(backend, monkeypatch):
    trainer = TDMR1(backend, settings_for(backend), bf16=False)
    conditioning = backend.encode(PROMPTS)
    size = 4
    noise = initial_noise(range(2 * size), backend.latent_shape)
    trajectory = trainer.sample(conditioning.repeat(size), noise)
    liked = torch.tensor([1.0, 1.0, -1.0, -1.0])
    groups = Groups(trajectory.unflatten(0, (2, size)), conditioning, torch.stack([liked, -liked]))
    j = torch.arange(2 * size) % 4
    asked = []
    student_loss = tdm.student_loss
    monkeypatch.setattr(
        tdm,
        "student_loss",
        lambda x0, targets, **w: asked.append((x0.detach(), targets, w)) or student_loss(x0, targets, **w),
    )

    def step():
        """A whole TDM-R1 step; its losses before it moved anything."""
        generator = torch.Generator().manual_seed(7)
        return trainer.surrogate_update(groups, generator) | trainer.student_update(
            trajectory, conditioning.repeat(size), j, generator
        )

    def state():
        return {role: trainer.roles.state_dict(role) for role in TDM_R1_ROLES}

    def student_objective():
        """The student's loss at its present weights, against the targets that the step set."""
        held, targets, w = asked[0]
        v = trainer.fixed_velocity(
            STUDENT, trajectory[torch.arange(len(j)), j], trainer.grid[j], conditioning.repeat(size)
        )
        x0 = trajectory[torch.arange(len(j)), j] - trainer.grid[j].view(-1, 1, 1, 1) * v
        pull = (w["guidance"] - 1) * (targets.teacher_cond - targets.teacher_uncond)

        def term(direction, away_from):
            unit = (held - away_from).abs().mean((1, 2, 3)).clamp_min(1e-3)
            return mean_square(x0 - held - direction) / unit

        teacher = targets.teacher_cond + pull
        reward = term(targets.surrogate_cfg - targets.reference, targets.surrogate_cfg) * w["reward_on"]
        share = w["guidance_weight"]
        kl = term(targets.teacher_cond - targets.fake, teacher)
        return (share * term(pull, teacher) + (1 - share) * reward + kl).mean().item()

    before = state()
    first = step()
    after = state()
    moved = {r for r in before if any(not torch.equal(before[r][k], after[r][k]) for k in before[r])}
    assert moved == {STUDENT, STUDENT_EMA, FAKE, SURROGATE, SURROGATE_EMA}
    lowered = student_objective()

    trainer.set_rate_factor(0)
    trainer.roles.load_state_dict(STUDENT, before[STUDENT])  # the fake's target is made by the student
    assert student_objective() == pytest.approx(first["student"], rel=1e-4)
    assert lowered < first["student"]
    second = step()
    assert second["surrogate"] < first["surrogate"]
    assert second["fake"] < first["fake"]


def test_a_round_from_labels_ends_in_a_lora_that_the_stock_pipeline_loads(family, backend, held, tmp_path):
    _, folder = family
    sampler, rows = Sampler(folder, memory=held), []
    for i, prompt in enumerate(PROMPTS):
        save_trajectory(
            tmp_path / f"{i}.safetensors", sampler.sample_group(prompt, range(4)), prompt=prompt, version="base"
        )
        rows.append({"group": str(i), "prompt": prompt, "metadata": {}, "version": "base", "rewards": [1, 0, 1, None]})
        rows[-1]["trajectory_file"] = f"{i}.safetensors"
    (tmp_path / "groups.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    roles = Roles(backend.transformer, backend.lora_targets, rank=4, alpha=8)
    torch.manual_seed(3)
    for p in roles.parameters(STUDENT):
        torch.nn.init.normal_(p, std=0.2)
    backend.save_lora(tmp_path / "parent", roles.state_dict(STUDENT), rank=4, alpha=8)
    small = {"updates": 1, "prompts_per_update": 2, "student_batch": 4, "validation_images": 0}
    settings = settings_for(backend).to_json() | small
    result = run_round(
        RoundSpec(
            model_dir=str(folder),
            parent_dir=str(tmp_path / "parent"),
            work_dir=str(tmp_path / "work"),
            output_dir=str(tmp_path / "version"),
            train_prompts=[{"prompt": prompt} for prompt in PROMPTS],
            groups_file=str(tmp_path / "groups.jsonl"),
            settings=settings,
            memory=held.to_json(),
        )
    )
    (line,) = (json.loads(text) for text in (tmp_path / "work" / "log.jsonl").read_text().splitlines())
    assert {"fake", "student", "surrogate"} <= set(line)

    noise = initial_noise([1, 2], backend.latent_shape)
    prompts = sampler.backend.encode(PROMPTS)
    bare = sample_latents(sampler.backend, prompts, noise, backend.grid(4))
    sampler.use_version(result.version_dir)
    ours = sample_latents(sampler.backend, prompts, noise, backend.grid(4))
    stock, _ = stock_points(family, backend, noise, lora=result.version_dir)
    assert_close(ours[:, 1:], stock)
    assert (ours - bare).abs().max() > 1e-2
    assert load_backend(folder).load_lora(tmp_path / "version")[1:3] == (4, 8)
