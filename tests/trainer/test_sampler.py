"""Sampling: the stock pipeline's images, exact LoRA hand-over, trajectories that survive the disk."""

import pytest
import torch
from diffusers import DiffusionPipeline

from trainer.backends import load_backend
from trainer.roles import STUDENT, TDM_ROLES, Roles
from trainer.sampler import (
    Sampler,
    initial_noise,
    load_trajectory,
    related_noise,
    sample_latents,
    save_trajectory,
)

PROMPTS = ["a red star", 'the word "CAT"']


def stock_latents(pipeline, noise, guidance=1.0, steps=4):
    return pipeline(
        PROMPTS,
        num_inference_steps=steps,
        sigmas=[1 - j / steps for j in range(steps)],
        guidance_scale=guidance,
        latents=noise,
        max_sequence_length=1,
        output_type="latent",
        height=128,
        width=128,
    ).images


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_it_walks_the_stock_pipelines_steps(model_dir, backend, guidance):
    noise = initial_noise([1, 2], backend.latent_shape)
    ours = sample_latents(backend, backend.encode(PROMPTS), noise, backend.grid(4), guidance=guidance)
    pipeline = DiffusionPipeline.from_pretrained(model_dir)
    assert torch.allclose(ours[:, -1], stock_latents(pipeline, noise, guidance), atol=1e-4)


def test_a_saved_lora_gives_the_stock_pipeline_the_same_images(model_dir, tmp_path):
    backend = load_backend(model_dir)
    roles = Roles(backend.transformer, backend.lora_targets, rank=4, alpha=8, roles=TDM_ROLES)
    torch.manual_seed(3)
    for p in roles.parameters(STUDENT):
        torch.nn.init.normal_(p, std=0.2)
    roles.use(STUDENT)
    noise = initial_noise([1, 2], backend.latent_shape)
    ours = sample_latents(backend, backend.encode(PROMPTS), noise, backend.grid(4))[:, -1]
    backend.save_lora(tmp_path, roles.state_dict(STUDENT), rank=4, alpha=8)

    pipeline = DiffusionPipeline.from_pretrained(model_dir)
    bare = stock_latents(pipeline, noise)
    pipeline.load_lora_weights(tmp_path)
    assert torch.allclose(stock_latents(pipeline, noise), ours, atol=1e-4)
    assert (bare - ours).abs().max() > 0.01

    sampler = Sampler(model_dir)
    sampler.use_version(tmp_path)
    group = sampler.sample_group(PROMPTS[0], [1])
    assert torch.allclose(group.trajectory[:, -1], ours[:1], atol=1e-4)


def test_a_group_is_fixed_by_its_seeds(model_dir):
    sampler = Sampler(model_dir)
    whole, part = sampler.sample_group("a star", [5, 6, 7]), sampler.sample_group("a star", [6])
    assert whole.trajectory.shape == (3, 5, 4, 16, 16)
    assert len(whole.images) == 3
    assert whole.images[0].size == (128, 128)
    assert torch.allclose(whole.trajectory[1:2], part.trajectory, atol=1e-5)


def test_trajectories_come_back_from_disk(model_dir, tmp_path):
    group = Sampler(model_dir).sample_group("a star", [5, 6])
    save_trajectory(tmp_path / "a" / "g.safetensors", group, prompt="a star", version="v1")
    stored = load_trajectory(tmp_path / "a" / "g.safetensors")
    assert torch.allclose(stored.trajectory, group.trajectory, atol=1e-2)
    assert (stored.prompt, stored.version, stored.seeds) == ("a star", "v1", (5, 6))
    assert stored.sigmas.tolist() == group.sigmas.tolist()


def test_a_damaged_trajectory_is_named(tmp_path):
    path = tmp_path / "g.safetensors"
    path.write_bytes(b"not a tensor")
    with pytest.raises(ValueError, match=r"g\.safetensors"):
        load_trajectory(path)


def test_a_lora_of_another_model_is_refused(model_dir, tmp_path):
    backend = load_backend(model_dir)
    state = Roles(backend.transformer, ("to_q",), rank=4, alpha=8).state_dict(STUDENT)
    wider = {k: torch.cat([v, v], 1) if "lora_A" in k else v for k, v in state.items()}
    backend.save_lora(tmp_path, wider, rank=4, alpha=8)
    with pytest.raises(ValueError, match=r"to_q\.lora_A in .* has shape .* was it made for another model"):
        Sampler(model_dir).use_version(tmp_path)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"model_index\.json"):
        load_backend(tmp_path)


def test_related_noise_is_normal_and_shared_within_its_group_only():
    noise = related_noise(40, 4, (4, 8, 8), 0.4, torch.Generator().manual_seed(0)).unflatten(0, (40, 4)).flatten(2)
    assert noise.mean().abs() < 0.02 and abs(noise.std() - 1) < 0.02

    def correlation(a, b):
        return (a * b).mean().item()

    assert correlation(noise[:, 0], noise[:, 1]) == pytest.approx(0.6, abs=0.03)
    assert correlation(noise[:-1, 0], noise[1:, 0]) == pytest.approx(0, abs=0.03)
