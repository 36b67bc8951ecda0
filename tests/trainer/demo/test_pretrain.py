"""Pretraining: near misses reach its data, a stopped run goes on exactly, and it can start from given weights."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from common.settings import AutoencoderSettings, PretrainSettings
from trainer.demo import latents, pretrain
from trainer.demo.autoencoder import build_autoencoder
from trainer.demo.model import DemoModelSettings

TINY = DemoModelSettings(layers=1, heads=2, head_dim=16, text_width=32, text_layers=1, second_text_width=32)
SETTINGS = PretrainSettings(steps=4, batch=4, warmup=1, shards_at_start=1, compile=False, decay_share=0.5)
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    for module in (latents, pretrain):
        monkeypatch.setattr(module, "SHARD_SIZE", 16)


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    tiny_autoencoder().save_pretrained(folder)
    return folder


def tiny_autoencoder():
    torch.manual_seed(0)
    made = build_autoencoder(AutoencoderSettings(channels=(8, 8, 8, 8), latent_channels=4))
    made.register_to_config(scaling_factor=1.2, shift_factor=0.1)
    return made.eval()


def run(vae, work, **changes):
    start = changes.pop("start", None)
    values = {**{f: getattr(SETTINGS, f) for f in SETTINGS.__dataclass_fields__}, **changes}
    pretrain.pretrain(PretrainSettings(**values), vae, work, work / "model", model=TINY, start=start)
    return load_file(work / "model" / WEIGHTS)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_stopped_run_goes_on_exactly(vae, tmp_path, monkeypatch):
    whole = run(vae, tmp_path / "whole")
    saved = []
    original = pretrain.LatentPool.batch

    def stops(pool, step, generator):
        if step == 3 and not saved:
            saved.append(step)
            raise KeyboardInterrupt
        return original(pool, step, generator)

    monkeypatch.setattr(pretrain.LatentPool, "batch", stops)
    with pytest.raises(KeyboardInterrupt):
        run(vae, tmp_path / "stopped")
    assert saved == [3]
    assert equal(run(vae, tmp_path / "stopped"), whole)


def test_it_can_start_from_given_weights(vae, tmp_path):
    first = run(vae, tmp_path / "first")
    # Hardly trained on: what it ends with is what it started from.
    again = run(vae, tmp_path / "again", start=tmp_path / "first" / "model", steps=1, lr=0.0, muon_lr=0.0)
    assert equal(first, again)


def test_near_misses_change_images_and_not_their_prompts(vae, tmp_path):
    network = tiny_autoencoder()
    right, prompts = latents.ensure_shard(tmp_path, 0, network, "hash", seed=0)
    wrong, same = latents.ensure_shard(tmp_path, 0, network, "hash", seed=0, near_misses=1.0)
    assert len(prompts) == len(same) == 16 and not torch.equal(right, wrong)
    with safe_open(tmp_path / "shard-0-1-00000.safetensors", "pt") as file:
        assert file.metadata()["vae"] == "hash"


def test_orthogonal_brings_singular_values_near_one():
    from torch.optim import _muon

    gradient = torch.randn(24, 48, generator=torch.Generator().manual_seed(0))
    coefficients = (3.4445, -4.775, 2.0315)
    for matrix in (gradient, gradient.T):
        ours = pretrain.orthogonal(matrix, coefficients, 5, 1e-7)
        assert ours.shape == matrix.shape and ours.dtype == torch.float32
        values = torch.linalg.svdvals(ours)
        assert values.min() > 0.5 and values.max() < 1.5
        if _muon._zeropower_via_newtonschulz is not pretrain.orthogonal:  # else pretraining put ours in its place
            theirs = _muon._zeropower_via_newtonschulz(matrix, coefficients, 5, 1e-7).float()
            assert (ours - theirs).abs().max() < 0.05
