"""Which folder gets which backend, and what is refused with which sentence."""

import json

import pytest
import torch
from diffusers import DiffusionPipeline, EulerAncestralDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from common.settings import DistillSettings, TDMR1Settings
from tests.trainer.backends.tiny import CASES, SIZE, flux1, flux2_dev, flux2_klein, qwen_image, sd35, sdxl, z_image
from trainer.backends import FAMILIES, backend_class, load_backend
from trainer.flow import step_grid
from trainer.methods.tdm import TDM
from trainer.methods.tdm_r1 import TDMR1
from trainer.sampler import initial_noise, sample_latents


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    return z_image(tmp_path / "model")


def with_scheduler(folder, scheduler):
    scheduler.save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"][1] = type(scheduler).__name__
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_every_family_of_the_registry_has_a_case(tmp_path):
    classes = {name: backend_class(case.build(tmp_path / name)) for name, case in CASES.items()}
    assert {cls.pipeline_class.__name__ for cls in classes.values()} == set(FAMILIES)


def test_an_unknown_family_is_named_with_the_known_ones(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "LuminaPipeline"}')
    with pytest.raises(
        ValueError, match=r"LuminaPipeline is not supported; supported are StableDiffusion3Pipeline, ZImage"
    ):
        load_backend(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_broken_index_is_named(tmp_path, text):
    (tmp_path / "model_index.json").write_text(text)
    with pytest.raises(ValueError, match=r"model_index\.json does not name a pipeline class"):
        load_backend(tmp_path)


def test_a_scheduler_that_adds_noise_is_refused_with_the_fix(model, tmp_path):
    with_scheduler(model, FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True))
    with pytest.raises(ValueError, match="scheduler: stochastic_sampling adds noise at every step; set it to false"):
        load_backend(model)
    turbo = with_scheduler(sdxl(tmp_path / "turbo"), EulerAncestralDiscreteScheduler(timestep_spacing="trailing"))
    with pytest.raises(ValueError, match="EulerAncestralDiscreteScheduler is not the deterministic"):
        load_backend(turbo)
    with pytest.raises(ValueError, match="EulerAncestralDiscreteScheduler cannot be followed"):
        load_backend(with_scheduler(model, EulerAncestralDiscreteScheduler()))


@pytest.mark.parametrize(
    ("name", "value"),
    [("timestep_spacing", "leading"), ("prediction_type", "v_prediction"), ("rescale_betas_zero_snr", True)],
)
def test_sdxl_that_is_not_set_up_for_few_steps_is_refused(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"scheduler: {name} is {value!r}"):
        load_backend(sdxl(tmp_path, **{name: value}))


def test_a_bent_grid_is_refused(model):
    with_scheduler(model, FlowMatchEulerDiscreteScheduler(shift_terminal=0.1))
    with pytest.raises(ValueError, match="scheduler: shift_terminal bends the grid"):
        load_backend(model)


def test_sizes_come_from_the_model_or_its_options(tmp_path):
    assert load_backend(sd35(tmp_path / "sd35")).size == (SIZE, SIZE)
    klein = flux2_klein(tmp_path / "klein")
    assert load_backend(klein).latent_shape == (16, 4, 4)
    (klein / "likestep.json").write_text("{}")
    assert load_backend(klein).latent_shape == (16, 64, 64)  # 1024 pixels
    (klein / "likestep.json").write_text('{"size": 128}')
    backend = load_backend(klein)
    assert backend.latent_shape == (16, 8, 8)
    assert backend.stock_call(4)["width"] == 128


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"size": 100}', "size: 100 is not a multiple of 16"),
        ('{"size": -1}', "size: -1 is out of range"),
        ('{"pixels": 64}', "pixels: no such setting"),
        ("[64]", "not a JSON object"),
        ("64 pixels", r"likestep\.json"),
    ],
)
def test_wrong_options_are_named(model, text, message):
    (model / "likestep.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_backend(model)


def test_a_distilled_model_is_not_guided(tmp_path):
    backend = load_backend(flux2_klein(tmp_path / "klein", distilled=True))
    with pytest.raises(ValueError, match=r"guidance: .* set guidance to 1"):
        TDMR1(backend, TDMR1Settings())
    with pytest.raises(ValueError, match=r"rl_cfg: .* set rl_cfg to 1"):
        TDMR1(backend, TDMR1Settings(guidance=1))
    TDM(backend, DistillSettings(guidance=1, rank=2))


def test_turbo_is_told_to_be_distilled(model):
    (model / "likestep.json").write_text(json.dumps({"size": SIZE, "distilled": True}))
    with pytest.raises(ValueError, match="guidance is distilled into this model"):
        TDMR1(load_backend(model), TDMR1Settings())


def test_a_lora_of_another_family_is_refused(model, tmp_path):
    other = load_backend(sdxl(tmp_path / "sdxl"))
    other.save_lora(tmp_path / "lora", {"mid_block.to_q.lora_A.weight": torch.zeros(2, 3)}, rank=2, alpha=2)
    with pytest.raises(ValueError, match="has no LoRA of a transformer"):
        load_backend(model).load_lora(tmp_path / "lora")


@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("steps", [4, 40])
def test_dynamic_shifts_are_the_schedulers_own(tmp_path, kind, steps):
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind)
    backend = load_backend(with_scheduler(flux2_klein(tmp_path), scheduler))
    scheduler.set_timesteps(sigmas=backend.stock_call(steps)["sigmas"], mu=backend._mu(steps))
    assert torch.allclose(backend.grid(steps), scheduler.sigmas, atol=1e-6)


