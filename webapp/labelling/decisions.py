"""Submit, skip, flag and undo: what a person says about a group, kept once and only once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from webapp.campaigns.archive import check_open
from webapp.campaigns.models import Project
from webapp.labelling import history
from webapp.labelling.errors import Busy, Conflict, Decided, LabellingError, NotGiven
from webapp.labelling.leases import end_leases, give
from webapp.labelling.models import (
    Flag,
    FlagKind,
    Generation,
    Group,
    GroupDecision,
    GroupState,
    Label,
    Outcome,
    SkipReason,
    Tally,
    UndoneDecision,
)
from webapp.labelling.why import Why
from webapp.lib import events, options, states
from webapp.lib.prepared import ask, ask_for, insert, read, run, together
from webapp.quality import services as quality
from webapp.quality.models import Consensus

RATEABLE = (GroupState.READY, GroupState.DONE, GroupState.SUPERSEDED, GroupState.FLAGGED)  # work that was done counts


def submit_group(
    user,
    project: Project,
    group_id: int,
    answer: dict[int, bool],
    *,
    seconds: float,
    idempotency_key: str,
    why: dict[int, Why] | None = None,
) -> GroupDecision:
    """Keep a person's likes (True) and dislikes (False) of every image, by position, and why some are disliked.

    The same key with the same answer returns the first decision; with another answer it raises Conflict. Raises
    LabellingError when an image is undecided or the person was never given the group. The lease may have run out: work
    that was done counts.
    """

    def keep(group: Group, known: dict) -> None:
        generations = {g.position: g for g in ask("images of", _images, group=group.pk)}
        if wrong := sorted(set(generations) ^ set(answer)):
            raise LabellingError(
                _("labels: image %(n)s is undecided or unknown; decide on every image") % {"n": wrong[0] + 1}
            )
        images = list(generations.values())
        reasons = {generations[position]: about for position, about in (why or {}).items()}
        liked = {generations[position]: value for position, value in answer.items()}
        labels = _set_labels(user, images, liked, reasons)
        if group.state == GroupState.FLAGGED:  # kept, and unused as all of the group's
            history.left_out([label for label in labels if label.annotator_id == user.pk])
        group.decisions += 1  # the row is locked
        found = quality.settle(group, images, labels, known)
        if group.state == GroupState.READY and group.decisions >= quality.wanted(project, group.decisions, found):
            states.move(states.GROUP_MOVES, group, GroupState.DONE)
        run(STATE, group=group.pk, state=group.state, decisions=group.decisions)

    decision = GroupDecision(
        outcome=Outcome.SUBMITTED,
        seconds=max(0.0, min(seconds, 86_400.0)),
        answer={str(k): v for k, v in sorted(answer.items())},
    )
    return _decide(user, project, group_id, idempotency_key, decision, keep)


def skip_group(
    user, project: Project, group_id: int, *, reason: str, note: str = "", idempotency_key: str
) -> GroupDecision:
    """Leave a group without labels; it goes to someone else and never comes back to this person. `reason` is empty or
    one of SkipReason."""
    if reason and reason not in SkipReason.values:
        raise LabellingError(_("reason: send one of %(values)s, or nothing") % {"values": ", ".join(SkipReason.values)})
    text = ": ".join(part for part in (reason, note.strip()[:280]) if part)
    decision = GroupDecision(outcome=Outcome.SKIPPED, reason=text)
    return _decide(user, project, group_id, idempotency_key, decision, lambda group, known: None)


def flag_group(
    user, project: Project, group_id: int, *, kind: str, position: int | None, note: str = "", idempotency_key: str
) -> GroupDecision:
    """Report a group (or its image at `position`) as broken or unsafe. It leaves the queue, everybody's, at once; one that
    is done keeps its labels until a reviewer has looked at it. Raises LabellingError for more open flags an hour than
    `LIKESTEP_FLAGS_PER_HOUR`."""
    if kind not in FlagKind.values:
        raise LabellingError(_("kind: send one of %(values)s") % {"values": ", ".join(FlagKind.values)})

    def keep(group: Group, known: dict) -> None:
        generation = None
        if position is not None:
            generation = group.generations.filter(position=position).first()
            if generation is None:
                raise LabellingError(_("position: the group has no image %(n)s") % {"n": position + 1})
        _check_flags(user, project)
        values = {"generation": generation, "kind": kind, "note": note.strip()[:300], "created_at": timezone.now()}
        fresh = {"resolved_at": None, "resolved_by": None, "restored": None}
        Flag.objects.update_or_create(group=group, user=user, defaults={**values, **fresh})
        labels = history.labels_of(group)  # of a gold group too, which keeps them: it takes no less time
        if group.state == GroupState.READY:
            _leave_out(group, labels)
        group.save(update_fields=["state"])  # also a gold group's, which is done: it takes no less time
        end_leases(group)

    decision = GroupDecision(outcome=Outcome.FLAGGED, reason=kind)
    return _decide(user, project, group_id, idempotency_key, decision, keep)


def _check_flags(user, project: Project) -> None:
    """Each flag takes a group from everybody, so one person opens a few an hour and no more."""
    most, since = options.FLAGS_PER_HOUR, timezone.now() - timedelta(hours=1)
    mine = Flag.objects.filter(user=user, group__project=project, resolved_at=None, created_at__gt=since)
    if mine.count() >= most:
        raise LabellingError(
            _(
                "flag: you flagged %(n)s groups within an hour; skip this one, or wait until a reviewer has looked at them"
            )
            % {"n": most}
        )


def _decide(
    user, project: Project, group_id: int, key: str, decision: GroupDecision, keep: Callable[[Group, dict], None]
) -> GroupDecision:
    """Keep one decision and what belongs to it (`keep`, with the group locked and what `_known` says of it), once:
    replays and lost races are told apart here for every outcome."""
    if not key or len(key) > 64:
        raise LabellingError(_("idempotency_key: send 1 to 64 characters, the same ones when you try again"))
    check_open(project, LabellingError)
    decision.user, decision.group_id, decision.idempotency_key = user, group_id, key
    try:
        with transaction.atomic():
            (group,) = ask("group", _locked_group, group=group_id, project=project.pk) or [None]
            known = None if group is None else _known(decision, project)
            asked_before = known is None or known["asked_before"]
            if asked_before and (replay := _replayed(decision)) is not None:
                return replay
            if group is None or not known["given"]:
                raise NotGiven(_("group: it is not there to be rated; ask for the next group"))
            if group.state not in RATEABLE:
                raise LabellingError(_("group: it is not there to be rated; ask for the next group"))
            group.project = project
            decision.day = timezone.localdate()
            insert([decision])
            with together() as sent:  # the tally comes last: whether it was there is what `sent.rows` tells
                keep(group, known)
                run(DECIDED, group=group.pk, user=user.pk, now=timezone.now(), yes=True)
                _count(decision, project, +1)
            if not sent.rows:
                _first_of_the_day(decision, project)
            events.publish(project.pk, "labels")
            return decision
    except IntegrityError as error:  # the same request twice at once: the other one won
        if (replay := _replayed(decision)) is not None:
            return replay
        raise Busy(_("group: it could not be kept because of another request; try again")) from error


STATE = "UPDATE labelling_group SET state = %(state)s, decisions = %(decisions)s WHERE id = %(group)s"
DECIDED = """UPDATE labelling_lease SET decided = %(yes)s, expires_at = %(now)s
WHERE group_id = %(group)s AND user_id = %(user)s"""
COUNTED = """UPDATE labelling_tally SET "groups" = "groups" + %(groups)s, images = images + %(images)s,
likes = likes + %(likes)s, skips = skips + %(skips)s, seconds = seconds + %(seconds)s
WHERE user_id = %(user)s AND project_id = %(project)s AND day = %(day)s RETURNING id"""
KNOWN = """SELECT
    (SELECT prior FROM quality_projectquality WHERE project_id = %(project)s ORDER BY id DESC LIMIT 1),
    EXISTS(SELECT 1 FROM quality_overrule o JOIN labelling_generation g ON g.id = o.generation_id
        WHERE g.group_id = %(group)s),
    EXISTS(SELECT 1 FROM labelling_lease WHERE group_id = %(group)s AND user_id = %(user)s),
    EXISTS(SELECT 1 FROM labelling_groupdecision WHERE group_id = %(group)s AND user_id = %(user)s)
        OR EXISTS(SELECT 1 FROM labelling_groupdecision WHERE idempotency_key = %(key)s AND user_id = %(user)s)
        OR EXISTS(SELECT 1 FROM labelling_undonedecision WHERE idempotency_key = %(key)s AND user_id = %(user)s)"""


def _locked_group(group: int, project: int):
    return Group.objects.select_for_update().filter(pk=group, project=project)


def _images(group: int):
    return Generation.objects.filter(group=group)


def _labels(images: list[int]):
    return Label.objects.filter(generation__in=images)


def _known(asked: GroupDecision, project: Project) -> dict:
    """What `quality.settle` would ask for (`prior`, `overruled`), whether the person was ever `given` the group, and
    `asked_before`: this key, or this person's word on this group, has been here already."""
    key = asked.idempotency_key
    (found,) = read(KNOWN, project=project.pk, group=asked.group_id, user=asked.user_id, key=key)
    return dict(zip(("prior", "overruled", "given", "asked_before"), found, strict=True))


