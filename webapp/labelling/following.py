"""What is derived of a project's settings follows when they change: which groups are done, which the oracle judges."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from webapp.campaigns.archive import check_open
from webapp.campaigns.audit import audit
from webapp.campaigns.models import LabelSource, Project
from webapp.campaigns.queries import unjudged
from webapp.labelling.errors import LabellingError
from webapp.labelling.models import Group, GroupState, Label, Scoring
from webapp.lib import events, states
from webapp.lib.dispatch import enqueue
from webapp.quality import services as quality

CHUNK = 500  # groups a transaction


def finish_answered(project_id: int) -> int:
    """Make done what waits for more answers than the project asks for now: its overlap may have been lowered, its tie break
    switched off, or an oracle alone may label it. Returns how many. Housekeeping does it every time."""
    project, finished, last = Project.objects.get(pk=project_id), 0, 0
    while True:
        with transaction.atomic():
            waiting = _answered(project).filter(pk__gt=last).order_by("pk")
            groups = list(waiting.select_for_update(of=("self",))[:CHUNK])
            if not groups:
                break
            for group, found in zip(groups, quality.settle_groups(project, groups), strict=True):
                by_oracle = project.label_source == LabelSource.ORACLE
                if by_oracle or group.decisions >= quality.wanted(project, found is not None and found.tie):
                    states.move(states.GROUP_MOVES, group, GroupState.DONE)
                    group.save(update_fields=["state"])
                    finished += 1
        last = groups[-1].pk
    if finished:
        events.publish(project.pk, "labels")
    return finished


def _answered(project: Project) -> QuerySet[Group]:
    """Groups that wait and have as many answers as are asked for, as far as the rows tell."""
    waiting = project.groups.filter(state=GroupState.READY)
    if project.label_source == LabelSource.ORACLE:
        judged = Label.objects.filter(generation__group=OuterRef("pk"), annotator=None, oracle=project.oracle)
        return waiting.filter(Exists(judged))
    waiting = waiting.filter(decisions__gte=project.overlap)
    return waiting.exclude(consensus__tie=True, decisions=project.overlap) if project.tie_break else waiting


@transaction.atomic
def ask_oracle_again(project: Project, by) -> int:
    """Let the project's oracle judge what it has not judged, such as all that was labelled by one before it; returns how
    many groups. Raises LabellingError without an oracle."""
    check_open(project, LabellingError)
    if not project.oracle:
        raise LabellingError(_("oracle: choose one first"))
    now = timezone.now()
    rows = [Scoring(group_id=pk, next_at=now) for pk in unjudged(project).values_list("pk", flat=True)]
    fresh = {"update_conflicts": True, "unique_fields": ["group"], "update_fields": ["next_at", "attempts", "error"]}
    Scoring.objects.bulk_create(rows, batch_size=CHUNK, **fresh)
    if rows:
        audit(project, by, "oracle asked again", oracle=project.oracle, groups=len(rows))
        enqueue("housekeeping", project.pk)
    return len(rows)
