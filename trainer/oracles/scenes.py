"""The scene oracle: finds flat shapes classically and judges them by GenEval's rules.

Background estimate → connected components → template overlap for the shape, median colour for the colour. It is exact on
drawn scenes and strict on malformed shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

from trainer.demo.scenes.draw import shape_mask
from trainer.demo.scenes.world import COLORS, SHAPES
from trainer.oracles.base import Verdict
from trainer.oracles.geneval import Detection, by_class, judge

SPECK = 40  # pixels; smaller components are not objects
FOREGROUND = 60.0  # RGB distance from the background, 0..441
MINIMUM_IOU = 0.8  # a circle in a square's box is .785, so no shape passes for another
MOST_ASPECT = 1.3
MOST_COLOR_ERROR = 75.0  # RGB distance from the nearest named colour
FLATNESS = 0.8  # share of a shape's inside that must lie within FLAT_ERROR of its median colour
FLAT_ERROR = 45.0
MOST_EDGE = 2.5  # width in pixels of the half-covered rim; antialiased drawing has about 1

_NAMES = tuple(COLORS)
_PALETTE = np.array([COLORS[name] for name in _NAMES], float)


def background_color(pixels: np.ndarray) -> np.ndarray:
    """Median colour of the image's border, (3,)."""
    border = np.concatenate([pixels[:3].reshape(-1, 3), pixels[-3:].reshape(-1, 3), pixels[:, 0], pixels[:, -1]])
    return np.median(border, 0)


def name_color(rgb: np.ndarray) -> str | None:
    """The nearest of the eight colours, or None when none is near."""
    errors = np.linalg.norm(_PALETTE - rgb, axis=1)
    best = int(errors.argmin())
    return _NAMES[best] if errors[best] <= MOST_COLOR_ERROR else None


def best_shape(mask: np.ndarray) -> tuple[str, float]:
    """(shape, intersection over union with its template) for a component's tight boolean mask (h, w)."""
    h, w = mask.shape
    overlaps = {}
    for shape in SHAPES:
        template = shape_mask(shape, w, h)
        overlaps[shape] = (mask & template).sum() / max(1, (mask | template).sum())
    best = max(overlaps, key=overlaps.__getitem__)
    return best, float(overlaps[best])


def detect(image: Image.Image) -> list[Detection]:
    """The well-formed shapes of an image; `confidence` is the overlap with the template."""
    pixels = np.asarray(image.convert("RGB"), float)
    background = background_color(pixels)
    distance = np.linalg.norm(pixels - background, axis=2)
    labels, _ = ndimage.label(distance > FOREGROUND)
    found = []
    for index, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[rows, columns] == index
        if inside.sum() < SPECK:
            continue
        core = ndimage.binary_erosion(inside, iterations=2)
        body = pixels[rows, columns][core if core.any() else inside]
        rgb = np.median(body, 0)
        if (np.linalg.norm(body - rgb, axis=1) <= FLAT_ERROR).mean() < FLATNESS:
            continue
        # Half-covered pixels are the true edge, whatever the colour's distance from the background.
        direction = rgb - background
        cover = (pixels[rows, columns] - background) @ direction / max(1.0, direction @ direction)
        mask = inside & (cover > 0.5)
        rim = (inside & (cover > 0.15) & (cover < 0.85)).sum()
        if rim > MOST_EDGE * (mask & ~ndimage.binary_erosion(mask)).sum():
            continue
        ys, xs = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        mask = mask[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
        h, w = mask.shape
        if max(h, w) > MOST_ASPECT * min(h, w):
            continue
        shape, overlap = best_shape(mask)
        if overlap < MINIMUM_IOU:
            continue
        left, top = columns.start + xs[0], rows.start + ys[0]
        box = (float(left), float(top), float(left + w), float(top + h))
        found.append(Detection(shape, overlap, box, name_color(rgb)))
    return found


class SceneOracle:
    """GenEval on drawn scenes."""

    name = "scenes"

    def check(self, prompt: str, metadata: Mapping) -> None:
        """See `Oracle.check`."""
        if not metadata.get("include"):
            raise ValueError(f"include: prompt {prompt!r} has none; the scene oracle needs GenEval lines")

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Sequence[Mapping]
    ) -> list[Verdict]:
        """See `Oracle.score`."""
        verdicts = []
        for image, prompt, line in zip(images, prompts, metadata, strict=True):
            self.check(prompt, line)
            verdicts.append(judge(line, by_class(detect(image), threshold=0.0)))
        return verdicts
