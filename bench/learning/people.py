"""Simulated people, who like what an oracle likes and have a taste or errors of their own, for the benches of learning."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from trainer.demo.scenes.draw import RADII
from trainer.oracles.scenes import detect
from webapp.quality.consensus import UNMEASURED, Reliability, Vote, posterior

GOLD_IMAGES = 64
PRIOR_LABELS = 8  # as in webapp.quality.reliability
LARGE = 0.5  # of `Seen.size`: the larger half of what is drawn


@dataclass(frozen=True)
class Seen:
    """What somebody sees in an image: which colours are in it, and how large its shapes are. A `size` of 0 is the smallest
    that the demo's scenes have among as many objects as the prompt asks for, 1 the largest; without a shape it is 0."""

    colors: tuple[str, ...]
    size: float


def seen_in(image: Image.Image, metadata: Mapping) -> Seen:
    """What is to be seen in an image of a prompt with this GenEval line."""
    found = detect(image)
    asked = min(max(RADII), sum(term["count"] for term in metadata["include"]))
    low, high = RADII[asked]
    half = statistics.mean((d.box[2] - d.box[0] + d.box[3] - d.box[1]) / 4 for d in found) if found else low
    return Seen(tuple(sorted({d.color for d in found if d.color})), (half - low) / (high - low))


@dataclass(frozen=True)
class Person:
    """Likes right images that are to their taste, none that show the `hated` colour and, with `large`, only those whose
    shapes are in the larger half; errs with probability `noise`."""

    noise: float = 0.0
    hated: str = ""
    large: bool = False

    def fits(self, seen: Seen) -> bool:
        """Whether an image is to the person's taste, right or not."""
        return self.hated not in seen.colors and (not self.large or seen.size > LARGE)


PEOPLE = {
    "sure": (Person(0.0),),
    "one": (Person(0.1),),
    "hasty": (Person(0.2),),
    "biased": (Person(0.1, hated="green"),),
    "large": (Person(0.1, large=True),),
    "two": (Person(0.05), Person(0.3)),
}
# Whose like rate is told of every version: no green, and large shapes.
TASTES = {"no green": Person(hated="green"), "large": Person(large=True)}


def like_rates(images: Sequence[Image.Image], metadata: Sequence[Mapping], right: Sequence[bool]) -> dict[str, float]:
    """For each of `TASTES` the share of images that are right and to this taste, which the person likes, and `fits …`, the
    share to the taste, right or not."""
    seen = [seen_in(image, line) for image, line in zip(images, metadata, strict=True)]
    found = {}
    for name, person in TASTES.items():
        fits = [person.fits(s) for s in seen]
        found[name] = statistics.mean(map(float, (a and b for a, b in zip(fits, right, strict=True))))
        found[f"fits {name}"] = statistics.mean(map(float, fits))
    return found


@dataclass(frozen=True)
class RatedGroup:
    """A group with the truth about its images: what the strict oracle says, and what is to be seen in them."""

    index: int
    prompt: str
    metadata: dict
    trajectory_file: str
    liked: tuple[bool, ...]
    seen: tuple[Seen, ...]


def votes_of(people: Sequence[Person], group: RatedGroup, seed: int) -> list[list[bool]]:
    """Each person's labels of the group's images; equal seeds give equal errors, whatever else was rated."""
    found = []
    for number, person in enumerate(people):
        rng = random.Random(f"person-{seed}-{number}-{group.index}")
        pairs = zip(group.liked, group.seen, strict=True)
        found.append([(liked and person.fits(seen)) != (rng.random() < person.noise) for liked, seen in pairs])
    return found


def shares(votes: Sequence[Sequence[Sequence[bool]]]) -> list[list[float]]:
    """Votes by group, person and image → the share of likes by group and image."""
    return [[sum(said) / len(said) for said in zip(*group, strict=True)] for group in votes]


def weighed(people: Sequence[Person], votes: Sequence[Sequence[Sequence[bool]]], seed: int) -> list[list[float]]:
    """The same votes → each image's probability of being liked, people weighed by how often they were right on
    `GOLD_IMAGES` images of known answer, drawn towards the app's prior as the app does."""
    rates = []
    for number, person in enumerate(people):
        rng = random.Random(f"gold-{seed}-{number}")
        right = sum(rng.random() >= person.noise for _ in range(GOLD_IMAGES))
        rate = (right + PRIOR_LABELS * UNMEASURED) / (GOLD_IMAGES + PRIOR_LABELS)
        rates.append(Reliability(rate, rate))
    return [
        [
            posterior([Vote(said, rate) for said, rate in zip(image, rates, strict=True)])
            for image in zip(*group, strict=True)
        ]
        for group in votes
    ]