def test_an_installed_package_adds_a_family(tmp_path, monkeypatch):
    """By the entry point group; one that cannot be imported is named."""
    info = tmp_path / "likestep_flux-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: likestep_flux\nVersion: 1.0\n")
    lines = ("LuminaPipeline = trainer.backends.sd3:SD3Backend", "LostPipeline = likestep_flux_of_nobody:Backend")
    (info / "entry_points.txt").write_text("[likestep.backends]\n" + "\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    index = tmp_path / "model_index.json"
    index.write_text('{"_class_name": "LuminaPipeline"}')
    assert backend_class(tmp_path).__name__ == "SD3Backend"
    index.write_text('{"_class_name": "LostPipeline"}')
    with pytest.raises(ValueError, match="LostPipeline cannot be loaded from likestep_flux_of_nobody"):
        backend_class(tmp_path)


def test_sana_sprint_is_refused_with_what_it_lacks(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "SanaSprintPipeline"}')
    with pytest.raises(
        ValueError, match="SanaSprintPipeline cannot be trained: its sampler draws new noise at every step"
    ):
        load_backend(tmp_path)


def test_qwen_images_own_times_are_refused_and_lightnings_have_shift_3_at_every_size(tmp_path):
    model = qwen_image(tmp_path / "qwen")
    assert torch.allclose(load_backend(model).grid(4), step_grid(4, 3.0))
    (model / "likestep.json").write_text('{"size": 1024}')
    assert torch.allclose(load_backend(model).grid(4), step_grid(4, 3.0))
    with_scheduler(model, FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02))
    with pytest.raises(ValueError, match=r"shift_terminal bends the grid .* save the pipeline with Lightning's"):
        load_backend(model)


def test_schnell_takes_no_guidance(tmp_path):
    model, case = flux1(tmp_path / "schnell", schnell=True), CASES["flux1"]
    backend, noise = load_backend(model), initial_noise([3], (4, 8, 8))
    assert backend.distilled and torch.allclose(backend.grid(4), step_grid(4, 1.0))
    points = sample_latents(backend, backend.encode(["a star"]), noise, backend.grid(4))
    stock = DiffusionPipeline.from_pretrained(model)
    images = stock(prompt="a star", output_type="latent", **case.call(backend, noise)).images
    assert torch.allclose(points[:, -1], backend.unpack(images), atol=1e-4)


def test_embedded_guidance_is_an_option(tmp_path):
    model = flux1(tmp_path)
    assert load_backend(model).stock_call(4)["guidance_scale"] == 3.5
    (model / "likestep.json").write_text('{"size": 64, "guidance": 2.5}')
    assert load_backend(model).stock_call(4)["guidance_scale"] == 2.5


def test_a_processor_of_images_is_read_as_a_tokenizer_where_torchvision_is_missing(tmp_path):
    model = flux2_dev(tmp_path)
    plain = load_backend(model).encode(["a star"]).embeds
    index = json.loads((model / "model_index.json").read_text())
    index["tokenizer"] = ["transformers", "PixtralProcessor"]
    (model / "model_index.json").write_text(json.dumps(index))
    assert torch.equal(load_backend(model).encode(["a star"]).embeds, plain)
