"""Why nobody gets a group right now, said truthfully to who waits for one."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from webapp.campaigns.models import Project, Split
from webapp.labelling.generation import FAILURES_COUNT
from webapp.labelling.models import GroupState

LATELY = timedelta(minutes=10)  # what machines did in this time says what they do now
SLOW = timedelta(minutes=2)  # a group that waits longer than this to be begun is one that no machine takes
COMING = (GroupState.QUEUED, GroupState.GENERATING)


def why_none(project: Project) -> str:
    """A sentence for a person for whom there is no group. It tells nothing of other people's work."""
    if project.archived_at is not None:
        return _("This project is archived: it hands out no groups. Your work is kept.")
    if not project.prompts.in_use().filter(split=Split.TRAIN).exists():
        return _("This project has no prompts yet to make images of. An admin can add some.")
    now = timezone.now()
    coming = project.groups.filter(Q(version=project.active_version) | Q(version=None), state__in=COMING)
    if not coming.exists():
        if project.groups.filter(state=GroupState.FAILED, heartbeat_at__gt=now - FAILURES_COUNT).exists():
            return _("Images cannot be made right now; the dashboard says why. This page looks again by itself.")
        return _("No group is waiting right now; this page looks again by itself.")
    begun = coming.filter(state=GroupState.GENERATING).exists()
    if not begun and not coming.filter(created_at__gt=now - SLOW).exists():
        return _("Groups wait to be made, but no machine has begun: please tell an admin.")
    made = project.groups.filter(heartbeat_at__gt=now - LATELY).exclude(state__in=(*COMING, GroupState.FAILED)).count()
    if made < 2:
        return _("New groups are being made; this page looks again by itself.")
    return _(
        "You are faster than the machines: they make a group in about %(n)s s. This page looks again by itself."
    ) % {"n": max(1, round(LATELY.total_seconds() / made))}
