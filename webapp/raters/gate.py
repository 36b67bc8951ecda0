"""Whether somebody gets real groups now: they agreed to the consent text, passed the practice, and have some left."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime

from django.utils import timezone
from django.utils.translation import gettext as _

from webapp.accounts.permissions import role_in
from webapp.campaigns.models import Membership, Project, Role
from webapp.labelling.models import GroupDecision, Outcome
from webapp.raters import practice, terms
from webapp.raters.models import Ending, Participant

WITHOUT_END = sys.maxsize


@dataclass(frozen=True)
class Stop:
    """The name of the `page` that comes first, and why in a sentence."""

    page: str
    said: str


def find_stop(user, project: Project) -> Stop | None:
    """What stands between the person and real groups; None: nothing."""
    if not _is_kept(user, project):
        return None
    if not terms.agreed(user, project):
        return Stop("agree", _("Read what you take part in, and agree to it first."))
    if not practice.standing(user, project).open:
        return Stop("practice", _("Practise on known groups first."))
    if left(user, project) <= 0:
        return Stop("rated", _("You have rated all groups that you may for now. Thank you."))
    return None


def left(user, project: Project) -> int:
    """How many groups the person may still rate now; `WITHOUT_END` where there is no limit."""
    if not _is_kept(user, project) or not (user.outside or project.quota_all or project.quota_day):
        return WITHOUT_END
    part = Participant.objects.filter(user=user, project=project).select_related("study").first()
    if part is not None:
        return 0 if part.ending else part.study.groups - done(user, project)
    if role_in(user, project) != Role.ANNOTATOR:
        return WITHOUT_END
    in_all = project.quota_all - done(user, project) if project.quota_all else WITHOUT_END
    today = project.quota_day - done(user, project, since=midnight()) if project.quota_day else WITHOUT_END
    return min(in_all, today)


def room(user, project: Project) -> int:
    """The same inside of a transaction: of several requests of one person at a time, each knows what the others gave."""
    if not _is_kept(user, project) or not (user.outside or project.quota_all or project.quota_day):
        return WITHOUT_END
    list(Membership.objects.select_for_update().filter(user=user, project=project))
    return max(0, left(user, project))


def done(user, project: Project, since: datetime | None = None) -> int:
    """Groups that the person rated; skipped ones do not count."""
    rows = GroupDecision.objects.filter(user=user, group__project=project, outcome=Outcome.SUBMITTED)
    return (rows.filter(created_at__gte=since) if since else rows).count()


def midnight() -> datetime:
    """When the day began, in UTC: a browser's time zone, which a person may change, gives nobody a second day."""
    return timezone.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def finish(user, project: Project) -> Participant | None:
    """The person's part in a study, completed where all its groups are rated; None for everybody else."""
    part = Participant.objects.filter(user=user, project=project).select_related("study").first()
    if part is not None and not part.ending and done(user, project) >= part.study.groups:
        part.ending, part.ended_at = Ending.COMPLETED, timezone.now()
        part.save(update_fields=["ending", "ended_at"])
    return part


def _is_kept(user, project: Project) -> bool:
    """Whether anything of this is asked for here; where not, it costs no query."""
    return bool(project.consent or project.practice_groups or project.quota_day or project.quota_all or user.outside)
