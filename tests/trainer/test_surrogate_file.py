"""A round's surrogate is kept beside its version, and what it knows can be sampled."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.trainer.rounds_helpers import same
from trainer.backends import load_backend
from trainer.cli import main
from trainer.rounds import prepare, run
from trainer.sampler import initial_noise, sample_latents
from trainer.surrogate_file import SURROGATE_NAME, load_surrogate

PROMPTS = ["a red star", "two squares"]


@pytest.mark.parametrize("kind", ["likelihood", "head"])
def test_what_a_round_taught_its_surrogate_can_be_sampled(make_spec, reddish, model_dir, capsys, kind):
    settings = {"surrogate": kind, "updates": 1, "validation_images": 0, "head_groups": 3, "surrogate_lr": 5e-3}
    made = prepare(make_spec(settings=settings))
    run(made)
    version, sheet = Path(made.spec.output_dir), Path(made.spec.work_dir) / "grid" / "surrogate.webp"
    with Image.open(sheet) as taught, Image.open(sheet.with_name("after.webp")) as after:
        assert taught.size == after.size and taught.tobytes() != after.tobytes()

    method = load_surrogate(load_backend(model_dir), version)
    now = {name: part.state_dict() for name, part in method.surrogate_parts().items()}
    assert all(same(state, made.method.surrogate_parts()[name].state_dict()) for name, state in now.items())
    noise, conditioning = initial_noise(range(2), method.backend.latent_shape), method.backend.encode(PROMPTS)
    grid = method.backend.grid(5)
    plain = method.sample_taught(conditioning, noise, grid, guidance=3.0, strength=0.0)
    taught = method.sample_taught(conditioning, noise, grid, guidance=3.0, strength=1.0)
    method.roles.use("teacher")
    base = sample_latents(method.backend, conditioning, noise, grid, guidance=3.0)
    assert torch.allclose(plain, base, atol=0.05) and not torch.equal(plain, taught)

    command = f"evaluate --model {model_dir} --surrogate {version} --oracle jpeg --per-tag 1 --tags colors --strength 2"
    assert main(command.split()) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["model"], told["strength"]) == (str(version), 2.0)
    assert (told["steps"], told["guidance"], told["nfe"]) == (20, 4.0, 60)


def test_a_file_that_is_none_is_named(model_dir, tmp_path, capsys):
    (tmp_path / SURROGATE_NAME).write_bytes(b"nothing")
    for folder in (tmp_path, tmp_path / "none"):
        assert main(f"evaluate --model {model_dir} --surrogate {folder} --oracle jpeg --per-tag 1".split()) == 2
        assert f"surrogate: {folder / SURROGATE_NAME} cannot be read" in capsys.readouterr().err
