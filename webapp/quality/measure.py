"""How far people agree and how reliable each is. Slow and heavy on memory: for a worker, never for a request."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass

from django.db.models import Count, Q

from webapp.campaigns.models import Project
from webapp.labelling.models import GroupDecision, Label, Outcome
from webapp.quality import reliability

MOST_LABELS = 200_000  # of the newest images that more than one person rated
HASTY = 0.25  # seconds an image, below which nobody has looked


@dataclass
class Person:
    """What was found about one annotator; see `models.PersonQuality` for the meaning of each field."""

    user_id: int
    groups: int = 0
    labels: int = 0
    likes: int = 0
    seconds_per_image: float | None = None
    shared: int = 0
    agreement: float | None = None
    bias: float | None = None
    like_accuracy: float | None = None
    dislike_accuracy: float | None = None
    hasty: int = 0


@dataclass(frozen=True)
class Measured:
    """A project's people, Krippendorff's alpha (None while no image was rated twice) and the share of liked images."""

    people: list[Person]
    alpha: float | None
    prior: float
    shared: int


def measure(project: Project) -> Measured:
    """Counts from the database; agreement, alpha and Dawid-Skene's rates from the images with more than one rater."""
    people = {
        row["annotator"]: Person(row["annotator"], labels=row["n"], likes=row["likes"])
        for row in Label.objects.filter(generation__group__project=project, annotator__isnull=False)
        .values("annotator")
        .annotate(n=Count("id"), likes=Count("id", filter=Q(liked=True)))
    }
    _paces(project, people)
    rows = shared_labels(project)
    _agreement(rows, people)
    alpha, prior = None, 0.5
    if rows:
        fitted = reliability.fit(rows)
        alpha, prior = fitted.alpha, fitted.prior
        for user, rates in fitted.rates.items():
            people[user].like_accuracy, people[user].dislike_accuracy = rates.like, rates.dislike
    return Measured(sorted(people.values(), key=lambda p: p.user_id), alpha, prior, len(rows))


def shared_labels(project: Project) -> list[tuple[int, int, bool]]:
    """(image, person, liked) of the newest images that more than one person rated."""
    images = (
        Label.objects.filter(generation__group__project=project, annotator__isnull=False)
        .filter(generation__group__consensus__people__gt=1)
        .values("generation")
        .annotate(n=Count("id"))
        .filter(n__gt=1)
        .order_by("-generation")
        .values_list("generation", "n")
    )
    chosen, total = [], 0
    for image, n in images.iterator(chunk_size=5000):
        total += n
        if total > MOST_LABELS:
            break
        chosen.append(image)
    rows: list[tuple[int, int, bool]] = []
    for start in range(0, len(chosen), 5000):
        part = Label.objects.filter(generation__in=chosen[start : start + 5000], annotator__isnull=False)
        rows += part.values_list("generation_id", "annotator_id", "liked").order_by("generation_id", "annotator_id")
    return rows


def _paces(project: Project, people: dict[int, Person]) -> None:
    paces: dict[int, list[float]] = defaultdict(list)
    decisions = GroupDecision.objects.filter(group__project=project, outcome=Outcome.SUBMITTED, seconds__gt=0)
    for user, seconds, size in decisions.values_list("user", "seconds", "group__size").iterator(chunk_size=5000):
        paces[user].append(seconds / size)
    counted = GroupDecision.objects.filter(group__project=project, outcome=Outcome.SUBMITTED)
    for user, n in counted.values_list("user").annotate(n=Count("id")):
        if user in people:
            people[user].groups = n
    for user, values in paces.items():
        if user in people:
            people[user].seconds_per_image = statistics.median(values)
            people[user].hasty = sum(v < HASTY for v in values)


def _agreement(rows: list[tuple[int, int, bool]], people: dict[int, Person]) -> None:
    """Each label against the majority of the others; an even split of the others says nothing."""
    by_image: dict[int, list[tuple[int, bool]]] = defaultdict(list)
    for image, user, liked in rows:
        by_image[image].append((user, liked))
    same, asked = defaultdict(int), defaultdict(int)
    own, others = defaultdict(float), defaultdict(float)
    for votes in by_image.values():
        likes = sum(liked for _, liked in votes)
        for user, liked in votes:
            people[user].shared += 1
            rest_likes, rest = likes - liked, len(votes) - 1
            own[user] += liked
            others[user] += rest_likes / rest
            if 2 * rest_likes != rest:
                asked[user] += 1
                same[user] += liked == (2 * rest_likes > rest)
    for user, person in people.items():
        if person.shared:
            person.bias = (own[user] - others[user]) / person.shared
        if asked[user]:
            person.agreement = same[user] / asked[user]
