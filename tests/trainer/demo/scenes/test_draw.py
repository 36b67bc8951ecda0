"""Drawing: sizes, no overlap, and only what was asked for."""

import random

import pytest

from trainer.demo.scenes.draw import draw, outline, sample_scene
from trainer.demo.scenes.prompts import prompts, word_prompt
from trainer.demo.scenes.world import SHAPES


@pytest.mark.parametrize("shape", SHAPES)
def test_outlines_fill_their_box(shape):
    points = outline(shape)
    assert points.min(0) == pytest.approx([-1, -1])
    assert points.max(0) == pytest.approx([1, 1])


def test_objects_keep_apart_and_inside():
    rng = random.Random(0)
    for p in prompts("train", tags=("counting", "color_attr"))[:300]:
        objects = sample_scene(p.metadata, rng).objects
        for i, a in enumerate(objects):
            assert min(a.box) >= 0 and max(a.box) <= 128
            for b in objects[:i]:
                assert abs(a.x - b.x) > a.radius + b.radius or abs(a.y - b.y) > a.radius + b.radius


def test_the_same_seed_draws_the_same_image():
    p = prompts("train", tags=("position",))[0]
    first, second = (draw(sample_scene(p.metadata, random.Random(7))) for _ in range(2))
    assert first.size == (128, 128)
    assert first.tobytes() == second.tobytes()


def test_words_fit_the_image():
    image = draw(sample_scene(word_prompt("WWWW").metadata, random.Random(0)))
    border = {image.getpixel((x, 64)) for x in (0, 1, 126, 127)}
    assert len(border) == 1


def test_too_many_objects_are_refused():
    with pytest.raises(ValueError, match="include: 5 objects"):
        sample_scene({"include": [{"class": "star", "count": 5}]}, random.Random(0))
