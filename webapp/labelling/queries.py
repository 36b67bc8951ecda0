"""Reads of the labelling queue."""

from __future__ import annotations

import statistics
from datetime import timedelta

from django.db.models import Count, Prefetch, Q
from django.utils import timezone

from webapp.campaigns.models import Project
from webapp.labelling.models import (
    Example,
    Flag,
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


def queue_counts(project: Project) -> dict[str, int]:
    """Groups by state, every state present."""
    counts = dict.fromkeys(GroupState.values, 0)
    counts.update(project.groups.values_list("state").annotate(n=Count("id")).order_by())
    return counts


def like_rates(project: Project) -> list[dict]:
    """By version: number, labels of people, and the share of likes."""
    rows = (
        Label.objects.filter(generation__group__project=project, annotator__isnull=False)
        .values("generation__group__version__number")
        .annotate(labels=Count("id"), likes=Count("id", filter=Q(liked=True)))
        .order_by("generation__group__version__number")
    )
    return [
        {"version": r["generation__group__version__number"], "labels": r["labels"], "rate": r["likes"] / r["labels"]}
        for r in rows
    ]


def today(user, project: Project) -> dict[str, int]:
    """Groups and images the person submitted today (UTC)."""
    day = timezone.now().date()
    row = Tally.objects.filter(user=user, project=project, day=day).values("groups", "images").first()
    return row or {"groups": 0, "images": 0}


def held_groups(user, project: Project) -> list[int]:
    """Numbers of the groups that are leased to the person now."""
    leases = Lease.objects.filter(user=user, group__project=project, expires_at__gt=timezone.now())
    return list(leases.order_by("pk").values_list("group_id", flat=True))


def preferences(user) -> Preferences:
    """How the person likes to work; the defaults when they never chose."""
    return Preferences.objects.filter(user=user).first() or Preferences(user=user)


def recent_days(user, project: Project, *, days: int = 14) -> list[Tally]:
    """The person's tallies, newest first, days without work left out."""
    since = timezone.now().date() - timedelta(days=days - 1)
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


def agreement(user, project: Project, *, images: int = 500) -> dict | None:
    """How often the person's last labels equal the majority of other people's on the same image:
    `{"images": compared, "share": 0..1}`, ties left out; None when nobody else rated any of them."""
    mine = dict(
        Label.objects.filter(annotator=user, generation__group__project=project)
        .order_by("-pk")
        .values_list("generation_id", "liked")[:images]
    )
    others = (
        Label.objects.filter(generation__in=list(mine), annotator__isnull=False)
        .exclude(annotator=user)
        .values_list("generation_id")
        .annotate(likes=Count("id", filter=Q(liked=True)), dislikes=Count("id", filter=Q(liked=False)))
        .order_by()
    )
    same = [mine[generation] == (likes > dislikes) for generation, likes, dislikes in others if likes != dislikes]
    return {"images": len(same), "share": sum(same) / len(same)} if same else None


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


def examples(project: Project) -> list[Example]:
    """The images that the guidelines show, good ones first."""
    rows = Example.objects.filter(generation__group__project=project).exclude(
        generation__group__state=GroupState.FLAGGED
    )
    return list(rows.select_related("generation__group__prompt"))


def example_candidates(project: Project, *, images: int = 24) -> list[Generation]:
    """Images that people rated last and that are no example yet."""
    rated = Label.objects.filter(
        generation__group__project=project, annotator__isnull=False, generation__example=None
    ).exclude(generation__group__state=GroupState.FLAGGED)
    newest = rated.order_by("-pk").values_list("generation_id", flat=True)[: 4 * images]
    numbers = list(dict.fromkeys(newest))[:images]
    return list(Generation.objects.filter(pk__in=numbers).select_related("group__prompt").order_by("-pk"))


def reward_of(labels: list[Label]) -> float | None:
    """The share of likes among people's labels; an oracle's score only where no person decided; None without labels."""
    people = [label.liked for label in labels if label.annotator_id is not None]
    if people:
        return sum(people) / len(people)
    scores = [label.score if label.score is not None else float(label.liked) for label in labels]
    return sum(scores) / len(scores) if scores else None


def labelled_groups(project: Project, *, versions: int = 3):
    """Groups with labels of the newest `versions` versions that have any, oldest first: the replay a round learns from.
    Flagged ones are left out."""
    labelled = Group.objects.filter(project=project, generations__labels__isnull=False).exclude(
        state=GroupState.FLAGGED
    )
    newest = labelled.values_list("version__number", flat=True).distinct().order_by("-version__number")[:versions]
    return (
        labelled.filter(version__number__in=list(newest))
        .distinct()
        .order_by("id")
        .select_related("prompt", "version")
        .prefetch_related("generations__labels")
    )


def rewards(group: Group) -> list[float | None]:
    """The group's rewards by position; its generations and labels should be prefetched."""
    return [reward_of(list(g.labels.all())) for g in group.generations.all()]


def has_signal(values: list[float | None]) -> bool:
    """Whether a group's rewards differ: only then can it teach."""
    known = {v for v in values if v is not None}
    return len(known) > 1


def groups_with_signal_since(project: Project, since) -> int:
    """Groups labelled after `since` (all when None) that carry signal: some image liked and some disliked."""
    labels = Label.objects.filter(generation__group__project=project).exclude(
        generation__group__state=GroupState.FLAGGED
    )
    if since is not None:
        labels = labels.filter(created_at__gt=since)
    per_group = labels.values("generation__group").annotate(
        likes=Count("id", filter=Q(liked=True)), dislikes=Count("id", filter=Q(liked=False))
    )
    return per_group.filter(likes__gt=0, dislikes__gt=0).count()
