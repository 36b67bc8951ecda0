"""Reads of the labelling queue."""

from __future__ import annotations

import statistics
from datetime import timedelta

from django.db.models import Count, Prefetch, Q, Sum
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
    Outcome,
    Preferences,
    Tally,
)
from webapp.quality import services as quality
from webapp.quality.models import Consensus, ProjectCount

LATELY = timedelta(days=14)  # work of this long ago is what forecasts are made from


def queue_counts(project: Project) -> dict[str, int]:
    """Groups by state, every state present. States that the last count of a large project found full are as it found
    them, at most a minute or so ago; the others are counted now."""
    known = _counted(project)
    full = {state: n for state, n in known.states.items() if n > quality.LARGE} if known else {}
    few = project.groups.filter(state__in=[s for s in GroupState.values if s not in full])
    return (
        dict.fromkeys(GroupState.values, 0) | full | dict(few.values_list("state").annotate(n=Count("id")).order_by())
    )


def labelled_count(project: Project) -> int:
    """Groups with labels; in a large project as of its last count."""
    known = _counted(project)
    return (
        known.labelled
        if known and known.labelled > quality.LARGE
        else Consensus.objects.filter(project=project).count()
    )


def _counted(project: Project) -> ProjectCount | None:
    return ProjectCount.objects.filter(project=project).first()


def like_rates(project: Project) -> list[dict]:
    """By version: number, labels of people, and the share of likes; without flagged groups. A worker's count, and the
    labels since it."""
    counts = {c.version_id: [c.labels, c.likes, c.counted_to] for c in project.version_counts.all()}
    counted_to = max((to for _, _, to in counts.values()), default=0)
    rows = (
        Label.objects.filter(pk__gt=counted_to, generation__group__project=project, annotator__isnull=False)
        .values_list("generation__group__version")
        .annotate(labels=Count("id"), likes=Count("id", filter=Q(liked=True)))
        .order_by()
    )
    for version, labels, likes in rows:
        known = counts.setdefault(version, [0, 0, 0])
        known[0], known[1] = known[0] + labels, known[1] + likes
    # Subtracted, not excluded: few groups are flagged, and a flag comes after the count.
    flagged = Label.objects.filter(
        generation__group__project=project, generation__group__state=GroupState.FLAGGED, annotator__isnull=False
    )
    by_version = flagged.values_list("generation__group__version").order_by()
    for version, labels, likes in by_version.annotate(n=Count("id"), likes=Count("id", filter=Q(liked=True))):
        known = counts.setdefault(version, [0, 0, 0])
        known[0], known[1] = known[0] - labels, known[1] - likes
    numbers = dict(project.versions.filter(pk__in=counts).values_list("pk", "number"))
    found = [(numbers[pk], labels, likes) for pk, (labels, likes, _) in counts.items() if labels > 0]
    return [{"version": n, "labels": labels, "rate": likes / labels} for n, labels, likes in sorted(found)]


def today(user, project: Project) -> dict[str, int]:
    """Groups and images the person submitted since midnight where they are."""
    day = timezone.localdate()
    row = Tally.objects.filter(user=user, project=project, day=day).values("groups", "images").first()
    return row or {"groups": 0, "images": 0}


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
    # The newest groups first, by an index: in a large project a join of labels reads them all.
    settled = Consensus.objects.filter(project=project, people__gt=0).order_by("-labelled_at")
    newest = list(settled.values_list("group", flat=True)[: 2 * images])
    found = Generation.objects.filter(group__in=newest, example=None).exclude(group__state=GroupState.FLAGGED)
    return list(found.select_related("group__prompt").order_by("-pk")[:images])


def labelled_groups(project: Project, *, versions: int = 3):
    """Groups with labels of the newest `versions` versions that have any, oldest first: the replay a round learns from.
    Flagged ones are left out."""
    labelled = Group.objects.filter(project=project, consensus__isnull=False).exclude(state=GroupState.FLAGGED)
    newest = [
        version.pk for version in project.versions.order_by("-number") if labelled.filter(version=version).exists()
    ]
    return labelled.filter(version__in=newest[:versions]).order_by("id").select_related("prompt", "consensus")


def rewards(group: Group) -> list[float | None]:
    """The group's rewards by position, as its consensus has them."""
    return group.consensus.rewards


def label_sources(groups) -> dict[str, int]:
    """Labels on a queryset of groups by who gave them: `people`, and each oracle by its name."""
    rows = Label.objects.filter(generation__group__in=groups.order_by().values("pk"))
    counts = rows.values_list("oracle").annotate(n=Count("id")).order_by()
    return {oracle or "people": n for oracle, n in counts}


def groups_with_signal_since(project: Project, since) -> int:
    """Groups labelled after `since` (all when None) whose rewards differ (`common.signal`); flagged ones
    are left out. All of a large project's are as of its last count."""
    known = _counted(project) if since is None else None
    return known.signal if known and known.signal > quality.LARGE else quality.signal_count(project, since)


def signal_share(project: Project) -> float | None:
    """The share of groups with signal among those labelled lately; None before any was counted. One of each kind is added
    to them, so that a few silent groups do not make it nought."""
    counts = project.quarter_counts.filter(start__gte=timezone.now() - LATELY).aggregate(
        groups=Sum("groups"), signal=Sum("signal")
    )
    return (counts["signal"] + 1) / (counts["groups"] + 2) if counts["groups"] else None
