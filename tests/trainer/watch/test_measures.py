"""Measures of images alone: each moves with what it is named after, and not with the rest."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from trainer.demo.scenes.draw import Scene, SceneObject, draw_scene
from trainer.watch.measures import MEASURES, measure_images


def scene(*objects):
    return draw_scene(Scene(tuple(SceneObject(*o) for o in objects), (240, 240, 240)))


ONE = scene(("star", "red", 40, 40, 18))
TWO = scene(("star", "red", 40, 40, 18), ("circle", "blue", 90, 90, 18))


def measure(*images, prompts=None):
    return measure_images(images, prompts or ["p"] * len(images))


@pytest.mark.parametrize(
    ("name", "spoilt"),
    [
        ("contrast", ImageEnhance.Contrast(TWO).enhance(0.4)),
        ("sharpness", TWO.filter(ImageFilter.GaussianBlur(2))),
        ("colourfulness", TWO.convert("L").convert("RGB")),
    ],
)
def test_spoilt_images_measure_less(name, spoilt):
    whole, less = measure(TWO, spoilt)[name]
    assert less < 0.6 * whole


def test_more_objects_are_not_sharper():
    one, two = measure(ONE, TWO)["sharpness"]
    assert two == pytest.approx(one, rel=0.1)


def test_diversity_is_the_distance_within_a_prompt_or_from_all():
    same = measure(ONE, ONE, TWO, prompts=["a", "a", "b"])["diversity"]
    assert same[0] == same[1] == 0 and same[2] > 0
    assert measure(ONE, TWO, prompts=["a", "b"])["diversity"].min() > 0
    assert measure(ONE)["diversity"].tolist() == [0]


def test_flat_and_grey_images_have_finite_measures():
    found = measure(Image.new("RGB", (32, 32), "white"), Image.new("L", (32, 32)))
    assert tuple(found) == MEASURES
    assert all(np.isfinite(values).all() for values in found.values())
