"""The scene oracle is exact on drawn scenes and strict on malformed ones."""

import random

import pytest
from PIL import Image, ImageFilter

from trainer.demo.scenes.draw import draw, draw_scene, sample_scene
from trainer.demo.scenes.prompts import TAGS, prompts
from trainer.demo.scenes.world import COLORS, SHAPES, Scene, SceneObject
from trainer.oracles import get_oracle
from trainer.oracles.scenes import detect

BACKGROUND = (244, 240, 246)


def score(images, rows):
    return get_oracle("scenes").score(images, [r.prompt for r in rows], [r.metadata for r in rows])


def test_ground_truth_is_judged_right():
    rng = random.Random(3)
    pool = [p for split in ("train", "test") for p in prompts(split, tags=TAGS)]
    rows = [rng.choice(pool) for _ in range(600)]
    verdicts = score([draw(sample_scene(r.metadata, rng)) for r in rows], rows)
    assert sum(v.liked for v in verdicts) / len(rows) >= 0.99
    assert sum(v.correct for v in verdicts) / len(rows) >= 0.99


def test_other_prompts_scenes_are_judged_wrong():
    rng = random.Random(4)
    pool = prompts("test", tags=("color_attr", "counting", "position"))
    rows = [rng.choice(pool) for _ in range(200)]
    images = [draw(sample_scene(r.metadata, rng)) for r in rows]
    verdicts = score(images, rows[1:] + rows[:1])
    assert sum(v.correct for v in verdicts) / len(rows) < 0.1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("color", COLORS)
def test_every_shape_and_color_is_found(shape, color):
    (found,) = detect(draw_scene(Scene((SceneObject(shape, color, 50, 70, 17),), BACKGROUND)))
    assert (found.label, found.color) == (shape, color)
    assert found.box == pytest.approx((33, 53, 67, 87), abs=1.5)


def test_a_cut_shape_is_not_found():
    image = draw_scene(Scene((SceneObject("circle", "red", 64, 64, 20),), BACKGROUND))
    image.paste(BACKGROUND, (64, 40, 90, 64))
    assert detect(image) == []


def test_touching_shapes_are_not_two_objects():
    pair = (SceneObject("square", "red", 50, 64, 15), SceneObject("square", "red", 80, 64, 15))
    assert detect(draw_scene(Scene(pair, BACKGROUND))) == []


def test_a_blurred_shape_is_not_found():
    image = draw_scene(Scene((SceneObject("star", "green", 64, 64, 15),), BACKGROUND))
    assert detect(image.filter(ImageFilter.GaussianBlur(9))) == []


def test_an_empty_image_has_no_objects():
    assert detect(Image.new("RGB", (128, 128), BACKGROUND)) == []


def test_metadata_without_objects_is_refused():
    with pytest.raises(ValueError, match="include"):
        get_oracle("scenes").score([Image.new("RGB", (128, 128))], ["x"], [{"prompt": "x"}])


def test_an_unknown_oracle_is_named():
    with pytest.raises(ValueError, match="no oracle 'taste'"):
        get_oracle("taste")
