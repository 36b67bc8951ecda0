"""A tiny random StableDiffusion3Pipeline, built once and saved as the folder the trainer is given."""

import pytest
import torch

from tests.trainer.rounds_helpers import groups_file, make_spec, parent, reddish  # noqa: F401 - fixtures
from trainer.backends import load_backend
from trainer.demo.autoencoder import AutoencoderSettings, build_autoencoder
from trainer.demo.model import DemoModelSettings, build_pipeline


def build_tiny_model(folder):
    """Same classes and config keys as the demo model and SD3.5, at a size that trains a step in milliseconds."""
    torch.manual_seed(0)
    vae = build_autoencoder(AutoencoderSettings(channels=(8, 8, 8, 8), latent_channels=4))
    vae.register_to_config(scaling_factor=1.2, shift_factor=0.1)
    # A random decoder's images are all but equal; louder ones differ enough to be told apart.
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(30)
    settings = DemoModelSettings(layers=2, heads=2, head_dim=16, text_width=32, text_layers=2, second_text_width=32)
    pipeline = build_pipeline(vae, settings)
    # A fresh SD3 transformer ends in zeros; random weights make its velocity depend on everything.
    for p in pipeline.transformer.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.02)
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def backend(model_dir):
    return load_backend(model_dir)
