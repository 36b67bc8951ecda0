"""Labelled groups as plain records, read in chunks: memory does not grow with the number of groups."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from django.db.models import Exists, OuterRef

from common.signal import has_signal
from webapp.campaigns.models import Project
from webapp.exports.identity import pseudonym
from webapp.labelling.models import Generation, Group, GroupDecision, GroupState, Label
from webapp.quality.models import Consensus
from webapp.quality.signal import GROUP_HAS_SIGNAL

CHUNK = 200  # groups in memory at once
OWN = 0  # in place of a version's number: images that somebody brought in
MOST_COUNTED = 10_000  # a page that says how many there are reads no more


@dataclass(frozen=True)
class Filter:
    """Which labels go out; None is no limit, OWN as `version` own images. `since` is included, `until` is not; both are
    moments of labels."""

    version: int | None = None
    split: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    annotator: int | None = None  # their id in the database
    signal: bool = False

    @property
    def part(self) -> bool:
        """Whether labels of a group may be left out, so that the stored consensus is not theirs."""
        return self.since is not None or self.until is not None or self.annotator is not None


@dataclass(frozen=True)
class LabelRecord:
    """One like or dislike; a person's has `annotator` (who they are in exports), an oracle's `oracle`."""

    annotator: str
    oracle: str
    liked: bool
    score: float | None
    reason: str
    box: list[float] | None  # of a dislike: left, top, width, height as shares of the image
    created_at: datetime


@dataclass(frozen=True)
class ImageRecord:
    """One image; `file` is relative to the data folder, `inclusion` the chance that it had to be shown of those made, and
    `reward` what its labels come to (None: undecided)."""

    id: int
    position: int
    seed: int | None
    file: str
    width: int
    height: int
    inclusion: float
    reward: float | None
    labels: list[LabelRecord] = field(default_factory=list)


@dataclass(frozen=True)
class GroupRecord:
    """A group with all that is known of how it came about: own images, whose `origin` is "imported", have no version, seed
    or steps. `seconds` has each annotator's time."""

    id: int
    project: str
    prompt: str
    metadata: dict
    input_image: str  # digest; empty: none
    split: str
    origin: str
    version: int | None
    version_sha256: str | None
    steps: int | None
    created_at: datetime
    seconds: dict[str, float]
    images: list[ImageRecord]

    def annotators(self) -> list[str]:
        """The people who labelled it, in order."""
        return sorted({v.annotator for i in self.images for v in i.labels if v.annotator})


def count(project: Project, chosen: Filter) -> int:
    """How many groups the filter lets through, `MOST_COUNTED` + 1 when there are more than `MOST_COUNTED`."""
    if chosen.signal and chosen.part:
        return sum(1 for _group in itertools.islice(records(project, chosen), MOST_COUNTED + 1))
    return _groups(project, chosen)[: MOST_COUNTED + 1].count()


def records(project: Project, chosen: Filter) -> Iterator[GroupRecord]:
    """The labelled groups that the filter lets through, in order of id, each with the labels it lets through. Whether a
    group has signal is asked of the rewards that go out."""
    last = 0
    while True:
        groups = list(
            _groups(project, chosen).filter(pk__gt=last).order_by("pk").select_related("prompt", "version")[:CHUNK]
        )
        if not groups:
            return
        found = _chunk(project, groups, chosen)
        yield from (g for g in found if has_signal([i.reward for i in g.images])) if chosen.signal else found
        last = groups[-1].pk


def records_of(project: Project, chosen: Iterable[tuple[int, Collection[int]]]) -> Iterator[GroupRecord]:
    """These groups in their order, each with those of its images whose positions are named, and all their labels."""
    chosen = iter(chosen)
    while wanted := dict(itertools.islice(chosen, CHUNK)):
        rows = Group.objects.filter(pk__in=wanted).select_related("prompt", "version")
        found = {group.pk: group for group in rows}
        for record in _chunk(project, [found[pk] for pk in wanted if pk in found], Filter()):
            yield replace(record, images=[i for i in record.images if i.position in wanted[record.id]])


def _labels(chosen: Filter):
    labels = Label.objects.all()
    if chosen.since is not None:
        labels = labels.filter(created_at__gte=chosen.since)
    if chosen.until is not None:
        labels = labels.filter(created_at__lt=chosen.until)
    if chosen.annotator is not None:
        labels = labels.filter(annotator=chosen.annotator)
    return labels


def _groups(project: Project, chosen: Filter):
    groups = Group.objects.filter(project=project, consensus__isnull=False).exclude(state=GroupState.FLAGGED)
    if chosen.signal and not chosen.part:
        groups = groups.filter(GROUP_HAS_SIGNAL)
    if chosen.version == OWN:
        groups = groups.filter(version=None)
    elif chosen.version is not None:
        groups = groups.filter(version__number=chosen.version)
    if chosen.split is not None:
        groups = groups.filter(prompt__split=chosen.split)
    if chosen.part:
        groups = groups.filter(Exists(_labels(chosen).filter(generation__group=OuterRef("pk"))))
    return groups


def _chunk(project: Project, groups: list[Group], chosen: Filter) -> Iterator[GroupRecord]:
    ids = [g.pk for g in groups]
    labels: dict[int, list[LabelRecord]] = {}
    rows = _labels(chosen).filter(generation__group__in=ids).order_by("id")
    for v in rows:
        who = pseudonym(project, v.annotator_id) if v.annotator_id is not None else ""
        found = LabelRecord(who, v.oracle, v.liked, v.score, v.reason, v.box, v.created_at)
        labels.setdefault(v.generation_id, []).append(found)
    seconds: dict[int, dict[str, float]] = {}
    for group, user, spent in GroupDecision.objects.filter(group__in=ids).values_list("group", "user", "seconds"):
        seconds.setdefault(group, {})[pseudonym(project, user)] = spent
    images: dict[int, list[Generation]] = {}
    for g in Generation.objects.filter(group__in=ids).order_by("position"):
        images.setdefault(g.group_id, []).append(g)
    rewards = dict(Consensus.objects.filter(group__in=ids).values_list("group", "rewards"))
    for group in groups:
        kept = rewards.get(group.pk) or [None] * group.size
        yield GroupRecord(
            id=group.pk,
            project=project.slug,
            prompt=group.prompt.text,
            metadata=group.prompt.metadata,
            input_image=group.input_image,
            split=group.prompt.split,
            origin="imported" if group.is_own else "generated",
            version=None if group.is_own else group.version.number,
            version_sha256=None if group.is_own else group.version.sha256,
            steps=None if group.is_own else project.steps,
            created_at=group.created_at,
            seconds=seconds.get(group.pk, {}),
            images=[
                ImageRecord(
                    id=g.pk,
                    position=g.position,
                    seed=g.seed,
                    file=g.image,
                    width=g.width,
                    height=g.height,
                    inclusion=g.inclusion,
                    reward=_share(labels.get(g.pk, [])) if chosen.part else kept[g.position],
                    labels=labels.get(g.pk, []),
                )
                for g in images.get(group.pk, [])
            ],
        )


def _share(labels: list[LabelRecord]) -> float | None:
    """The share of likes among the chosen labels; people's word before oracles'."""
    people = [v.liked for v in labels if v.annotator]
    if people:
        return sum(people) / len(people)
    scores = [float(v.liked) if v.score is None else v.score for v in labels]
    return sum(scores) / len(scores) if scores else None
