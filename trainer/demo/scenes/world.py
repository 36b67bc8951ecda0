"""What exists in the demo world: shapes, colours, counts, relations, and a scene made of them.

All lengths are pixels of a 128 × 128 image, x to the right and y downwards.
"""

from __future__ import annotations

from dataclasses import dataclass

IMAGE_SIZE = 128

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart")
PLURALS = {s: s + ("es" if s == "cross" else "s") for s in SHAPES}

COLORS = {
    "red": (214, 39, 40),
    "orange": (255, 140, 0),
    "yellow": (245, 215, 30),
    "green": (44, 160, 44),
    "blue": (31, 90, 220),
    "purple": (128, 50, 170),
    "pink": (255, 130, 185),
    "black": (20, 20, 20),
}

NUMBERS = {2: "two", 3: "three", 4: "four"}
RELATIONS = ("left of", "right of", "above", "below")
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

# Colours dark enough for text to keep its contrast on a light background.
INK = ("black", "blue", "red", "purple", "green")


@dataclass(frozen=True)
class SceneObject:
    """One flat shape: `radius` is half the side of the square that bounds it."""

    shape: str
    color: str
    x: float
    y: float
    radius: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in pixels."""
        return self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius


@dataclass(frozen=True)
class Scene:
    """Shapes on a background colour (RGB, 0..255)."""

    objects: tuple[SceneObject, ...]
    background: tuple[int, int, int]


@dataclass(frozen=True)
class WordScene:
    """A short word in `INK` colour; `x`, `y` is the centre of the text and `size` the font's em in pixels."""

    text: str
    color: str
    x: float
    y: float
    size: float
    background: tuple[int, int, int]
