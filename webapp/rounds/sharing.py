"""Versions that admins share to the hub: asked for on a page, sent by a worker, told on the page."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from common import hub
from webapp.campaigns.archive import check_open
from webapp.campaigns.audit import audit
from webapp.campaigns.models import Project
from webapp.lib import events, options, states
from webapp.lib.dispatch import enqueue
from webapp.rounds.models import ModelVersion, Sharing, SharingState

PENDING = (SharingState.QUEUED, SharingState.SENDING)
AT_ONCE = 5  # of a project that may wait, and that a worker looks for


class SharingError(ValueError):
    """A request that cannot be carried out; the message names the field and the fix."""


@transaction.atomic
def ask(version: ModelVersion, repository: str, *, private: bool, by) -> Sharing:
    """Queue a version for a repository OWNER/NAME. Raises SharingError for a name that is none, without a token, and when
    it, or too much, is on its way already."""
    project = Project.objects.select_for_update().get(pk=version.project_id)
    check_open(project, SharingError)
    try:
        hub.check(repository)
    except ValueError as error:
        raise SharingError(str(error)) from error
    waiting = Sharing.objects.filter(version__project=project, state__in=PENDING)
    if waiting.filter(version=version, repository=repository).exists():
        raise SharingError(_("repository: this version is on its way there already"))
    if waiting.count() >= AT_ONCE:
        raise SharingError(_("versions: %(n)s of this project are on their way already; wait for one") % {"n": AT_ONCE})
    made = Sharing.objects.create(version=version, repository=repository, private=private, asked_by=by)
    enqueue("share_version", made.pk)
    events.publish(project.pk, "sharing")
    return made


def newest(project: Project) -> QuerySet[Sharing]:
    """What was shared last, and what is on its way."""
    return Sharing.objects.filter(version__project=project).select_related("version", "asked_by")[: 2 * AT_ONCE]


# ---------------------------------------------------------------- for the workers


def _waits() -> Q:
    """Queued, or given to a worker that has been silent for long."""
    silent = Q(state=SharingState.SENDING, heartbeat_at__lt=timezone.now() - options.SILENT_STALE)
    return Q(state=SharingState.QUEUED) | silent


def waiting() -> list[int]:
    """Ids of what a worker should send, in their order."""
    rows = Sharing.objects.filter(_waits(), state__in=PENDING, version__project__archived_at=None).order_by("id")
    return list(rows.values_list("pk", flat=True)[:AT_ONCE])


@transaction.atomic
def claim(sharing_id: int) -> Sharing | None:
    """The row for a worker, fenced by its token; None when it is not to be sent (any more)."""
    rows = Sharing.objects.filter(_waits(), version__project__archived_at=None).select_related("version__project")
    found = rows.select_for_update(of=("self",)).filter(pk=sharing_id).first()
    if found is None:
        return None
    if found.state == SharingState.SENDING:
        states.move(states.SHARING_MOVES, found, SharingState.QUEUED)
    states.move(states.SHARING_MOVES, found, SharingState.SENDING)
    found.heartbeat_at, found.token, found.attempt = timezone.now(), found.token + 1, found.attempt + 1
    if found.attempt > options.LOST_WORKERS:
        states.move(states.SHARING_MOVES, found, SharingState.FAILED)
        found.error = f"the worker was lost {options.LOST_WORKERS} times over it; see its log"
    found.save()
    events.publish(found.version.project_id, "sharing")
    return found if found.state == SharingState.SENDING else None


def beat(sharing_id: int, token: int) -> bool:
    """It is still being sent; False: by another worker."""
    rows = Sharing.objects.filter(pk=sharing_id, token=token, state=SharingState.SENDING)
    return bool(rows.update(heartbeat_at=timezone.now()))


@transaction.atomic
def done(sharing_id: int, token: int, address: str) -> None:
    """It is there; noted in the log of changes, in the name of who asked for it."""
    found = _owned(sharing_id, token)
    if found is None:
        return
    states.move(states.SHARING_MOVES, found, SharingState.DONE)
    found.address, found.error = address[:500], ""
    found.save()
    about = {"version": found.version.number, "address": address, "private": found.private}
    audit(found.version.project, found.asked_by, "version shared", **about)
    events.publish(found.version.project_id, "sharing")


@transaction.atomic
def fail(sharing_id: int, token: int, error: str, *, again: bool) -> None:
    """It could not be sent: tried `again` up to `options.TRIES` times, or failed for good."""
    found = _owned(sharing_id, token)
    if found is None:
        return
    again = again and found.attempt < options.TRIES
    states.move(states.SHARING_MOVES, found, SharingState.QUEUED if again else SharingState.FAILED)
    found.error = error[:500]
    found.save()
    events.publish(found.version.project_id, "sharing")


def _owned(sharing_id: int, token: int) -> Sharing | None:
    rows = Sharing.objects.filter(pk=sharing_id, token=token, state=SharingState.SENDING)
    return rows.select_for_update(of=("self",)).select_related("version__project", "asked_by").first()
