"""Which of a group's images people are shown, where more were made than are shown: those that differ most, drawn at random
so that every image may be shown and its chance is known.

A k-DPP (Kulesza and Taskar, 2011): sets of k images are drawn in proportion to the determinant of their likeness, which
is large where they are far apart. Each image's chance to be drawn follows from the same eigenvalues, exactly. A share of
the draws is even, so that no chance falls below EVEN of an even draw's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EVEN = 0.2  # of the draws are even; no weight 1 / chance exceeds 1 / EVEN of an even draw's
RIDGE = 1e-3  # of an image's likeness to itself: images that are all alike can be drawn together too


@dataclass(frozen=True)
class Shown:
    """The images that are shown, in their order, and the chance that each had to be among them, in 0..1."""

    images: tuple[int, ...]
    inclusion: tuple[float, ...]


def choose(
    latents: np.ndarray, opinions: np.ndarray | None, count: int, rng: np.random.Generator, *, even: float = EVEN
) -> Shown:
    """`count` of the images with these latents (M, …) and the surrogate's opinions (M,), or None where there is no
    surrogate. Both count alike."""
    made = len(latents)
    if count >= made:
        return Shown(tuple(range(made)), (1.0,) * made)
    kernel = likeness(latents, opinions)
    values, vectors = np.linalg.eigh(kernel)
    values = values.clip(min=0)
    chances = even * count / made + (1 - even) * inclusion(values, vectors, count)
    evenly = rng.random() < even
    found = rng.choice(made, count, replace=False) if evenly else draw(values, vectors, count, rng)
    images = tuple(sorted(int(i) for i in found))
    return Shown(images, tuple(float(min(1.0, chances[i])) for i in images))


def likeness(latents: np.ndarray, opinions: np.ndarray | None) -> np.ndarray:
    """How alike the images are, (M, M), 1 for equal ones: `exp(-d² / mean d²)` with the squared distance d² of latents plus
    that of opinions, each over its own mean."""
    squares = _spread(np.asarray(latents, dtype=np.float64).reshape(len(latents), -1))
    if opinions is not None:
        squares = squares + _spread(np.asarray(opinions, dtype=np.float64).reshape(-1, 1))
    mean = squares.mean() or 1.0
    return np.exp(-squares / mean) + RIDGE * np.eye(len(squares))


def _spread(points: np.ndarray) -> np.ndarray:
    lengths = (points**2).sum(1)
    squares = np.maximum(lengths[:, None] + lengths[None] - 2 * points @ points.T, 0)
    np.fill_diagonal(squares, 0)
    return squares / (squares.mean() or 1.0)


def sums(values: np.ndarray, count: int) -> np.ndarray:
    """Elementary symmetric polynomials: (count + 1, M + 1), at [k, n] of degree k of the first n values."""
    found = np.zeros((count + 1, len(values) + 1))
    found[0] = 1
    for n, value in enumerate(values, start=1):
        found[1:, n] = found[1:, n - 1] + value * found[:-1, n - 1]
    return found


def inclusion(values: np.ndarray, vectors: np.ndarray, count: int) -> np.ndarray:
    """The chance (M,) of each image to be among `count` drawn ones, from the eigenvalues (M,) and eigenvectors (M, M) of
    the likeness: `Σ_n v_in² λ_n e(count - 1, without n) / e(count)`."""
    whole = sums(values, count)[count, -1]
    parts = [value * sums(np.delete(values, n), count - 1)[count - 1, -1] / whole for n, value in enumerate(values)]
    return (vectors**2) @ np.array(parts)


def draw(values: np.ndarray, vectors: np.ndarray, count: int, rng: np.random.Generator) -> list[int]:
    """`count` images: `count` eigenvectors first, then an image after the other from what is left of their space."""
    table, left, kept = sums(values, count), count, []
    for n in range(len(values), 0, -1):
        if left and rng.random() < values[n - 1] * table[left - 1, n - 1] / table[left, n]:
            kept.append(n - 1)
            left -= 1
    space, found = vectors[:, kept], []
    while space.shape[1]:
        weights = (space**2).sum(1)
        image = int(rng.choice(len(weights), p=weights / weights.sum()))
        found.append(image)
        column = int(np.abs(space[image]).argmax())
        rest = np.delete(space, column, axis=1)
        space, _ = np.linalg.qr(rest - np.outer(space[:, column] / space[image, column], rest[image]))
    return found
