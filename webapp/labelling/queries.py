"""Reads of the labelling queue."""

from __future__ import annotations

import statistics
from datetime import date, timedelta

from django.db.models import Count, Exists, OuterRef, Prefetch, Q
from django.utils import timezone

from webapp.campaigns.models import Project
from webapp.labelling.models import (
    Example,
    Flag,
    FlagKind,
    Generation,
    Group,
    GroupDecision,
    GroupState,
    Label,
    Lease,
    Outcome,
    Preferences,
    Tally,
)
from webapp.lib import options
from webapp.lib.prepared import ask
from webapp.quality.models import Consensus
from webapp.quality.signal import HAS_SIGNAL

BLOCK, BLOCKS = 20, 10  # groups that a person's agreement is counted over, and how many times as many it looks at
STEP = 0.05  # of that agreement


def today(user, project: Project) -> dict[str, int]:
    """Groups and images the person submitted since midnight where they are."""
    day = timezone.localdate()
    found = ask("today", _tallies, user=user.pk, project=project.pk, day=day)
    return found[0] if found else {"groups": 0, "images": 0}


def _tallies(user: int, project: int, day: date):
    return Tally.objects.filter(user=user, project=project, day=day).values("groups", "images")


def preferences(user) -> Preferences:
    """How the person likes to work; the defaults when they never chose."""
    return Preferences.objects.filter(user=user).first() or Preferences(user=user)


def recent_days(user, project: Project, *, days: int = 14) -> list[Tally]:
    """The person's tallies, newest first, days without work left out."""
    since = timezone.localdate() - timedelta(days=days - 1)
    return list(Tally.objects.filter(user=user, project=project, day__gte=since, groups__gt=0).order_by("-day"))


def pace(user, project: Project, *, groups: int = 50) -> float | None:
    """The median seconds an image of the person's last submitted groups; None before the first."""
    rows = (
        GroupDecision.objects.filter(user=user, group__project=project, outcome=Outcome.SUBMITTED, seconds__gt=0)
        .order_by("-created_at")
        .values_list("seconds", "group__size")[:groups]
    )
    each = [seconds / size for seconds, size in rows]
    return statistics.median(each) if each else None