def _replayed(asked: GroupDecision) -> GroupDecision | None:
    of_key, of_group = Q(idempotency_key=asked.idempotency_key), Q(group_id=asked.group_id)
    mine = list(GroupDecision.objects.filter(of_key | of_group, user=asked.user))
    done = next((d for d in mine if d.idempotency_key == asked.idempotency_key), None)
    if done is not None:
        if all(getattr(done, f) == getattr(asked, f) for f in ("group_id", "outcome", "answer")):
            return done
        raise Conflict(_("idempotency_key: it was used for another answer; use a new key for a new answer"))
    if UndoneDecision.objects.filter(user=asked.user, idempotency_key=asked.idempotency_key).exists():
        raise Conflict(_("idempotency_key: that answer was taken back; use a new key for a new answer"))
    if mine:
        raise Decided(_("group: you already decided on it; undo that first to change it"))
    return None


def _set_labels(
    user, images: Sequence[Generation], liked: dict[Generation, bool], why: dict[Generation, Why]
) -> list[Label]:
    """Keep the person's labels, and give all that these images have now."""
    there = ask_for("labels of", _labels, [image.pk for image in images])
    if old := [label.pk for label in there if label.annotator_id == user.pk]:
        Label.objects.filter(pk__in=old).delete()
    made = []
    for image, value in liked.items():
        about = why.get(image, Why())
        box = about.box and list(about.box)
        label = {"generation_id": image.pk, "annotator_id": user.pk, "liked": value}
        made.append(Label(**label, reason=about.reason, box=box))
    insert(made)
    history.given(made)
    return [label for label in there if label.annotator_id != user.pk] + made


