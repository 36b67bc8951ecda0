"""Every family's export: the stock pipeline draws the trainer's images from the LoRA and from merged weights."""

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from common.cards import LORA_NAME, Base, lineage, model_card
from trainer.export import export_lora, export_merged
from trainer.roles import STUDENT, Roles
from trainer.sampler import initial_noise, sample_latents

PROMPT = "a red star"


@pytest.mark.parametrize("merged", [False, True])
def test_an_export_draws_the_trainers_images(family, backend, tmp_path, merged):
    roles = Roles(backend.transformer, backend.lora_targets, rank=4, alpha=8, roles=(STUDENT,))
    noise = initial_noise([3], backend.latent_shape)
    bare = sample_latents(backend, backend.encode([PROMPT]), noise, backend.grid(4))[:, -1]
    torch.manual_seed(3)
    for p in roles.parameters(STUDENT):
        torch.nn.init.normal_(p, std=0.15)
    roles.use(STUDENT)
    ours = sample_latents(backend, backend.encode([PROMPT]), noise, backend.grid(4))[:, -1]
    assert (ours - bare).abs().max() > 0.01
    backend.save_lora(tmp_path / "version", roles.state_dict(STUDENT), rank=4, alpha=8)
    folder = family[1]
    if merged:
        pipeline = DiffusionPipeline.from_pretrained(export_merged(folder, tmp_path / "version", tmp_path / "out"))
        options = folder / "likestep.json"
        if options.exists():  # so that the merged folder can be a project's model
            assert (tmp_path / "out" / "likestep.json").read_bytes() == options.read_bytes()
    else:
        file = export_lora(folder, tmp_path / "version", tmp_path / "out")
        pipeline = DiffusionPipeline.from_pretrained(folder)
        pipeline.load_lora_weights(file.parent, weight_name=LORA_NAME)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline(prompt=PROMPT, output_type="np", **family[0].call(backend, noise)).images[0]
    wanted = np.asarray(backend.decode(ours)[0], float) / 255
    assert float((np.abs(image - wanted) - 0.5 / 255).max()) < 1e-3


def test_the_cards_call_is_the_backends_own(family, backend, tmp_path):
    """What README.md tells people to type walks the steps that the student was trained on."""
    card = model_card("x", Base.of(family[1]), lineage(tmp_path))
    code = card.split("image = pipe(\n")[1].split(").images")[0]
    told = eval(f"dict({code.split(',', 1)[1]})")
    wanted = backend.stock_call(4, 1.0)
    if wanted.get("max_sequence_length") in (256, 512):
        del wanted["max_sequence_length"]  # diffusers' own defaults
    if not (family[1] / "likestep.json").exists():
        del wanted["height"], wanted["width"]
    assert told == wanted
