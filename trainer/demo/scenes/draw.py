"""Draw scenes and words, and sample a scene that fits a prompt's metadata."""

from __future__ import annotations

import functools
import itertools
import math
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainer.demo.scenes.world import COLORS, IMAGE_SIZE, INK, SHAPES, Scene, SceneObject, WordScene
from trainer.oracles.geneval import relative_position

SUPERSAMPLE = 4
MARGIN = 3  # pixels kept free at the image's border
GAP = 5  # pixels kept free between the boxes of two objects
# Half sizes by number of objects: as large as four of them can be without crowding.
RADII = {1: (17, 28), 2: (15, 23), 3: (13, 20), 4: (12, 18)}
# Where so many objects may stand, as shares of the image's width and height, up to JITTER pixels from there. Few
# arrangements, and others for each number: what the small base draws of freely placed objects is often one too many.
ARRANGEMENTS = {
    1: (((0.5, 0.5),), ((0.35, 0.5),), ((0.65, 0.5),), ((0.5, 0.35),), ((0.5, 0.65),)),
    2: (
        ((0.25, 0.5), (0.75, 0.5)),
        ((0.5, 0.25), (0.5, 0.75)),
        ((0.27, 0.27), (0.73, 0.73)),
        ((0.27, 0.73), (0.73, 0.27)),
    ),
    3: (((0.18, 0.5), (0.5, 0.5), (0.82, 0.5)), ((0.5, 0.18), (0.5, 0.5), (0.5, 0.82))),
    4: (((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)),),
}
JITTER = 9
# A drawn relation is clearer than the oracle demands (0.5), so that ground truth never sits on the edge.
RELATION_MARGIN = 0.65


@functools.cache
def outline(shape: str) -> np.ndarray:
    """Corners of a shape's outline, (N, 2) in [-1, 1]², stretched to fill that square exactly."""
    if shape == "circle":
        a = np.linspace(0, 2 * math.pi, 64, endpoint=False)
        points = np.stack([np.cos(a), np.sin(a)], 1)
    elif shape == "square":
        points = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)
    elif shape == "triangle":
        points = np.array([(0, -1), (1, 1), (-1, 1)], float)
    elif shape == "star":
        a = np.arange(10) * math.pi / 5 - math.pi / 2
        r = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
        points = np.stack([r * np.cos(a), r * np.sin(a)], 1)
    elif shape == "cross":
        w = 0.36
        points = np.array(
            [
                (-w, -1), (w, -1), (w, -w), (1, -w), (1, w), (w, w),
                (w, 1), (-w, 1), (-w, w), (-1, w), (-1, -w), (-w, -w),
            ]
        )  # fmt: skip
    elif shape == "heart":
        a = np.linspace(0, 2 * math.pi, 80, endpoint=False)
        x = 16 * np.sin(a) ** 3
        y = -(13 * np.cos(a) - 5 * np.cos(2 * a) - 2 * np.cos(3 * a) - np.cos(4 * a))
        points = np.stack([x, y], 1)
    else:
        raise ValueError(f"shape: unknown shape {shape!r}; use one of {', '.join(SHAPES)}")
    low, high = points.min(0), points.max(0)
    return (points - low) / (high - low) * 2 - 1


@functools.cache
def shape_mask(shape: str, width: int, height: int) -> np.ndarray:
    """The shape filling a (height, width) box, as booleans; the detector's template."""
    s = SUPERSAMPLE
    image = Image.new("L", (width * s, height * s), 0)
    points = (outline(shape) + 1) / 2 * np.array([width * s, height * s])
    ImageDraw.Draw(image).polygon([tuple(p) for p in points], fill=255)
    return np.asarray(image.resize((width, height), Image.Resampling.BOX)) >= 128


