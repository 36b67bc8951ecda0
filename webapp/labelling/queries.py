"""Reads of the labelling queue."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Count, Q
from django.utils import timezone

from webapp.campaigns.models import Project
from webapp.labelling.models import Group, GroupDecision, GroupState, Label, Outcome

# A session ends after this long without a decision.
SESSION_GAP = timedelta(minutes=30)


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


def session_counts(user, project: Project) -> dict[str, int]:
    """Groups and images the person decided on without a long break until now."""
    groups = images = 0
    newer = timezone.now()
    decisions = GroupDecision.objects.filter(user=user, group__project=project, outcome=Outcome.SUBMITTED)
    for created_at, size in decisions.order_by("-created_at").values_list("created_at", "group__size")[:2000]:
        if newer - created_at > SESSION_GAP:
            break
        groups, images, newer = groups + 1, images + size, created_at
    return {"groups": groups, "images": images}


def reward_of(labels: list[Label]) -> float | None:
    """The share of likes among people's labels; an oracle's score only where no person decided; None without labels."""
    people = [label.liked for label in labels if label.annotator_id is not None]
    if people:
        return sum(people) / len(people)
    scores = [label.score if label.score is not None else float(label.liked) for label in labels]
    return sum(scores) / len(scores) if scores else None


def labelled_groups(project: Project, *, versions: int = 3):
    """Groups with labels of the newest `versions` versions that have any, oldest first: the replay a round learns from."""
    labelled = Group.objects.filter(project=project, generations__labels__isnull=False)
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
    labels = Label.objects.filter(generation__group__project=project)
    if since is not None:
        labels = labels.filter(created_at__gt=since)
    per_group = labels.values("generation__group").annotate(
        likes=Count("id", filter=Q(liked=True)), dislikes=Count("id", filter=Q(liked=False))
    )
    return per_group.filter(likes__gt=0, dislikes__gt=0).count()
