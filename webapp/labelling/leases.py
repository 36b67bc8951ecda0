"""Who is given which group, and for how long."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta

from django.db import connection, transaction
from django.db.models import Count, Exists, F, OuterRef, Q, Subquery, prefetch_related_objects
from django.db.models.functions import Coalesce
from django.utils import timezone

from webapp.campaigns.models import Project
from webapp.labelling.models import (
    Group,
    GroupDecision,
    GroupState,
    Lease,
)
from webapp.quality import services as quality
from webapp.quality.models import Consensus, GoldGroup

LEASE = timedelta(minutes=10)
MOST_LEASES = 4  # a person's page holds one group and prefetches two
RACES = 5  # tries before a person who lost every race is told that nothing waits


def lease_groups(user, project: Project, count: int = 1, *, rng: random.Random | None = None) -> list[Group]:
    """Up to `count` groups for a person to rate: those already leased to them first, then new leases.

    A group is never given to someone who decided on it, nor to more people than the overlap asks for. The database
    decides races: candidate rows are locked on PostgreSQL (others skip over them), and SQLite has one writer at a time.
    """
    return hold_groups(user, project, count, rng=rng)[0]


def hold_groups(
    user, project: Project, count: int, *, rng: random.Random | None = None
) -> tuple[list[Group], list[int]]:
    """`lease_groups`, and the numbers of all groups that the person holds now."""
    if project.archived_at is not None:
        return [], []
    count = min(count, MOST_LEASES)
    for _attempt in range(RACES):
        with transaction.atomic():
            now = timezone.now()
            leases = _leases(user, project, now)
            held = [lease.group_id for lease in leases]
            Lease.objects.filter(pk__in=[lease.pk for lease in leases]).update(expires_at=now + LEASE)
            # A gold group is done already, and is shown all the same.
            mine = [
                lease.group
                for lease in leases
                if not lease.decided
                and (lease.group.state == GroupState.READY or (lease.group.state == GroupState.DONE and lease.gold))
            ][:count]
            if len(mine) < count:
                new = _take(user, project, count - len(mine), now, rng or random.Random())
                mine, held = mine + new, held + [group.pk for group in new]
        if mine:
            break
    for group in mine:
        group.project = project
    prefetch_related_objects(mine, "generations")
    return mine, held


def _leases(user, project: Project, now) -> list[Lease]:
    """What the person holds, oldest first, each with its group and whether it is `decided` by them and `gold`."""
    decided = GroupDecision.objects.filter(group=OuterRef("group"), user=user)
    live = Lease.objects.filter(user=user, group__project=project, expires_at__gt=now)
    live = live.annotate(decided=Exists(decided), gold=Exists(GoldGroup.objects.filter(group=OuterRef("group"))))
    return list(live.select_related("group__prompt", "group__version").order_by("pk"))


def _counted(rows) -> Coalesce:
    """How many of `rows`, which name the outer query's group, there are."""
    counts = rows.filter(group=OuterRef("pk")).order_by().values("group").annotate(n=Count("pk")).values("n")
    return Coalesce(Subquery(counts), 0)


def _take(user, project: Project, count: int, now, rng: random.Random) -> list[Group]:
    """New leases on groups that need one more person: decisions + live leases of others < what the group needs.

    At the project's gold rate a group whose answer is known stands in for one of them, which stays in the queue.
    """
    candidates = (
        Group.objects.filter(project=project, state=GroupState.READY)
        .filter(~Exists(Lease.objects.filter(group=OuterRef("pk"), user=user, expires_at__gt=now)))
        .filter(~Exists(GroupDecision.objects.filter(group=OuterRef("pk"), user=user)))
        .annotate(taken=F("decisions") + _counted(Lease.objects.filter(expires_at__gt=now)))
        .select_related("prompt", "version")
        .order_by("id")
    )
    if project.tie_break:
        tie = Exists(Consensus.objects.filter(group=OuterRef("pk"), tie=True))
        candidates = candidates.filter(Q(taken__lt=project.overlap) | Q(tie, taken__lt=project.overlap + 1))
    else:
        candidates = candidates.filter(taken__lt=project.overlap)
    locked = candidates
    if connection.features.has_select_for_update_skip_locked:
        # Just the rows that will be taken: a row locked in vain would be skipped by somebody who could have had it.
        locked = candidates.select_for_update(skip_locked=True, of=("self",))
    groups = _need_one_more(list(locked[:count]), user, project, now)
    leases = []
    for i, group in enumerate(groups):
        gold = None
        if project.gold_rate and rng.random() < project.gold_rate:
            gold = quality.pick_gold(user, project, rng=rng)
        if gold is None:
            leases.append(Lease(group=group, user=user, expires_at=now + LEASE))
        else:  # leased at once, so that the next pick is another one
            groups[i] = gold
            Lease.objects.update_or_create(group=gold, user=user, defaults={"expires_at": now + LEASE})
    # There may be one that ran out.
    Lease.objects.bulk_create(
        leases, update_conflicts=True, unique_fields=["group", "user"], update_fields=["expires_at"]
    )
    return groups


def _need_one_more(groups: list[Group], user, project: Project, now) -> list[Group]:
    """Asked again with the rows locked: the query may have read them just before another person's lease was committed.
    Answers are counted in the row itself."""
    live = Lease.objects.filter(group__in=groups, expires_at__gt=now).exclude(user=user)
    others = Counter(live.values_list("group", flat=True))
    taken = {g.pk: g.decisions + others[g.pk] for g in groups}
    full = [pk for pk, n in taken.items() if n >= project.overlap]
    ties = set()
    if full and project.tie_break:
        ties = set(Consensus.objects.filter(group__in=full, tie=True).values_list("group", flat=True))
    return [g for g in groups if taken[g.pk] < quality.wanted(project, g.pk in ties)]


def expire_leases() -> int:
    """Delete leases that ran out; returns how many."""
    return Lease.objects.filter(expires_at__lte=timezone.now()).delete()[0]
