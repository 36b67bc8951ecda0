"""Folders as they come: what loads, and what is missing, cut off or pickled is named before anything is made up."""

import json
import shutil

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensorMode

from common.settings import MemorySettings
from tests.trainer.backends.tiny import sd35
from trainer.backends import load_backend
from trainer.backends.memory import empty_pipeline
from trainer.sampler import Sampler, sample_latents

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    torch.manual_seed(0)
    return sd35(tmp_path_factory.mktemp("folders") / "sd35")


@pytest.fixture
def model(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def without(folder, *names):
    """The folder as published without some of its parts."""
    index = json.loads((folder / "model_index.json").read_text())
    for name in names:
        index[name] = [None, None]
        shutil.rmtree(folder / name)
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def sharded(part):
    """The part's weights in two files with an index."""
    tensors = load_file(part / WEIGHTS)
    (part / WEIGHTS).unlink()
    names = sorted(tensors)
    shards = {"00001": names[: len(names) // 2], "00002": names[len(names) // 2 :]}
    weight_map = {}
    for number, mine in shards.items():
        file = f"diffusion_pytorch_model-{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in mine}, part / file)
        weight_map |= dict.fromkeys(mine, file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (part / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def images(folder):
    sampler = Sampler(folder)
    sampler.use_version(None)
    return [image.tobytes() for image in sampler.sample_group("a red star", range(2)).images]


def test_weights_in_shards_and_in_a_variant_draw_the_same(whole, model):
    expected = images(whole)
    sharded(model / "transformer")
    assert images(model) == expected
    shutil.rmtree(model / "vae")
    shutil.copytree(whole / "vae", model / "vae")
    (model / "vae" / WEIGHTS).rename(model / "vae" / "diffusion_pytorch_model.fp16.safetensors")
    (model / "text_encoder" / "model.safetensors").rename(model / "text_encoder" / "model.fp16.safetensors")
    assert images(model) == expected
    assert (
        load_backend(model, memory=MemorySettings(text_encoders="free")).encode(["a red star"]).embeds.isfinite().all()
    )


def test_a_model_without_t5_draws_what_stock_draws(model):
    folder = without(model, "text_encoder_3", "tokenizer_3")
    backend = load_backend(folder)
    stock = StableDiffusion3Pipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)
    stock.set_progress_bar_config(disable=True)
    noise = torch.randn((1, *backend.latent_shape), generator=torch.Generator().manual_seed(0))
    theirs = stock("a red star", **backend.stock_call(4), latents=noise, output_type="latent").images
    ours = sample_latents(backend, backend.encode(["a red star"]), noise, backend.grid(4))[:, -1]
    assert (ours - theirs).abs().max() < 1e-4


def test_a_model_without_t5_is_planned(model):
    folder = without(model, "text_encoder_3", "tokenizer_3")
    pipeline = empty_pipeline(folder, MemorySettings(), FakeTensorMode(allow_non_fake_inputs=True))
    assert pipeline.text_encoder_3 is None and pipeline.text_encoder is not None


def spoil_pickled(folder):
    file = folder / "transformer" / WEIGHTS
    file.unlink()
    file.with_suffix(".bin").write_bytes(b"pickle")


def spoil_nan(folder):
    file = folder / "vae" / WEIGHTS
    tensors = load_file(file)
    tensors["decoder.conv_out.bias"][0] = float("nan")
    save_file(tensors, file)


def spoil_shard(folder):
    sharded(folder / "transformer")
    (folder / "transformer" / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()


def spoil_tokenizer(folder):
    for file in (folder / "tokenizer_3").iterdir():
        if file.name != "tokenizer_config.json":
            file.unlink()


def spoil_length(folder):
    file = folder / "text_encoder" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


FAULTS = {
    "part": (lambda folder: shutil.rmtree(folder / "text_encoder_3"), r"lists text_encoder_3 and has no folder"),
    "configuration": (lambda folder: (folder / "vae" / "config.json").unlink(), r"vae/config\.json is missing"),
    "scheduler": (
        lambda folder: (folder / "scheduler" / "scheduler_config.json").unlink(),
        r"scheduler_config\.json is",
    ),
    "weights": (lambda folder: (folder / "vae" / WEIGHTS).unlink(), r"vae has no weights"),
    "pickled": (spoil_pickled, r"\.bin is not safetensors, and reading it could run code"),
    "shard": (spoil_shard, r"00002-of-00002\.safetensors is missing"),
    "tokenizer": (spoil_tokenizer, r"tokenizer_3 has no vocabulary"),
    "length": (spoil_length, r"text_encoder/model\.safetensors has [\d,]+ of its [\d,]+ bytes"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence_for_every_reader(model, fault):
    spoil, sentence = FAULTS[fault]
    spoil(model)
    with pytest.raises(ValueError, match=sentence):
        load_backend(model)
    with pytest.raises(ValueError, match=sentence):
        load_backend(model, shapes=FakeTensorMode())


def test_weights_that_are_no_numbers_are_refused(model):
    spoil_nan(model)
    with pytest.raises(ValueError, match=r"decoder\.conv_out\.bias in .*vae is not finite"):
        load_backend(model)
