"""Prompts that change an input image: FLUX.2 klein makes what its stock pipeline makes with `image=`, encodes each image
once, and every pass of training sees it."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from common.settings import MemorySettings, TDMR1Settings
from tests.trainer.backends.tiny import flux2_klein, sd35, unpacked
from trainer.backends import load_backend
from trainer.backends.flux2 import Flux2KleinBackend
from trainer.data import load_groups, read_groups
from trainer.methods.base import Groups
from trainer.methods.tdm_r1 import TDMR1
from trainer.prompts import Instruction, input_size, instruction, with_inputs, without_text
from trainer.roles import STUDENT, Roles
from trainer.rounds import RoundSpec, prepare, run_round
from trainer.sampler import Sampler, initial_noise, sample_latents, save_trajectory

SMALL = {"rank": 4, "alpha": 8, "guidance": 3.0, "updates": 2, "prompts_per_update": 2, "student_batch": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    return flux2_klein(tmp_path_factory.mktemp("klein"), distilled=False)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Three images: two of one size that is no multiple of 16, and a wide one."""
    root = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    for name, (width, height) in {"a": (100, 70), "b": (100, 70), "wide": (160, 64)}.items():
        pixels = np.kron(rng.integers(0, 256, (height // 5, width // 5, 3)), np.ones((5, 5, 1))).astype(np.uint8)
        Image.fromarray(pixels).resize((width, height)).save(root / f"{name}.webp", lossless=True)
    return root


@pytest.fixture
def backend(folder):
    return load_backend(folder)


def told(inputs, name="a", text="a red star"):
    return instruction(text, name, inputs)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("name", ["a", "wide"])
def test_it_walks_the_stock_pipelines_steps(folder, backend, inputs, guidance, name):
    prompt, points = told(inputs, name), []
    with backend.sized((64, 96)):
        noise = initial_noise([1, 2], backend.latent_shape)
        conditioning = backend.encode([prompt]).repeat(2)
        ours = sample_latents(backend, conditioning, noise, backend.grid(4), guidance=guidance)

        def keep(_, j, __, values):
            points.append(unpacked(values["latents"], backend, 0))
            return values

        pipeline = DiffusionPipeline.from_pretrained(folder)
        pipeline(
            prompt=[str(prompt)] * 2,
            image=prompt.read(),
            latents=noise.clone(),
            callback_on_step_end=keep,
            **backend.stock_call(4, guidance),
        )
        assert (ours[:, 1:] - torch.stack(points, 1)).abs().max() < 2e-5
        for other in (backend.encode([str(prompt)]), backend.encode([told(inputs, "b")])):
            elsewhere = sample_latents(backend, other.repeat(2), noise, backend.grid(4), guidance=guidance)
            assert (ours - elsewhere)[:, -1].abs().max() > 1e-4


def test_an_image_is_encoded_once(folder, inputs, monkeypatch):
    seen, encode = [], Flux2KleinBackend.encode_input
    monkeypatch.setattr(Flux2KleinBackend, "encode_input", lambda *a: seen.append(a) or encode(*a))
    sampler = Sampler(folder, memory=MemorySettings(vae_offload=True, half=True, micro_batch=2))
    group = sampler.sample_group(told(inputs), range(3), size=(64, 64))
    again = sampler.sample_group(told(inputs, text="a blue star"), range(3), size=(64, 64))
    assert len(seen) == 1 and not torch.equal(group.trajectory, again.trajectory)
    other = sampler.sample_group(told(inputs, "b"), range(3), size=(64, 64))
    assert len(seen) == 2 and not torch.equal(group.trajectory, other.trajectory)


def test_a_text_with_an_image_is_a_text(inputs):
    one, same, other = told(inputs), told(inputs), told(inputs, "b")
    assert one == same and hash(one) == hash(same) and one != other and one != str(one) and str(one) == "a red star"
    assert json.loads(json.dumps({"prompt": one})) == {"prompt": "a red star"}
    assert copy.deepcopy(one) == one and dataclasses.asdict(TDMR1Settings())
    assert (input_size(one), input_size("a red star")) == ((100, 70), None)
    assert without_text([one, "a"]) == [told(inputs, text=""), ""]
    lines = with_inputs([{"prompt": "a", "input_image": "a.webp"}, {"prompt": "b"}], inputs)
    assert isinstance(lines[0]["prompt"], Instruction) and lines[1] == {"prompt": "b"}


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "", 7, "none", "."])
def test_only_images_of_the_folder_are_read(inputs, name):
    with pytest.raises(ValueError, match="input_image: "):
        instruction("a", name, inputs)
    with pytest.raises(ValueError, match="no folder of inputs is given"):
        instruction("a", "a", None)


def test_what_cannot_be_changed_is_refused(backend, inputs, tmp_path):
    with pytest.raises(ValueError, match="input_image: only prompts whose input images have one size"):
        backend.encode([told(inputs), told(inputs, "wide")])
    with pytest.raises(ValueError, match="input_image: only prompts whose input images have one size"):
        backend.encode([told(inputs), "a star"])
    for name, size, said in (("small", (64, 32), "too small"), ("long", (1024, 64), "too extreme")):
        Image.new("RGB", size).save(tmp_path / f"{name}.webp")
        with pytest.raises(ValueError, match=rf"input_image: .*{said}"):
            backend.encode([told(tmp_path, name)])
    (tmp_path / "text.webp").write_text("no image")
    with pytest.raises(ValueError, match=r"input_image: .*text.webp cannot be read"):
        told(tmp_path, "text")
    with pytest.raises(ValueError, match="input_image: StableDiffusion3Pipeline makes images of prompts alone"):
        load_backend(sd35(tmp_path / "sd35")).encode([told(inputs)])


def test_every_loss_changes_with_the_image(backend, inputs):
    trainer = TDMR1(backend, TDMR1Settings(rank=4, alpha=8, guidance=3.0), bf16=False)
    torch.manual_seed(2)
    for role in trainer.roles.names:  # adapters that start at nothing say the same of every image
        for p in trainer.roles.parameters(role):
            torch.nn.init.normal_(p, std=0.1)
    before = {role: {k: v.clone() for k, v in trainer.roles.state_dict(role).items()} for role in trainer.roles.names}
    noise = initial_noise(range(4), backend.latent_shape)
    points = trainer.sample(backend.encode([told(inputs)]).repeat(4), noise)
    advantages = torch.tensor([[1.0, 1.0, -1.0, -1.0]])

    def losses(prompt):
        for role, state in before.items():
            trainer.roles.load_state_dict(role, state)
        generator = torch.Generator().manual_seed(7)
        one = backend.encode([prompt])
        found = trainer.surrogate_update(Groups(points[None], one, advantages), generator)
        return found | trainer.student_update(points, one.repeat(4), torch.arange(4), generator)

    first, again, other, none = map(losses, (told(inputs), told(inputs), told(inputs, "b"), "a red star"))
    for name in ("surrogate", "fake", "student"):
        assert first[name] == pytest.approx(again[name], rel=1e-5)
        for changed in (other[name], none[name]):
            assert abs(changed - first[name]) > 1e-5 * abs(first[name]), name


def test_a_round_learns_from_groups_of_several_images(folder, inputs, tmp_path):
    backend = load_backend(folder)
    torch.manual_seed(1)
    state = Roles(backend.transformer, backend.lora_targets, rank=4, alpha=8).state_dict(STUDENT)
    backend.save_lora(tmp_path / "parent", state, rank=4, alpha=8)
    sampler, rows = Sampler(folder), []
    for i, name in enumerate(("a", "wide", "b", None)):
        prompt = told(inputs, name) if name else "a red star"
        file = tmp_path / f"{i}.safetensors"
        save_trajectory(file, sampler.sample_group(prompt, range(4 * i, 4 * i + 4)), prompt=prompt, version="1")
        metadata = {"input_image": name} if name else {}
        row = {"group": str(i), "prompt": str(prompt), "metadata": metadata, "version": "1", "rewards": [1, 0, 1, 0]}
        rows.append(row | {"trajectory_file": file.name})
    rows.append({**rows[0], "group": "gone", "metadata": {"input_image": "gone"}})
    groups = tmp_path / "groups.jsonl"
    groups.write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = load_groups(read_groups(groups), inputs)
    assert [part.tolist() for part in store.by_size(torch.arange(4))] == [[0, 2], [1], [3]]
    assert len(store.damaged) == 1 and "gone" in store.damaged[0]
    lines = [{"prompt": "make it red", "input_image": name} for name in ("a", "b", "wide")] + [{"prompt": "a star"}]
    spec = RoundSpec(
        model_dir=str(folder),
        parent_dir=str(tmp_path / "parent"),
        work_dir=str(tmp_path / "work"),
        output_dir=str(tmp_path / "version"),
        train_prompts=lines,
        validation=lines,
        groups_file=str(groups),
        inputs=str(inputs),
        settings={**SMALL, "validation_images": 4, "surrogate_updates": 2},
    )
    result = run_round(spec)
    assert (result.steps, result.damaged_groups) == (2, 1)
    log = [json.loads(text) for text in (tmp_path / "work" / "log.jsonl").read_text().splitlines()]
    assert {"fake", "student", "surrogate"} <= set(log[-1])
    with pytest.raises(ValueError, match="no folder of inputs is given"):
        prepare(dataclasses.replace(spec, inputs=None, work_dir=str(tmp_path / "other")))
