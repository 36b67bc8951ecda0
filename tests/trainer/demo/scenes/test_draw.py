"""Drawing: sizes, no overlap, and only what was asked for."""

import random

import pytest

from trainer.demo.scenes.draw import ARRANGEMENTS, JITTER, draw, outline, sample_scene
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


def test_each_number_of_objects_has_arrangements_of_its_own():
    rng, seen = random.Random(0), set()
    for p in prompts("train", tags=("single_object", "counting", "position"))[:250]:
        objects = sample_scene(p.metadata, rng).objects
        number = len(objects)
        fitting = [(number, k) for k, places in enumerate(ARRANGEMENTS[number]) if _stand_at(places, objects)]
        assert fitting
        seen.update(fitting)
    assert seen == {(number, k) for number, choices in ARRANGEMENTS.items() for k in range(len(choices))}


def _stand_at(places, objects) -> bool:
    """Whether each object is near a place of its own; what is large is moved into the image."""
    near = [
        next((k for k, (x, y) in enumerate(places) if max(abs(o.x - 128 * x), abs(o.y - 128 * y)) <= JITTER + 1), None)
        for o in objects
    ]
    return sorted(k for k in near if k is not None) == list(range(len(objects)))


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
