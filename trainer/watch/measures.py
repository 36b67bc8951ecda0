"""What images look like, whatever they are rewarded for: a second opinion on a round from pixels alone.

Every measure is a number an image, so that a student's images can be compared with those its parent made from the same
noise. None knows the prompt, the labels or the oracle.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

MEASURES = ("contrast", "sharpness", "colourfulness", "diversity")
SIDE = 64  # pixels that diversity looks at; a finer look would call shifted edges different images
FLAT = 1e-3  # of 0..1; edges below this are rounding


def measure_images(images: Sequence[Image.Image], prompts: Sequence[str]) -> dict[str, np.ndarray]:
    """Every measure by name, (N,) each, for N images."""
    rows = [as_pixels(image) for image in images]
    return {
        "contrast": np.array([contrast(p) for p in rows]),
        "sharpness": np.array([sharpness(p) for p in rows]),
        "colourfulness": np.array([colourfulness(p) for p in rows]),
        "diversity": diversity([_small(image) for image in images], prompts),
    }


def as_pixels(image: Image.Image) -> np.ndarray:
    """RGB, (h, w, 3) float32 in 0..1."""
    return np.asarray(image.convert("RGB"), np.float32) / 255


def contrast(pixels: np.ndarray) -> float:
    """Standard deviation of the lightness of an image (h, w, 3) in 0..1."""
    return float(_lightness(pixels).std())


def sharpness(pixels: np.ndarray) -> float:
    """How abrupt the edges are, not how many: root mean square of the Laplacian over that of the gradient. Blur lowers it
    and grain raises it; an image with more or larger objects of the same make has the same."""
    light = _lightness(pixels)
    down, across = np.diff(light, axis=0)[:, :-1], np.diff(light, axis=1)[:-1]
    bend = 4 * light[1:-1, 1:-1] - light[:-2, 1:-1] - light[2:, 1:-1] - light[1:-1, :-2] - light[1:-1, 2:]
    slope = np.sqrt((down**2 + across**2).mean())
    return float(np.sqrt((bend**2).mean()) / max(slope, FLAT))


def colourfulness(pixels: np.ndarray) -> float:
    """Hasler and Süsstrunk's measure: spread and strength of the two opponent colours."""
    red, green, blue = np.moveaxis(pixels, -1, 0)
    opponents = np.stack([red - green, (red + green) / 2 - blue])
    return float(np.hypot(*opponents.std((1, 2))) + 0.3 * np.hypot(*opponents.mean((1, 2))))


def diversity(images: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
    """Of each image, its mean absolute distance from the others of its prompt, or from all others where its prompt has no
    second image; (N,)."""
    rows = np.stack([image.ravel() for image in images])
    found = np.zeros(len(rows))
    for i, prompt in enumerate(prompts):
        peers = [k for k, other in enumerate(prompts) if other == prompt and k != i]
        peers = peers or [k for k in range(len(rows)) if k != i]
        if peers:
            found[i] = np.abs(rows[peers] - rows[i]).mean()
    return found


def _lightness(pixels: np.ndarray) -> np.ndarray:
    return pixels @ np.array([0.299, 0.587, 0.114], np.float32)


def _small(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32) / 255
