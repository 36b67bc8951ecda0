"""What saves memory changes nothing but memory: same embeddings, same gradients, same images."""

import dataclasses
import gc
import random
import shutil
import weakref

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from common.settings import MemorySettings, SettingsError, TDMR1Settings
from trainer.backends import load_backend
from trainer.backends.memory import compile_blocks, compiled_rows, encoders_identity
from trainer.cli import MODEL
from trainer.demo.latents import encode as encode_images
from trainer.demo.scenes.draw import draw, sample_scene
from trainer.demo.scenes.prompts import prompts
from trainer.methods.base import Groups
from trainer.methods.tdm_r1 import TDMR1
from trainer.roles import FAKE, STUDENT, SURROGATE, TDM_R1_ROLES, TEACHER, Roles
from trainer.rounds import prepare, run, run_round

PROMPTS = ["a star", "a red heart", "two blue squares"]


def encoders(backend):
    names = ("text_encoder", "text_encoder_2", "text_encoder_3")
    return [e for name in names if (e := getattr(backend.pipeline, name)) is not None]


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.tensors().values(), two.tensors().values(), strict=True))


def pixels(images):
    return np.stack([np.asarray(i, dtype=float) for i in images])


def noise(backend, count, seed=0):
    return torch.randn((count, *backend.latent_shape), generator=torch.Generator().manual_seed(seed))


# Text encoders


@pytest.mark.parametrize("half", [False, True])
def test_embeddings_are_computed_once_and_read_from_the_folder_without_encoders(model_dir, tmp_path, half):
    memory = MemorySettings(embeddings=str(tmp_path), half=half)
    first = load_backend(model_dir, memory=memory)
    made = first.encode(PROMPTS)
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}
    assert len(kept) == 3
    second = load_backend(model_dir, memory=MemorySettings(embeddings=str(tmp_path), half=half, text_encoders="free"))
    second.inner.encode = None  # whoever computes an embedding fails
    assert encoders(second) == []
    assert same(second.encode([*PROMPTS, "a star"]), first.encode([*PROMPTS, "a star"])) and len(made) == 3
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")} == kept


def test_an_embedding_does_not_depend_on_the_prompts_beside_it():
    # On some CPUs it would by a rounding, and a resumed round, which encodes other prompts together, would not be exact.
    alone, together = load_backend(MODEL), load_backend(MODEL)
    company = together.encode(["a green cross", *PROMPTS, "a pink heart"])
    for i, prompt in enumerate(PROMPTS, start=1):
        assert same(alone.encode([prompt]).row(0), company.row(i))


def test_freed_encoders_leave_nothing_in_memory_and_come_back_for_a_new_prompt(model_dir):
    stock = load_backend(model_dir).encode(PROMPTS)
    backend = load_backend(model_dir, memory=MemorySettings(text_encoders="free"))
    assert encoders(backend) == []
    with backend._encoders_at_work():
        parameters = [weakref.ref(p) for e in encoders(backend) for p in e.parameters()]
        assert len(parameters) > 30
    gc.collect()
    assert encoders(backend) == [] and not any(p() is not None for p in parameters)
    assert same(backend.encode(PROMPTS), stock)
    assert encoders(backend) == []


def test_offloaded_encoders_and_vae_are_on_the_device_only_while_they_work(model_dir):
    backend = load_backend(model_dir, memory=MemorySettings(text_encoders="offload", vae_offload=True))
    moves = []
    for name in ("transformer", "vae", "text_encoder"):
        part = getattr(backend.pipeline, name)
        part.to = lambda where, name=name, to=part.to: moves.append((name, str(where))) or to(where)
    backend.device = torch.device("cpu", 0)  # a name of its own for the device; the machine's memory is "cpu"
    backend.encode(["a star"])
    assert moves == [
        ("transformer", "cpu"),
        ("text_encoder", "cpu:0"),
        ("text_encoder", "cpu"),
        ("transformer", "cpu:0"),
    ]
    moves.clear()
    backend.encode(["a star"])
    assert moves == []
    backend.decode(noise(backend, 1))
    assert moves == [("vae", "cpu:0"), ("vae", "cpu")]


def test_a_damaged_embedding_is_computed_again(model_dir, tmp_path):
    memory = MemorySettings(embeddings=str(tmp_path))
    good = load_backend(model_dir, memory=memory).encode(["a star"])
    (file,) = tmp_path.rglob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert same(load_backend(model_dir, memory=memory).encode(["a star"]), good)
    assert file.read_bytes() == whole


