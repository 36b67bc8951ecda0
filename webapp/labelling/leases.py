"""Who is given which group, and for how long."""

from __future__ import annotations

import random
import re
from collections import Counter
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import Count, Exists, F, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext as _

from webapp.campaigns.models import Project
from webapp.labelling.errors import NotGiven, Stopped
from webapp.labelling.models import Generation, Group, GroupDecision, GroupState, Lease
from webapp.lib import options
from webapp.lib.prepared import ask, ask_for, insert, keep_related
from webapp.quality import services as quality
from webapp.quality.asking import Asking
from webapp.quality.models import Consensus, GoldGroup
from webapp.quality.needing import more, more_by
from webapp.raters import gate

RENEWED = 0.9  # of a lease's time: one that has more left stays as it is
TASK = re.compile("[0-9a-f]{32}")


def lease_groups(user, project: Project, count: int = 1, *, rng: random.Random | None = None) -> list[Group]:
    """Up to `count` groups for a person to rate: those already leased to them first, then new leases. Each has `task`, the
    name that this person knows it by.

    A group is never given to someone who decided on it, nor to more people than the overlap asks for. The database
    decides races: candidate rows are locked on PostgreSQL (others skip over them), and SQLite has one writer at a time.
    """
    return hold_groups(user, project, count, rng=rng)[0]


def hold_groups(
    user, project: Project, count: int, *, rng: random.Random | None = None
) -> tuple[list[Group], list[str]]:
    """`lease_groups`, and the tasks of all groups that the person holds now. Raises Stopped."""
    if project.archived_at is not None:
        return [], []
    if stop := gate.find_stop(user, project):
        raise Stopped(stop.said)
    most = min(count, options.HELD_AT_ONCE)
    for _attempt in range(options.RACES):
        with transaction.atomic():
            count = min(most, gate.room(user, project))
            now = timezone.now()
            undecided = _undecided(user, project)
            live = [lease for lease in undecided if lease.expires_at > now]
            held = [lease.name for lease in live]
            if old := [lease.pk for lease in live if lease.expires_at < now + RENEWED * options.LEASE]:
                Lease.objects.filter(pk__in=old).set_end(now + options.LEASE)
            mine = [_group(lease) for lease in live if _is_shown(lease)][:count]
            if len(mine) < count:
                lapsed = [lease for lease in undecided if lease.expires_at <= now and _is_shown(lease)]
                new = _take_back(lapsed, user, project, count - len(mine), now)
                new += _take(user, project, count - len(mine) - len(new), now, rng or random.Random())
                mine, held = mine + new, held + [group.task for group in new]
        if mine:
            break
    images: dict[int, list[Generation]] = {group.pk: [] for group in mine}
    for image in ask_for("images", _images, list(images)) if mine else ():
        images[image.group_id].append(image)
    for group in mine:
        group.project = project
        keep_related(group, "generations", images[group.pk])
    return mine, held


def _images(groups: list[int]):
    return Generation.objects.filter(group__in=groups)


def task_name(user_id: int, group_id: int) -> str:
    """The name by which a person knows a group: the same one each time, and nobody else can tell which group it is."""
    return salted_hmac("webapp.labelling.leases", f"{user_id} {group_id}", algorithm="sha256").hexdigest()[:32]


def group_of(user, project: Project, task: str) -> int:
    """The number of the group that this person knows by that name. Raises LabellingError when they never had it."""
    if re.fullmatch(TASK, task):
        found = ask("group of", _named_rows, task=task, user=user.pk, project=project.pk)
    else:  # a page of the version before there were names
        mine = Lease.objects.filter(Lease.named(task), user=user, group__project=project)
        found = mine.values_list("group", flat=True)[:1]
    if not found:
        raise NotGiven(_("group: it is not there to be rated; ask for the next group"))
    return found[0]


def _named_rows(task: str, user: int, project: int):
    return Lease.objects.filter(task=task, user=user, group__project=project).values_list("group", flat=True)[:1]


def give(user, group_id: int, *, lasts: bool) -> str:
    """Note that the person has the group, for `options.LEASE` (`lasts`) or from before; returns its task."""
    until = timezone.now() + (options.LEASE if lasts else timedelta())
    values = {"expires_at": until, "decided": False}
    new = {**values, "task": task_name(user.pk, group_id)}
    lease, _new = Lease.objects.update_or_create(group_id=group_id, user=user, defaults=values, create_defaults=new)
    return lease.name


def end_leases(group: Group) -> None:
    """Nobody has the group on screen any more."""
    now = timezone.now()
    group.leases.filter(expires_at__gt=now).set_end(now)


def _undecided(user, project: Project) -> list[Lease]:
    """What the person was given and has not decided on, oldest first, each with its group and whether it is `gold`."""
    return ask("undecided", _undecided_rows, user=user.pk, project=project.pk)