def draw_scene(scene: Scene) -> Image.Image:
    """The scene as an RGB image, antialiased."""
    s = SUPERSAMPLE
    image = Image.new("RGB", (IMAGE_SIZE * s, IMAGE_SIZE * s), scene.background)
    canvas = ImageDraw.Draw(image)
    for o in scene.objects:
        points = (outline(o.shape) * o.radius + (o.x, o.y)) * s
        canvas.polygon([tuple(p) for p in points], fill=COLORS[o.color])
    return image.reduce(s)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSansMono-Bold.ttf"
    return ImageFont.truetype(str(path), size)


def draw_word(word: WordScene) -> Image.Image:
    """The word as an RGB image; the font is DejaVu Sans Mono Bold, which matplotlib's wheel ships."""
    s = SUPERSAMPLE
    image = Image.new("RGB", (IMAGE_SIZE * s, IMAGE_SIZE * s), word.background)
    ImageDraw.Draw(image).text(
        (word.x * s, word.y * s), word.text, fill=COLORS[word.color], font=_font(round(word.size * s)), anchor="mm"
    )
    return image.reduce(s)


def draw(scene: Scene | WordScene) -> Image.Image:
    """Either kind of scene as an RGB image of 128 × 128."""
    return draw_word(scene) if isinstance(scene, WordScene) else draw_scene(scene)


def _background(rng: random.Random) -> tuple[int, int, int]:
    light = rng.uniform(232, 252)
    return tuple(round(min(255, light + rng.uniform(-6, 6))) for _ in range(3))


def _clear(a: SceneObject, b: SceneObject) -> bool:
    reach = a.radius + b.radius + GAP
    return abs(a.x - b.x) >= reach or abs(a.y - b.y) >= reach


def sample_scene(metadata: dict, rng: random.Random) -> Scene | WordScene:
    """A random scene that shows just what the metadata asks for: the positions, sizes, background and every colour
    that the prompt leaves open are drawn from `rng`.

    Raises ValueError when the metadata asks for something the world does not have.
    """
    if "text" in metadata:
        return WordScene(
            text=metadata["text"],
            color=rng.choice(INK),
            x=IMAGE_SIZE / 2 + rng.uniform(-4, 4),
            y=IMAGE_SIZE / 2 + rng.uniform(-12, 12),
            size=rng.choice((42, 44, 46)) if len(metadata["text"]) <= 4 else 176 / len(metadata["text"]),
            background=_background(rng),
        )
    wanted = [(i, term) for i, term in enumerate(metadata["include"]) for _ in range(term["count"])]
    if not 1 <= len(wanted) <= max(RADII):
        raise ValueError(f"include: {len(wanted)} objects asked for; the demo world draws 1 to {max(RADII)}")
    while True:
        objects = _place(wanted, rng)
        if objects is not None and _relations_hold(metadata["include"], wanted, objects):
            return Scene(tuple(objects), _background(rng))


def _place(wanted: list[tuple[int, dict]], rng: random.Random) -> list[SceneObject] | None:
    low, high = RADII[len(wanted)]
    places = list(rng.choice(ARRANGEMENTS[len(wanted)]))
    rng.shuffle(places)
    objects = []
    for (_, term), place in zip(wanted, places, strict=True):
        r = rng.uniform(low, high)
        x, y = (_inside(IMAGE_SIZE * p + rng.uniform(-JITTER, JITTER), r) for p in place)
        objects.append(SceneObject(term["class"], term.get("color") or rng.choice(tuple(COLORS)), x, y, r))
    return objects if all(_clear(a, b) for a, b in itertools.combinations(objects, 2)) else None


def _inside(center: float, radius: float) -> float:
    return min(max(center, MARGIN + radius), IMAGE_SIZE - MARGIN - radius)


def _relations_hold(include: list[dict], wanted: list[tuple[int, dict]], objects: list[SceneObject]) -> bool:
    for (_, term), o in zip(wanted, objects, strict=True):
        if "position" not in term:
            continue
        relation, target = term["position"]
        for (j, _), other in zip(wanted, objects, strict=True):
            if j == target and relation not in relative_position(o.box, other.box, threshold=RELATION_MARGIN):
                return False
    return True
