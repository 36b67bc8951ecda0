"""Every image with its labels, newest first, found by what an admin remembers of it.

A request looks at no more than `MOST` groups, whatever is asked for: numbers of candidates come in order from the narrowest
index, everything else is asked of those alone. Where nothing more was found among so many, the page offers to look further
back. What is flagged is not here: the page of flags shows it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, F, Q

from webapp.campaigns.models import Project
from webapp.labelling.models import Generation, Group, GroupDecision, GroupState, Label, Outcome
from webapp.quality.models import Consensus

IMAGES = 48  # of a page, up to the end of a group
WINDOWS = (100, 400, 1500)  # candidates that are looked at together: few at first, since most pages need no more
MOST = 10_000
SKEW = timedelta(hours=1)  # between the moments that transactions note and the numbers that they give
FEW_PROMPTS = 300  # whose groups are found by the prompt
OWN = 0  # in place of a version's number of row: images that somebody brought in
SHOWN = (GroupState.READY, GroupState.DONE, GroupState.SUPERSEDED)
LIKED, DISLIKED, UNDECIDED = "liked", "disliked", "undecided"


@dataclass(frozen=True)
class Wanted:
    """What is looked for; empty values limit nothing. `since` is included, `until` is not: moments of a group's newest
    label. A verdict is what an image's labels come to; with a `person` it is theirs. Version (or OWN) and person are
    numbers of rows."""

    version: int | None = None
    text: str = ""
    tag: str = ""
    verdict: str = ""
    person: int | None = None
    disagree: bool = False
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Match:
    """A group with the positions of those of its images that are wanted."""

    group: int
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Shown:
    """An image of the page: with its group, what its labels come to (None: undecided) and the labels."""

    image: Generation
    group: Group
    reward: float | None
    labels: list[Label]


@dataclass(frozen=True)
class Page:
    """Images, and the group's number that the next page goes on below: None at the end. `looked` groups were looked at, and
    `full` says whether the page ends since it is full."""

    images: list[Shown]
    next: int | None
    looked: int
    full: bool


def page(project: Project, wanted: Wanted, before: int | None = None) -> Page:
    """The newest wanted images of groups below the number `before`."""
    found, images, looked, last, ended = [], 0, 0, before, True
    for window, matches in _windows(project, wanted, before):
        for match in matches:
            if images >= IMAGES:
                break
            found.append(match)
            images += len(match.positions)
            last = match.group
        looked += len(window)
        if images >= IMAGES:
            ended = False
            break
        last = window[-1]
        if looked >= MOST:
            ended = False
            break
    return Page(_load(found), None if ended else last, looked, images >= IMAGES)


def matches(project: Project, wanted: Wanted) -> Iterator[Match]:
    """Everything that is wanted, newest first, for an export."""
    for _window, found in _windows(project, wanted, None):
        yield from found


def _windows(project: Project, wanted: Wanted, before: int | None) -> Iterator[tuple[list[int], list[Match]]]:
    prompts = _prompts(project, wanted)
    if prompts is not None and not prompts:
        return
    if before is None and wanted.until is not None:
        before = _made_after(project, wanted.until)
    candidates, key = _candidates(project, wanted, prompts)
    for turn in itertools.count():
        size = WINDOWS[min(turn, len(WINDOWS) - 1)]
        rows = candidates if before is None else candidates.filter(**{f"{key}__lt": before})
        window = list(rows.order_by(f"-{key}").values_list(key, flat=True)[:size])
        if not window:
            return
        yield window, _matches(project, wanted, prompts, window)
        if len(window) < size:
            return
        before = window[-1]


def _made_after(project: Project, moment: datetime) -> int | None:
    """The number of a group from which on all were made after the moment, so that none of these was labelled before it;
    None without one. Found by halving: groups are numbered as they are made, give or take `SKEW`."""
    rows = project.groups.order_by("pk").values_list("pk", "created_at")
    newest, low = rows.last(), 0
    if newest is None or newest[1] <= moment + SKEW:
        return None
    high = newest[0]
    while high - low > 1:
        middle = (low + high) // 2
        number, made = rows.filter(pk__gte=middle)[0]
        if made > moment + SKEW:
            high = middle
        else:
            low = number
    return high


def _prompts(project: Project, wanted: Wanted) -> list[int] | None:
    """The prompts that text and tag leave; None where neither is given."""
    if not wanted.text and not wanted.tag:
        return None
    rows = project.prompts.all()
    if wanted.text:
        rows = rows.filter(text__icontains=wanted.text)
    if wanted.tag:
        rows = rows.filter(metadata__tag=wanted.tag)
    return list(rows.values_list("pk", flat=True))


def _candidates(project: Project, wanted: Wanted, prompts: list[int] | None):
    """Rows whose `key` numbers the groups to look at, by the index that leaves the fewest."""
    if wanted.person is not None:
        rows = GroupDecision.objects.filter(user=wanted.person, outcome=Outcome.SUBMITTED, group__project=project)
        return rows, "group"
    if wanted.disagree:
        return Consensus.objects.filter(project=project, people__gt=1), "group"
    if prompts is not None and len(prompts) <= FEW_PROMPTS:
        return Group.objects.filter(prompt__in=prompts), "id"
    if wanted.version == OWN:
        return Group.objects.filter(project=project, version=None), "id"
    if wanted.version is not None:
        return Group.objects.filter(version=wanted.version), "id"
    return Group.objects.filter(project=project), "id"


def _matches(project: Project, wanted: Wanted, prompts: list[int] | None, window: list[int]) -> list[Match]:
    rows = Group.objects.filter(pk__in=window, project=project, state__in=SHOWN)
    if wanted.version is not None:
        rows = rows.filter(version=wanted.version or None)
    if wanted.since is not None:
        rows = rows.filter(consensus__labelled_at__gte=wanted.since)
    if wanted.until is not None:
        rows = rows.filter(consensus__labelled_at__lt=wanted.until)
    found = list(rows.order_by("-pk").values_list("pk", "size", "prompt", "consensus__rewards"))
    if prompts is not None:
        known = set(prompts)
        found = [row for row in found if row[2] in known]
    ids = [pk for pk, *_ in found]
    allowed = None  # (group, position) of single labels that are asked for
    if wanted.disagree:
        allowed = _disagreed(ids)
    if wanted.person is not None and wanted.verdict in (LIKED, DISLIKED):
        labels = Label.objects.filter(generation__group__in=ids, annotator=wanted.person)
        theirs = set(
            labels.filter(liked=wanted.verdict == LIKED).values_list("generation__group", "generation__position")
        )
        allowed = theirs if allowed is None else allowed & theirs
    verdict = "" if wanted.person is not None and wanted.verdict != UNDECIDED else wanted.verdict
    matched = []
    for pk, size, _prompt, rewards in found:
        rewards = rewards or [None] * size
        positions = tuple(
            n
            for n, reward in enumerate(rewards)
            if (allowed is None or (pk, n) in allowed) and (not verdict or _verdict(reward) == verdict)
        )
        if positions:
            matched.append(Match(pk, positions))
    return matched


def _verdict(reward: float | None) -> str:
    if reward is None or reward == 0.5:
        return UNDECIDED
    return LIKED if reward > 0.5 else DISLIKED


def _disagreed(groups: list[int]) -> set[tuple[int, int]]:
    """Images that some people like and others dislike."""
    people = Label.objects.filter(generation__group__in=groups, annotator__isnull=False)
    counted = people.values_list("generation__group", "generation__position").annotate(
        n=Count("id"), likes=Count("id", filter=Q(liked=True))
    )
    return {(group, position) for group, position, *_ in counted.filter(likes__gt=0, likes__lt=F("n")).order_by()}


def _load(found: list[Match]) -> list[Shown]:
    wanted = {match.group: match.positions for match in found}
    rows = Group.objects.filter(pk__in=wanted).order_by("-pk").select_related("prompt", "version", "consensus")
    shown = []
    for group in rows.prefetch_related("generations__labels__annotator"):
        rewards = group.consensus.rewards if hasattr(group, "consensus") else [None] * group.size
        for image in group.generations.all():
            if image.position in wanted[group.pk]:
                labels = sorted(image.labels.all(), key=lambda label: (label.annotator_id is None, label.pk))
                shown.append(Shown(image, group, rewards[image.position], labels))
    return shown


def newest(project: Project) -> list[Shown]:
    """The images of the group that was labelled last; before there is one, of the newest that is there to look at."""
    there = project.groups.filter(state__in=SHOWN)
    labelled = (
        Consensus.objects.filter(project=project, group__state__in=SHOWN).order_by("-labelled_at").values_list("group")
    )
    row = there.filter(pk__in=[pk for (pk,) in labelled[:1]]).first() or there.order_by("-pk").first()
    return _load([Match(row.pk, tuple(range(row.size)))]) if row else []
