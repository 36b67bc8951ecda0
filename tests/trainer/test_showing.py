"""Images that are shown of those that were made: far apart, and each with the chance that is written down."""

from itertools import combinations

import numpy as np
import pytest

from trainer.showing import EVEN, choose, inclusion, likeness


@pytest.fixture
def images():
    """Six latents, of which three are nearly the same one, and opinions."""
    rng = np.random.default_rng(3)
    latents = rng.normal(size=(6, 4, 2, 2))
    latents[1] = latents[0] + 0.01 * rng.normal(size=(4, 2, 2))
    latents[2] = latents[0] + 0.01 * rng.normal(size=(4, 2, 2))
    return latents, np.array([0.0, 0.01, -0.01, 1.0, -1.0, 0.5])


def test_chances_are_those_of_all_sets(images):
    """By the definition: a set's chance is its determinant over the sum of all of that size."""
    kernel = likeness(*images)
    sets = list(combinations(range(6), 3))
    weights = np.array([np.linalg.det(kernel[np.ix_(s, s)]) for s in sets])
    expected = [weights[[i in s for s in sets]].sum() / weights.sum() for i in range(6)]
    assert inclusion(*np.linalg.eigh(kernel), 3) == pytest.approx(expected, abs=1e-9)


def test_images_are_drawn_as_often_as_their_chances_say(images):
    counts, told, times = np.zeros(6), np.zeros(6), 1500
    for n in range(times):
        shown = choose(*images, 3, np.random.default_rng(n))
        counts[list(shown.images)] += 1
        told[list(shown.images)] = shown.inclusion
    assert sum(told) == pytest.approx(3)
    assert counts / times == pytest.approx(told, abs=0.05)
    assert min(told) >= EVEN * 3 / 6
    assert told[:3].max() < told[3:].min()  # of the three that are alike one is enough


def test_a_weighted_mean_is_that_of_all_images(images):
    """Horvitz and Thompson: though chosen images are liked more often, the estimate is right in the mean."""
    liked = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    plain, weighted = [], []
    for n in range(1500):
        shown = choose(*images, 3, np.random.default_rng(n))
        found = liked[list(shown.images)]
        plain.append(found.mean())
        weighted.append((found / np.array(shown.inclusion)).sum() / 6)
    assert np.mean(weighted) == pytest.approx(0.5, abs=0.03)
    assert np.mean(plain) > 0.55


def test_the_same_noise_shows_the_same_images_and_none_is_left_out_of_few(images):
    latents, opinions = images
    assert choose(latents, None, 3, np.random.default_rng(1)) == choose(latents, None, 3, np.random.default_rng(1))
    assert choose(latents, opinions, 6, np.random.default_rng(1)).inclusion == (1.0,) * 6
    alike = choose(np.zeros((5, 4)), np.zeros(5), 2, np.random.default_rng(1))
    assert alike.inclusion == pytest.approx((0.4, 0.4))
