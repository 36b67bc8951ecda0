"""What an oracle has yet to label, and its labels."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from webapp.campaigns.models import LabelSource
from webapp.labelling import history
from webapp.labelling.models import (
    Group,
    GroupState,
    Label,
    Scoring,
)
from webapp.lib import events, options, states
from webapp.lib.dispatch import enqueue
from webapp.quality import services as quality

# A worker that is lost over a group gives it back after this.
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=30), timedelta(hours=1)  # the first is doubled with every try


def queue_scoring(group: Group) -> None:
    Scoring.objects.update_or_create(group=group, defaults={"next_at": timezone.now(), "attempts": 0, "error": ""})
    enqueue("score_group", group.pk)


def _open():
    """Those of projects that are not archived."""
    return Scoring.objects.filter(group__project__archived_at=None)


def scorings_due() -> list[int]:
    """Ids of groups that an oracle should label, the longest waiting first."""
    return list(_open().filter(next_at__lte=timezone.now()).order_by("next_at").values_list("group", flat=True)[:200])


@transaction.atomic
def claim_scoring(group_id: int) -> Scoring | None:
    """The worker that is given the row asks the oracle. None when there is nothing to do, or another worker is at it."""
    now = timezone.now()
    row = _open().select_for_update(of=("self",)).filter(group=group_id, next_at__lte=now).first()
    if row is None:
        return None
    if row.attempts >= options.ORACLE_TRIES:
        row.next_at, row.error = None, row.error or "the worker was lost over it; see its log"
        row.save()
        return None
    row.next_at = now + options.SILENT_STALE
    row.attempts += 1
    row.save()
    return row


@transaction.atomic
def fail_scoring(group_id: int, attempt: int, error: str, *, counts: bool = True) -> None:
    """The oracle gave no labels at this attempt: asked again later, or given up; see `generation.fail_group`."""
    row = Scoring.objects.select_for_update().filter(group=group_id, attempts=attempt).first()
    if row is None:
        return
    row.attempts -= not counts
    again = timezone.now() + min(LONGEST_WAIT, FIRST_WAIT * 2 ** max(0, row.attempts - 1))
    row.next_at, row.error = again if row.attempts < options.ORACLE_TRIES else None, error[:500]
    row.save()


@transaction.atomic
def record_oracle_labels(group_id: int, oracle: str, verdicts: Sequence[dict]) -> None:
    """Keep an oracle's verdicts `{score, liked, reason}`, one an image; where the project has a threshold for it, the score
    says what is liked. With the oracle alone the group is then done."""
    group = Group.objects.select_for_update().select_related("project").get(pk=group_id)
    labels, threshold = [], group.project.oracle_thresholds.get(oracle)
    for generation, verdict in zip(group.generations.all(), verdicts, strict=True):
        liked = verdict["liked"] if threshold is None else verdict["score"] >= threshold
        values = {"liked": liked, "score": verdict["score"], "reason": verdict["reason"][:300]}
        label, _new = Label.objects.update_or_create(
            generation=generation, annotator=None, oracle=oracle, defaults=values
        )
        labels.append(label)
    history.given(labels)
    if group.state == GroupState.FLAGGED:
        history.left_out(labels)
    if oracle == group.project.oracle:
        Scoring.objects.filter(group=group).delete()
    quality.settle(group)
    if group.project.label_source == LabelSource.ORACLE and group.state == GroupState.READY:
        states.move(states.GROUP_MOVES, group, GroupState.DONE)
        group.save(update_fields=["state"])
    events.publish(group.project_id, "labels")