def _count(decision: GroupDecision, project: Project, sign: int) -> int:
    """Add the decision to the person's tally of its day, or take it out (`sign` -1); how many tallies there were."""
    submitted = decision.outcome == Outcome.SUBMITTED
    amounts = {
        "groups": int(submitted),
        "images": len(decision.answer),
        "likes": sum(decision.answer.values()),
        "skips": int(not submitted),
        "seconds": decision.seconds if submitted else 0,
    }
    changes = {name: sign * n for name, n in amounts.items()}
    return run(COUNTED, **changes, user=decision.user_id, project=project.pk, day=_day(decision))


def _first_of_the_day(decision: GroupDecision, project: Project) -> None:
    """Make the tally that `_count` did not find, with the decision in it."""
    Tally.objects.get_or_create(user=decision.user, project=project, day=_day(decision))
    _count(decision, project, +1)


def _day(decision: GroupDecision) -> date:
    return decision.day or decision.created_at.date()


@transaction.atomic
def undo(
    user, project: Project, key: str = "", *, group_id: int | None = None
) -> tuple[Group, dict, dict[str, dict]] | None:
    """Take back the person's decision of that idempotency key, or on that group, the latest one without either, and lease
    the group to them again: (group, their answer, why as `why.read` takes it), or None when there is none. The group's
    `task` is its name for this person.

    The labels go, their history stays. A key that is not known yet is kept as taken back: its request may be late.
    Raises LabellingError when the decision is older than `options.UNDO`.
    """
    check_open(project, LabellingError)
    mine = GroupDecision.objects.filter(user=user, group__project=project)
    if key:
        mine = mine.filter(idempotency_key=key)
    if group_id is not None:
        mine = mine.filter(group=group_id)
    found = mine.order_by("-created_at", "-pk").first()
    group = Group.objects.select_for_update().get(pk=found.group_id) if found else None
    # Read again under the lock: the same request may have come twice.
    decision = GroupDecision.objects.filter(pk=found.pk).first() if found else None
    if decision is not None and decision.created_at < timezone.now() - options.UNDO:
        raise LabellingError(
            _("undo: the answer is older than %(n)s minutes and stays")
            % {"n": round(options.UNDO.total_seconds() / 60)}
        )
    if key or decision is not None:
        UndoneDecision.objects.get_or_create(
            user=user,
            idempotency_key=(key or decision.idempotency_key)[:64],
            defaults={"group": group, "outcome": decision.outcome, "answer": decision.answer} if decision else {},
        )
    if decision is None:
        return None
    said: dict[str, dict] = {}
    if decision.outcome == Outcome.SUBMITTED:
        labels = Label.objects.filter(generation__group=group, annotator=user)
        rows = labels.filter(liked=False).values_list("generation__position", "reason", "box")
        said = {str(position): {"reason": reason, "box": box} for position, reason, box in rows if reason or box}
        history.taken_back(labels)
        labels.delete()
        group.decisions = max(0, group.decisions - 1)
        left = quality.settle(group)
        needed = quality.wanted(project, group.decisions, left)
        if group.state == GroupState.DONE and group.decisions < needed:
            states.move(states.GROUP_MOVES, group, GroupState.READY)
        group.save(update_fields=["decisions", "state"])
    elif decision.outcome == Outcome.FLAGGED:
        Flag.objects.filter(group=group, user=user, resolved_at=None).delete()
        _back_from_flags(group)
    answer = decision.answer
    _count(decision, project, -1)
    decision.delete()
    group.task = give(user, group.pk, lasts=True)
    events.publish(project.pk, "labels")
    return group, answer, said