def test_other_encoders_have_other_embeddings(model_dir, tmp_path):
    changed = tmp_path / "model"
    shutil.copytree(model_dir, changed)
    memory = MemorySettings()
    assert encoders_identity(changed, memory) == encoders_identity(model_dir, memory)
    assert encoders_identity(changed, MemorySettings(half=True)) != encoders_identity(model_dir, memory)
    weights = changed / "text_encoder_2" / "model.safetensors"
    tensors = load_file(weights)
    save_file({k: v + 1e-3 for k, v in tensors.items()}, weights, metadata={"format": "pt"})
    assert encoders_identity(changed, memory) != encoders_identity(model_dir, memory)


def test_a_round_needs_its_encoders_only_before_the_first_update(model_dir, make_spec, reddish, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(model_dir, copy)
    thrifty = {"text_encoders": "free", "embeddings": str(tmp_path / "embeddings")}
    thrifty |= {"micro_batch": 5, "checkpointing": True, "vae_batch": 1, "vae_tiling": True, "vae_offload": True}
    made = prepare(make_spec(model_dir=str(copy), memory=thrifty))
    for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        shutil.rmtree(copy / name)
    result = run(made)
    assert result.steps == 4 and result.scores_after["reward"] > 0
    with pytest.raises(SettingsError, match="micro_batch: -1 is out of range; use 0 to 4096"):
        run_round(make_spec(memory={"micro_batch": -1}))


# The transformer


def gradients(model_dir, memory, *, recompute=None):
    """Every role's first gradient of a surrogate and a student update, by name, in fp32."""
    settings = TDMR1Settings(rank=4, alpha=8)
    trainer = TDMR1(load_backend(model_dir, memory=memory), settings, bf16=False)
    if recompute:
        trainer.backend.recompute = recompute
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for role in TDM_R1_ROLES:  # roles that differ, so that a pass under the wrong one is found
            for p in trainer.roles.parameters(role):
                p.add_(torch.randn(p.shape, generator=generator) * 0.05)
    found = {}
    for role in (SURROGATE, FAKE, STUDENT):
        step = trainer.optimizers[role].step

        def record(role=role, step=step):
            found[role] = torch.cat([p.grad.flatten() for p in trainer.roles.parameters(role)])
            step()

        trainer.optimizers[role].step = record
    size = 4
    conditioning = trainer.backend.encode(PROMPTS)
    trajectory = trainer.sample(conditioning.repeat(size), noise(trainer.backend, 12))
    advantages = torch.tensor([[1.0, -1.0, 0.5, -0.5]] * 3)
    trainer.surrogate_update(Groups(trajectory.unflatten(0, (3, size)), conditioning, advantages), generator)
    trainer.student_update(trajectory, conditioning.repeat(size), torch.arange(12) % 4, generator)
    return found


@pytest.fixture(scope="module")
def plain_gradients(model_dir):
    return gradients(model_dir, MemorySettings())


def apart(one, two):
    """Largest relative distance of two roles' gradients."""
    return max(((one[role] - two[role]).norm() / two[role].norm()).item() for role in two)


@pytest.mark.parametrize(
    "options", [{"checkpointing": True}, {"micro_batch": 5}, {"checkpointing": True, "micro_batch": 1}]
)
def test_recomputing_gives_the_same_gradients(model_dir, plain_gradients, options):
    assert apart(gradients(model_dir, MemorySettings(**options)), plain_gradients) < 1e-4


def test_recomputing_without_regard_to_roles_would_not(model_dir, plain_gradients):
    def torchs_own(function, *arguments):
        return torch.utils.checkpoint.checkpoint(function, *arguments, use_reentrant=False)

    wrong = gradients(model_dir, MemorySettings(micro_batch=5), recompute=torchs_own)
    assert apart(wrong, plain_gradients) > 0.1


def test_bf16_is_for_frozen_parts_only_and_follows_fp32(model_dir):
    exact, half = (load_backend(model_dir, memory=MemorySettings(half=h)) for h in (False, True))
    assert {p.dtype for p in half.transformer.parameters()} == {torch.bfloat16}
    assert {p.dtype for e in encoders(half) for p in e.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in half.pipeline.vae.parameters()} == {torch.float32}
    x, t = noise(half, 3), torch.tensor([1.0, 0.6, 0.2])
    with torch.no_grad():
        one, two = (b.velocity(x, t, b.encode(PROMPTS)) for b in (exact, half))
    assert two.dtype == torch.float32 and (one - two).norm() < 0.02 * one.norm()
    trainer = TDMR1(half, TDMR1Settings(rank=4, alpha=8))
    assert {p.dtype for role in TDM_R1_ROLES for p in trainer.roles.parameters(role)} == {torch.float32}
    before = trainer.roles.state_dict(STUDENT)
    conditioning = half.encode(PROMPTS)
    metrics = trainer.student_update(
        trainer.sample(conditioning, x), conditioning, torch.tensor([0, 1, 2]), torch.Generator().manual_seed(0)
    )
    assert all(np.isfinite(v) for v in metrics.values())
    assert any(not torch.equal(v, before[k]) for k, v in trainer.roles.state_dict(STUDENT).items())


def test_compiled_blocks_follow_the_role(model_dir):
    backend = load_backend(model_dir)
    # As with the setting, whose own compiler would take a minute.
    backend.memory = dataclasses.replace(backend.memory, compile=True)
    roles = Roles(backend.transformer, backend.lora_targets, rank=4, alpha=8)
    for p in roles.parameters(STUDENT):
        torch.nn.init.normal_(p, std=0.1)
    x, t, conditioning = noise(backend, 2), torch.tensor([0.9, 0.3]), backend.encode(PROMPTS[:2])

    def velocities():
        made = {}
        for role in (TEACHER, STUDENT, FAKE):
            roles.use(role)
            with torch.no_grad():
                made[role] = backend.velocity(x, t, conditioning)
        return made

    plain = velocities()
    assert compile_blocks(backend.transformer, backend="eager") == 2
    compiled = velocities()
    assert all(torch.allclose(compiled[role], plain[role], atol=1e-5) for role in plain)
    assert (plain[STUDENT] - plain[TEACHER]).abs().max() > 1e-2
    with pytest.raises(ValueError, match="compile: Linear does not name its repeated blocks; turn it off"):
        compile_blocks(torch.nn.Linear(1, 1))


def test_a_compiled_pass_has_one_of_few_sizes(model_dir):
    assert {compiled_rows(n) for n in range(65, 129)} == {80, 96, 112, 128}
    assert all(n <= compiled_rows(n) <= max(n, 1.25 * n) for n in range(1, 300))
    backend, sizes = load_backend(model_dir), []
    backend.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    x, t, conditioning = noise(backend, 9), torch.linspace(0.1, 1, 9), backend.encode(["a star"] * 9)
    with torch.no_grad():
        plain = backend.velocity(x, t, conditioning)
        backend.memory = dataclasses.replace(backend.memory, compile=True)
        filled = backend.velocity(x, t, conditioning)
    assert sizes == [9, 10] and torch.allclose(filled, plain, atol=1e-5)


# The VAE


def test_the_vae_decodes_as_many_at_once_as_it_may(model_dir):
    backend = load_backend(model_dir)
    latents = noise(backend, 5)
    whole = pixels(backend.decode(latents))
    backend = load_backend(model_dir, memory=MemorySettings(vae_batch=2))
    seen = []
    backend.pipeline.vae.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
    assert np.abs(pixels(backend.decode(latents)) - whole).max() <= 1  # of 255
    assert [shape[0] for shape in seen] == [2, 2, 1]


def test_tiles_are_half_an_image_and_change_it_little():
    """On the demo model: the seams of a random decoder's tiles say nothing about those of a trained one."""
    backend = load_backend(MODEL)
    scenes = [draw(sample_scene(prompts("train")[i].metadata, random.Random(0))) for i in (0, 500)]
    latents = encode_images(backend.pipeline.vae, scenes)
    whole = pixels(backend.decode(latents))
    backend = load_backend(MODEL, memory=MemorySettings(vae_tiling=True))
    seen = []
    backend.pipeline.vae.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[-1]))
    tiled = pixels(backend.decode(latents))
    assert len(seen) > 1 and max(seen) == backend.latent_shape[-1] // 2
    assert (
        tiled.shape == whole.shape and np.abs(tiled - whole).mean() < 10
    )  # of 255; brightness moves most, since tiles are normalised one by one
