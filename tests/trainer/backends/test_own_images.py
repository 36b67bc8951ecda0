"""Somebody's own images, in every family: what size they are brought to, and the trajectory that they get."""

import io
import json
import shutil

import pytest
from PIL import Image

from common import own_pictures
from tests.own_images import picture
from tests.trainer.backends.tiny import CASES
from trainer.backends import load_backend
from trainer.sampler import Sampler, load_trajectory, save_trajectory


@pytest.mark.parametrize("name", CASES)
def test_the_web_app_knows_the_size_without_the_model(name, built, tmp_path):
    folder = built(name)
    assert own_pictures.side_of(folder) == load_backend(folder).own_size[0]
    bare = shutil.copytree(folder, tmp_path / name)  # as its maker gives it
    options = bare / "likestep.json"
    if options.exists():
        values = json.loads(options.read_text())
        options.write_text(json.dumps({k: v for k, v in values.items() if k != "size"}))
    assert own_pictures.side_of(bare) == load_backend(bare).own_size[0]


@pytest.mark.parametrize("name", CASES)
def test_an_encoded_group_is_one_point(name, built, tmp_path):
    sampler = Sampler(built(name))
    images = [Image.open(io.BytesIO(picture(n, (70, 50)))) for n in range(3)]  # of another size and shape
    made = sampler.encode_group(images)
    assert made.trajectory.shape == (3, 1, *sampler.backend.latent_shape)
    save_trajectory(tmp_path / "x.safetensors", made, prompt="a star", version="")
    assert load_trajectory(tmp_path / "x.safetensors").trajectory.isfinite().all()


def test_folders_that_tell_no_size(tmp_path):
    assert own_pictures.side_of(tmp_path) is None
    for text in ("[", "[1]", '{"_class_name": "Other"}', '{"_class_name": ["x"]}'):
        (tmp_path / "model_index.json").write_text(text)
        assert own_pictures.side_of(tmp_path) is None