def agreement(user, project: Project) -> dict | None:
    """How often the person's labels equal the majority of other people's on the same image: `{"groups": compared,
    "share": 0..1}`, ties left out; None before there are `BLOCK` groups to compare.

    Nobody may find out what somebody else said of a group: only answers that cannot be taken back any more are compared,
    over whole blocks of `BLOCK` groups, and the share is told in steps of `STEP`.
    """
    final = timezone.now() - options.UNDO
    decisions = GroupDecision.objects.filter(user=user, group__project=project, outcome=Outcome.SUBMITTED)
    decisions = decisions.filter(created_at__lt=final).order_by("pk")
    last = decisions.count() // BLOCK * BLOCK
    groups = list(decisions.values_list("group", flat=True)[max(0, last - BLOCK * BLOCKS) : last])
    known = Label.objects.filter(generation__group__in=groups, annotator__isnull=False, created_at__lt=final)
    mine = dict(known.filter(annotator=user).values_list("generation", "liked"))
    others = (
        known.exclude(annotator=user)
        .values_list("generation__group", "generation")
        .annotate(likes=Count("id", filter=Q(liked=True)), dislikes=Count("id", filter=Q(liked=False)))
        .order_by()
    )
    same: dict[int, list[bool]] = {}
    for group, generation, likes, dislikes in others:
        if likes != dislikes and generation in mine:
            same.setdefault(group, []).append(mine[generation] == (likes > dislikes))
    compared = [group for group in groups if group in same]
    compared = compared[: len(compared) // BLOCK * BLOCK]
    words = [word for group in compared for word in same[group]]
    return {"groups": len(compared), "share": round(sum(words) / len(words) / STEP) * STEP} if words else None


def flagged_groups(project: Project):
    """Groups with flags that nobody has looked at, oldest first, with those flags as `open_flags`."""
    waiting = Flag.objects.filter(resolved_at=None).select_related("user", "generation").order_by("pk")
    return (
        Group.objects.filter(project=project, flags__in=Flag.objects.filter(resolved_at=None))
        .distinct()
        .order_by("pk")
        .select_related("prompt", "version", "project")
        .prefetch_related("generations", Prefetch("flags", queryset=waiting, to_attr="open_flags"))
    )


def examples(project: Project):
    """The images that the guidelines show, good ones first."""
    rows = Example.objects.filter(generation__group__project=project)
    rows = rows.exclude(generation__group__state=GroupState.FLAGGED).exclude(Exists(unsafe("generation__group")))
    return rows.select_related("generation__group__prompt")


def unsafe(group: str):
    """Flags of the outer query's `group` that call it unsafe, which no reviewer has found wrong."""
    flags = Flag.objects.filter(group=OuterRef(group), kind=FlagKind.UNSAFE)
    return flags.filter(Q(restored=None) | Q(restored=False))


def task_image(user, project: Project, task: str, position: int) -> Generation | None:
    """An image of the group that this person knows by that name, unless it is flagged as unsafe."""
    mine = Lease.objects.filter(Lease.named(task), group=OuterRef("group"), user=user)
    rows = Generation.objects.filter(Exists(mine), group__project=project, position=position)
    return rows.exclude(Exists(unsafe("group"))).first()


def example_candidates(project: Project, *, images: int = 24) -> list[Generation]:
    """Images that people rated last and that are no example yet."""
    # The newest groups first, by an index: in a large project a join of labels reads them all.
    settled = Consensus.objects.filter(project=project, people__gt=0).order_by("-labelled_at")
    newest = list(settled.values_list("group", flat=True)[: 2 * images])
    found = Generation.objects.filter(group__in=newest, example=None).exclude(group__state=GroupState.FLAGGED)
    return list(found.select_related("group__prompt").order_by("-pk")[:images])


def labelled_groups(project: Project, *, versions: int = 3):
    """Groups with labels of the newest `versions` versions that have any, and all of own images, oldest first: the replay a
    round learns from. Flagged ones are left out."""
    labelled = Group.objects.filter(project=project, consensus__isnull=False).exclude(state=GroupState.FLAGGED)
    newest = [
        version.pk for version in project.versions.order_by("-number") if labelled.filter(version=version).exists()
    ]
    chosen = labelled.filter(Q(version__in=newest[:versions]) | Q(version__isnull=True))
    return chosen.order_by("id").select_related("prompt", "consensus")


def own_with_signal(project: Project) -> int:
    """Labelled groups of own images whose rewards differ."""
    rows = Consensus.objects.filter(HAS_SIGNAL, project=project, group__version=None)
    return rows.exclude(group__state=GroupState.FLAGGED).count()


def rewards(group: Group) -> list[float | None]:
    """The group's rewards by position, as its consensus has them."""
    return group.consensus.rewards


def inclusions(groups) -> dict[int, list[float]]:
    """By those of the groups (rows or numbers) of which more images were made than shown: each shown image's chance to be
    chosen, by position."""
    chosen = Generation.objects.filter(group__in=groups, group__made__gt=0).order_by("group", "position")
    found: dict[int, list[float]] = {}
    for group, inclusion in chosen.values_list("group", "inclusion"):
        found.setdefault(group, []).append(inclusion)
    return found


def people_of(groups) -> int:
    """How many people labelled images of a queryset of groups."""
    rows = Label.objects.filter(generation__group__in=groups.order_by().values("pk"), annotator__isnull=False)
    return rows.aggregate(n=Count("annotator", distinct=True))["n"]


def label_sources(groups) -> dict[str, int]:
    """Labels on a queryset of groups by who gave them: `people`, and each oracle by its name."""
    rows = Label.objects.filter(generation__group__in=groups.order_by().values("pk"))
    counts = rows.values_list("oracle").annotate(n=Count("id")).order_by()
    return {oracle or "people": n for oracle, n in counts}
