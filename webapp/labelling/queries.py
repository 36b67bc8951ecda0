"""Reads of the labelling queue."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Count, Q
from django.utils import timezone

from webapp.campaigns.models import Project
from webapp.labelling.models import Group, GroupDecision, GroupState, Label, Outcome
from webapp.quality.models import Consensus

# A session ends after this long without a decision.
SESSION_GAP = timedelta(minutes=30)


def queue_counts(project: Project) -> dict[str, int]:
    """Groups by state, every state present."""
    counts = dict.fromkeys(GroupState.values, 0)
    counts.update(project.groups.values_list("state").annotate(n=Count("id")).order_by())
    return counts


def like_rates(project: Project) -> list[dict]:
    """By version: number, labels of people, and the share of likes. A worker's count, and the labels since it."""
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
    numbers = dict(project.versions.filter(pk__in=counts).values_list("pk", "number"))
    found = [(numbers[pk], labels, likes) for pk, (labels, likes, _) in counts.items() if labels]
    return [{"version": n, "labels": labels, "rate": likes / labels} for n, labels, likes in sorted(found)]


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


def labelled_groups(project: Project, *, versions: int = 3):
    """Groups with labels of the newest `versions` versions that have any, oldest first: the replay a round learns from."""
    labelled = Group.objects.filter(project=project, consensus__isnull=False)
    newest = [
        version.pk for version in project.versions.order_by("-number") if labelled.filter(version=version).exists()
    ]
    return labelled.filter(version__in=newest[:versions]).order_by("id").select_related("prompt", "consensus")


def rewards(group: Group) -> list[float | None]:
    """The group's rewards by position, as its consensus has them."""
    return group.consensus.rewards


def groups_with_signal_since(project: Project, since) -> int:
    """Groups labelled after `since` (all when None) whose rewards differ (`quality.consensus.has_signal`)."""
    found = Consensus.objects.filter(project=project, signal=True)
    return (found if since is None else found.filter(labelled_at__gt=since)).count()
