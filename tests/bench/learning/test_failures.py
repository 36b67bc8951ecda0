"""The bench that says what is wrong with images."""

import pytest

from bench.learning.failures import kind_of
from trainer.demo.scenes.draw import Scene, SceneObject, draw_scene
from trainer.oracles.scenes import SceneOracle

LINE = {
    "tag": "two_object",
    "prompt": "a circle and a star",
    "include": [{"class": "circle", "count": 1}, {"class": "star", "count": 1}],
}
CIRCLE, STAR = SceneObject("circle", "red", 30, 30, 16), SceneObject("star", "blue", 90, 90, 18)
HEART = SceneObject("heart", "green", 90, 30, 16)


def spoiled():
    """A star whose left half is a green block."""
    image = draw_scene(Scene((CIRCLE, STAR), (240, 240, 240)))
    image.paste((20, 160, 20), (72, 76, 92, 104))
    return image


@pytest.mark.parametrize(
    ("objects", "kind"),
    [
        ((CIRCLE, STAR), "right"),
        ((CIRCLE, STAR, HEART, SceneObject("star", "red", 30, 90, 14)), "too many"),
        ((CIRCLE,), "too few"),
        ((CIRCLE, HEART), "mixed up"),
        (None, "ill-formed"),
    ],
)
def test_an_image_that_is_not_liked_is_of_one_kind(objects, kind):
    image = draw_scene(Scene(objects, (240, 240, 240))) if objects else spoiled()
    (verdict,) = SceneOracle().score([image], [LINE["prompt"]], [LINE])
    assert kind_of(image, LINE, verdict.liked) == kind