def _undecided_rows(user: int, project: int):
    rows = Lease.objects.filter(user=user, decided=False, group__project=project)
    rows = rows.annotate(gold=Exists(GoldGroup.objects.filter(group=OuterRef("group"), active=True)))
    return rows.select_related("group__prompt").order_by("pk")


def _is_shown(lease: Lease) -> bool:
    """A gold group is done already, and is shown all the same."""
    return lease.group.state == GroupState.READY or (lease.group.state == GroupState.DONE and lease.gold)


def _group(lease: Lease) -> Group:
    lease.group.task = lease.name
    return lease.group


def _take_back(lapsed: list[Lease], user, project: Project, count: int, now) -> list[Group]:
    """Groups that the person had before the lease ran out, if they still need one more; gold ones as any other."""
    if not lapsed:
        return []
    ordinary = _candidates(user.pk, project.pk, now, more(Asking.of(project)))
    ordinary = _locked(ordinary.filter(pk__in=[v.group_id for v in lapsed if not v.gold]))
    free = {group.pk for group in _need_one_more(list(ordinary), user, project, now)}
    again = [lease for lease in lapsed if lease.gold or lease.group_id in free][:count]
    Lease.objects.filter(pk__in=[lease.pk for lease in again]).set_end(now + options.LEASE)
    return [_group(lease) for lease in again]


def _counted(rows) -> Coalesce:
    """How many of `rows`, which name the outer query's group, there are."""
    counts = rows.filter(group=OuterRef("pk")).order_by().values("group").annotate(n=Count("pk")).values("n")
    return Coalesce(Subquery(counts), 0)


def _candidates(user: int, project: int, now: datetime, more: Q):
    """Groups that need one more person, who is not this one yet: decisions + live leases < what the group needs."""
    return (
        Group.objects.filter(project=project, state=GroupState.READY)
        .filter(~Exists(Lease.objects.filter(group=OuterRef("pk"), user=user, expires_at__gt=now)))
        .filter(~Exists(GroupDecision.objects.filter(group=OuterRef("pk"), user=user)))
        .annotate(taken=F("decisions") + _counted(Lease.objects.filter(expires_at__gt=now)))
        .filter(more)
        .select_related("prompt")
        .order_by("id")
    )


def _locked(candidates):
    """The rows are locked where the database can skip over those that others have locked."""
    if connection.features.has_select_for_update_skip_locked:
        return candidates.select_for_update(skip_locked=True, of=("self",))
    return candidates


def _take(user, project: Project, count: int, now, rng: random.Random) -> list[Group]:
    """New leases on groups that need one more person.

    At the project's gold rate a group whose answer is known stands in for one of them, which stays in the queue. Whether
    one does changes neither the queries nor the order of the rows: a person could tell it by the time or the order.
    """
    if count <= 0:
        return []
    # Just the rows that will be taken are locked: one locked in vain would be skipped by somebody who could have had it.
    asking = Asking.of(project)
    form = asking.ranged, asking.tie_break
    numbers = {"least": asking.least, "most": asking.most, "sure": asking.sure}
    if not asking.ranged:  # then the query asks for no other
        numbers = {"least": asking.least}

    def needing(user: int, project: int, now: datetime, least: int, most: int = 0, sure: float = 0.0):
        asked = more_by(*form, least=least, most=most, sure=sure)
        return _locked(_candidates(user, project, now, asked))[:count]

    candidates = ask(("candidates", *form, count), needing, user=user.pk, project=project.pk, now=now, **numbers)
    groups = _need_one_more(candidates, user, project, now)
    if project.gold_rate:
        gold = quality.pick_gold(user, project, count, rng=rng)
        groups = [gold.pop() if gold and rng.random() < project.gold_rate else group for group in groups]
    for group in groups:
        group.task = task_name(user.pk, group.pk)
    # There may be one that ran out.
    new = [Lease(group_id=g.pk, user_id=user.pk, task=g.task, expires_at=now + options.LEASE) for g in groups]
    insert(new, over=["group", "user"], replaced=["expires_at", "task"])
    return groups


def _others(groups: list[int], user: int, now: datetime):
    return Lease.objects.filter(group__in=groups, expires_at__gt=now).exclude(user=user).values_list("group", flat=True)


def _need_one_more(groups: list[Group], user, project: Project, now) -> list[Group]:
    """Asked again with the rows locked: the query may have read them just before another person's lease was committed.
    Answers are counted in the row itself."""
    ids = [group.pk for group in groups]
    others = Counter(ask_for("others", _others, ids, user=user.pk, now=now)) if ids else Counter()
    taken = {g.pk: g.decisions + others[g.pk] for g in groups}
    asking = Asking.of(project)
    full = [pk for pk, n in taken.items() if n >= asking.least]
    known = {}
    if full and (asking.tie_break or asking.ranged):
        rows = Consensus.objects.filter(group__in=full).values_list("group", "tie", "certainty")
        known = {pk: (tie, certainty) for pk, tie, certainty in rows}
    return [g for g in groups if taken[g.pk] < asking.wanted(g.decisions, *known.get(g.pk, ()))]
