"""What became of labels, in an order that others can follow: rows of `LabelEvent`, numbered once they are committed.

A row's id is given before its transaction ends: whoever has read up to an id misses a lower one that is committed later.
So writers leave the number empty, and whoever reads first numbers what is committed, one reader at a time. When a number
can be seen, so can every lower one, and none of them comes later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from django.db import connection, transaction
from django.db.models import Max

from webapp.campaigns.models import Project
from webapp.labelling.models import Cause, Group, Label, LabelEvent
from webapp.lib.prepared import insert

BATCH = 5000  # rows numbered by one reader
LOCK = 5_494_219_861  # whoever numbers holds it, to the end of the transaction; any number that nobody else locks
NUMBER = """UPDATE labelling_labelevent SET number = fresh.number, project_id = fresh.project_id
FROM (
    SELECT e.id, g.project_id,
        (SELECT COALESCE(MAX(number), 0) FROM labelling_labelevent) + ROW_NUMBER() OVER (ORDER BY e.id) AS number
    FROM (SELECT id, generation_id FROM labelling_labelevent WHERE number IS NULL ORDER BY id LIMIT %s) e
    JOIN labelling_generation i ON i.id = e.generation_id JOIN labelling_group g ON g.id = i.group_id
) fresh WHERE labelling_labelevent.id = fresh.id"""


def given(labels: Iterable[Label]) -> None:
    """Note labels that were just given; the caller holds their group's row, as for all of these."""
    insert([_event(label, label.liked) for label in labels])


def taken_back(labels: Iterable[Label]) -> None:
    """Note labels that the person takes back."""
    insert([_event(label, None) for label in labels])


def left_out(labels: Iterable[Label]) -> None:
    """Note that these labels are not used, since their group is flagged."""
    insert([_event(label, None, Cause.FLAGGED) for label in labels])


def restored(labels: Iterable[Label]) -> None:
    """Note that a group with these labels is no longer flagged: they count again."""
    insert([_event(label, label.liked, Cause.RESTORED) for label in labels])


def labels_of(group: Group) -> list[Label]:
    """All of the group's labels."""
    return list(Label.objects.filter(generation__group=group).order_by("id"))


def changes(
    project: Project, *, after: int, limit: int, annotators: Collection[int] | None = None
) -> tuple[list[LabelEvent], int | None]:
    """Up to `limit` entries whose numbers are above `after`, in order, with their images, and the number to go on from;
    None for it: there are no more now. `annotators` (ids) leaves the entries of others out."""
    whole = _number_committed()
    # Asked before the rows, so that none below it can be missing from them.
    last = 0 if whole else LabelEvent.objects.aggregate(n=Max("number"))["n"] or 0
    rows = LabelEvent.objects.filter(project=project, number__gt=after).select_related("generation").order_by("number")
    if annotators is not None:
        rows = rows.filter(annotator__in=annotators)
    found = list(rows[: limit + 1])
    if len(found) > limit:
        return found[:limit], found[limit - 1].number
    return found, None if whole else max([after, last, *(event.number for event in found)])


def _number_committed() -> bool:
    """Number at most `BATCH` of what is committed; whether that was all."""
    if not LabelEvent.objects.filter(number=None).exists():
        return True
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":  # SQLite has one writer at a time
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        cursor.execute(NUMBER, [BATCH])  # a statement of its own: it sees what was committed before it got the lock
        return cursor.rowcount < BATCH


def _event(label: Label, liked: bool | None, cause: str = "") -> LabelEvent:
    return LabelEvent(
        generation_id=label.generation_id,
        annotator_id=label.annotator_id,
        oracle=label.oracle,
        liked=liked,
        score=None if liked is None else label.score,
        reason="" if liked is None else label.reason,
        box=None if liked is None else label.box,
        cause=cause,
    )
