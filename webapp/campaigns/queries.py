"""Reads of projects and what they are made from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta

from django.conf import settings
from django.db.models import Exists, Max, OuterRef, Q, QuerySet, Sum
from django.utils import timezone
from django.utils.translation import gettext as _

from webapp.accounts.models import User
from webapp.accounts.permissions import administered_by
from webapp.campaigns.models import LabelSource, Project
from webapp.labelling.models import Group, GroupState, Label, Lease, Tally

SHIPPED = "shipped"


def models_for(user) -> dict[str, tuple[str, str, str]]:
    """What a person may start a project from: value → (label, model folder, student folder).

    The shipped model, and the published version of each project they are an admin of. Nobody types a folder's name, so
    that no one can make the workers read a folder that no project of theirs uses; the Django admin has that for
    superusers.
    """
    found = {
        SHIPPED: (_("The shipped demo model"), str(settings.LIKESTEP_MODEL_DIR), str(settings.LIKESTEP_STUDENT_DIR))
    }
    for project in administered_by(user).select_related("active_version").exclude(active_version=None):
        version = project.active_version
        found[str(version.pk)] = (
            _("%(name)s, version %(n)s") % {"name": project.name, "n": version.number},
            project.model_dir,
            version.path,
        )
    return found


@dataclass(frozen=True)
class Activity:
    """What somebody did in a project: groups in all and in the last seven days, the last day, and whether they have groups
    on screen now."""

    groups: int = 0
    week: int = 0
    last: date | None = None
    now: bool = False


def activity(project: Project, users: Collection[int]) -> dict[int, Activity]:
    """By person, of these people; everybody is there."""
    since = timezone.localdate() - timedelta(days=6)
    tallies = Tally.objects.filter(project=project, user__in=users).values("user").order_by()
    done = tallies.annotate(all=Sum("groups"), week=Sum("groups", filter=Q(day__gte=since)), last=Max("day"))
    holding = Lease.objects.filter(user__in=users, group__project=project, expires_at__gt=timezone.now(), decided=False)
    now = set(holding.values_list("user", flat=True))
    of = {row["user"]: row for row in done}
    found = {}
    for user in users:
        row = of.get(user, {})
        found[user] = Activity(row.get("all") or 0, row.get("week") or 0, row.get("last"), user in now)
    return found


def who_left(project: Project):
    """People who worked here and are members no more, by name."""
    worked = User.objects.filter(tallies__project=project).exclude(memberships__project=project)
    return worked.distinct().order_by("username")


def unjudged(project: Project) -> QuerySet[Group]:
    """Groups with images that the project's oracle has neither judged nor waits to judge. Where people alone label, only
    those that they labelled: what the oracle says of the others would count."""
    judged = Label.objects.filter(generation__group=OuterRef("pk"), annotator=None, oracle=project.oracle)
    groups = project.groups.filter(state__in=[GroupState.READY, GroupState.DONE], scoring__next_at=None)
    groups = groups.exclude(Exists(judged))
    return groups.filter(decisions__gt=0) if project.label_source == LabelSource.PEOPLE else groups