@transaction.atomic
def resolve_flags(user, project: Project, group_id: int, *, restore: bool) -> Group:
    """A reviewer has looked at a flagged group: it stays or goes back where it was, or is out for good with its labels
    unused."""
    group = Group.objects.select_for_update().filter(pk=group_id, project=project).first()
    if group is None:
        raise LabellingError(_("group: %(id)s is not there; reload the list of flags") % {"id": group_id})
    group.flags.filter(resolved_at=None).update(resolved_at=timezone.now(), resolved_by=user, restored=restore)
    if restore:
        _back_from_flags(group)
    elif group.state in (GroupState.READY, GroupState.DONE):
        _leave_out(group, history.labels_of(group))
        group.save(update_fields=["state"])
        end_leases(group)
    events.publish(project.pk, "labels")
    return group


def _leave_out(group: Group, labels: list[Label]) -> None:
    """The group is flagged: its labels are not used."""
    states.move(states.GROUP_MOVES, group, GroupState.FLAGGED)
    history.left_out(labels)


def _back_from_flags(group: Group) -> None:
    """Back to where the group was, unless a flag is still open or a reviewer kept it out. One that never left, as a gold
    group, takes as long."""
    out = group.flags.filter(Q(resolved_at=None) | Q(restored=False)).exists()
    found = Consensus.objects.filter(group=group).first()
    done = group.decisions >= quality.wanted(group.project, group.decisions, found)
    labels = history.labels_of(group)
    if group.state == GroupState.FLAGGED and not out:
        states.move(states.GROUP_MOVES, group, GroupState.DONE if done else GroupState.READY)
        history.restored(labels)
    group.save(update_fields=["state"])
