"""Writes of the labelling queue: groups to be generated, leases, decisions, labels.

Every function is one transaction. A label that a caller was told about is committed.
"""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import Count, Exists, F, OuterRef, Q, Subquery, prefetch_related_objects
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext as _

from trainer.files import check_webp
from webapp import events, paths, states, storage
from webapp.campaigns.models import LabelSource, Project, Prompt, Split
from webapp.dispatch import enqueue
from webapp.labelling import choice, keys
from webapp.labelling.models import (
    Example,
    Flag,
    FlagKind,
    Generation,
    Group,
    GroupDecision,
    GroupState,
    Label,
    LabelEvent,
    Lease,
    Outcome,
    Preferences,
    Scoring,
    SkipReason,
    Tally,
    UndoneDecision,
)
from webapp.quality import services as quality
from webapp.quality.models import Consensus, GoldGroup

LEASE = timedelta(minutes=10)
GENERATION_STALE = 5 * timedelta(seconds=settings.LIKESTEP_STALE_SECONDS)  # generating does not beat
MOST_ATTEMPTS = 3
MOST_LOSSES = 5  # workers that were lost over a group before it is given up: it may be what kills them
FAILURES_COUNT = timedelta(minutes=10)  # groups that failed within this time are not replaced by new ones
MOST_SCORINGS = 12  # times an oracle is asked about a group, whatever it failed of
SCORING_STALE = GENERATION_STALE  # a worker that is lost over it gives the group back after this
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=30), timedelta(hours=1)  # the first is doubled with every try
MOST_EXAMPLES = 48  # images that the guidelines show
MOST_LEASES = 4  # a person's page holds one group and prefetches two
RACES = 5  # tries before a person who lost every race is told that nothing waits
LOOKED_BACK = 1000  # labelled groups that say what a prompt teaches, the newest
SEED_SPACE = 500_000_000  # below the seeds of evaluation


class LabellingError(ValueError):
    """A request that cannot be carried out; the message names the field and the fix."""


class Conflict(LabellingError):
    """The same request was answered before with other content."""


class Busy(LabellingError):
    """Another request got in between; the same request may succeed when it is sent again."""


# ---------------------------------------------------------------- generation


@transaction.atomic
def top_up(project_id: int, *, rng: random.Random | None = None) -> list[Group]:
    """Queue groups until `ready_target` unrated ones are ready or on their way; returns the new ones.

    Prompts are chosen by what their groups are expected to teach (`choice`), from the newest labelled ones, so that the
    cost stays the same as a project grows and what a version has learned is noticed.
    """
    project = Project.objects.select_for_update(of=("self",)).select_related("active_version").get(pk=project_id)
    if project.active_version is None or project.archived_at is not None:
        return []
    # What was leased or being generated when a version was published is dropped here, once nobody looks at it.
    supersede_groups(project, project.active_version)
    coming = project.groups.filter(
        state__in=[GroupState.QUEUED, GroupState.GENERATING], version=project.active_version
    ).count()
    # Groups that somebody has on screen or is through with are not what the next person will be given.
    now = timezone.now()
    free = project.groups.filter(state=GroupState.READY, version=project.active_version, group_decisions=None)
    free = free.exclude(pk__in=Lease.objects.filter(expires_at__gt=now).values("group"))
    untouched = free[: project.ready_target].count()  # more makes no difference
    # A full disk fails every group: then so many are tried again and again, but no more.
    failed = project.groups.filter(state=GroupState.FAILED, heartbeat_at__gt=now - FAILURES_COUNT).count()
    missing = project.ready_target - coming - untouched - failed
    if missing <= 0:
        return []
    rng = rng or random.Random()
    prompts = (
        Prompt.objects.filter(project=project, split=Split.TRAIN).order_by("id").values_list("id", "metadata__tag")
    )
    settled = Consensus.objects.filter(project=project).exclude(group__state=GroupState.FLAGGED)
    labelled = settled.order_by("-labelled_at").values_list("group__prompt", "rewards")[:LOOKED_BACK]
    chances = choice.chances(
        {pk: str(tag or "") for pk, tag in prompts}, [(prompt, choice.spread(rewards)) for prompt, rewards in labelled]
    )
    even = sum(chances.values()) / len(chances) if chances else 1
    chosen = choice.draw(chances, missing, rng)
    return [create_group(project, pk, rng, chance=chances[pk] / even) for pk in chosen]


def create_group(project: Project, prompt_id: int, rng: random.Random, *, chance: float = 1) -> Group:
    """A queued group of the active version with fresh noise; the generate workers are told after commit. `chance` is the
    prompt's over that of an even draw."""
    group = Group.objects.create(
        project=project,
        prompt_id=prompt_id,
        version=project.active_version,
        first_seed=rng.randrange(SEED_SPACE),
        size=project.group_size,
        chance=chance,
    )
    Prompt.objects.filter(pk=prompt_id).update(shown=F("shown") + 1)
    enqueue("generate_group", group.pk)
    return group


@transaction.atomic
def claim_group_for_generation(group_id: int, worker: str) -> Group | None:
    """Make `worker` the group's owner: queued, or generating with a stale heartbeat. None when there is nothing to do. A
    group over which worker after worker was lost fails."""
    group = Group.objects.select_for_update().filter(pk=group_id).first()
    if group is None:
        return None
    now = timezone.now()
    if group.state == GroupState.GENERATING and group.heartbeat_at < now - GENERATION_STALE:
        if group.attempt >= MOST_LOSSES:
            group.error = f"the worker was lost {MOST_LOSSES} times over it; see its log"
            states.move(states.GROUP_MOVES, group, GroupState.FAILED)
            group.heartbeat_at = now
            group.save()
            events.publish(group.project_id, "queue")
            return None
        states.move(states.GROUP_MOVES, group, GroupState.QUEUED)
    if group.state != GroupState.QUEUED:
        return None
    states.move(states.GROUP_MOVES, group, GroupState.GENERATING)
    group.owner, group.heartbeat_at = worker, now
    group.token += 1
    group.attempt += 1
    group.save()
    return group


@transaction.atomic
def complete_group(group_id: int, token: int, sizes: Sequence[tuple[int, int]]) -> bool:
    """The owner of `token` wrote the images and the trajectory; False when another worker has taken the group over."""
    group = _owned(group_id, token)
    if group is None:
        return False
    states.move(states.GROUP_MOVES, group, GroupState.READY)
    group.trajectory_file = paths.trajectory(group.project_id, group.pk)
    group.error = ""
    group.save()
    Generation.objects.bulk_create(
        Generation(
            group=group,
            position=i,
            seed=group.first_seed + i,
            image=paths.image(group.project_id, group.pk, i),
            width=width,
            height=height,
        )
        for i, (width, height) in enumerate(sizes)
    )
    if group.project.label_source != LabelSource.PEOPLE:
        _queue_scoring(group)
    events.publish(group.project_id, "queue")
    return True


@transaction.atomic
def fail_group(group_id: int, token: int, error: str, *, counts: bool = True) -> None:
    """Note a failed attempt: back to the queue, or failed for good after `MOST_ATTEMPTS`. One that does not count had a
    reason outside the group, which ends by itself."""
    group = _owned(group_id, token)
    if group is None:
        return
    group.error = error[:4000]
    again = group.attempt < MOST_ATTEMPTS or not counts
    group.attempt -= not counts
    states.move(states.GROUP_MOVES, group, GroupState.QUEUED if again else GroupState.FAILED)
    group.save()
    events.publish(group.project_id, "queue")


@transaction.atomic
def report_damaged(generation: Generation, error: str) -> None:
    """An image cannot be shown: an undecided group leaves the queue and its error is on the dashboard. Its seeds are kept,
    so that it can be generated again."""
    group = Group.objects.select_for_update().get(pk=generation.group_id)
    group.error = f"image {generation.position + 1}: {error}"[:4000]
    if group.state == GroupState.READY and group.decisions == 0:
        states.move(states.GROUP_MOVES, group, GroupState.FAILED)
        group.heartbeat_at = timezone.now()
        group.leases.all().delete()
    group.save()
    events.publish(group.project_id, "queue")


def damage(group: Group) -> str:
    """What is wrong with the group's image files: empty, or the first one's number and error."""
    for image in group.generations.all():
        try:
            check_webp(io.BytesIO(storage.store().read(image.image)))
        except (OSError, ValueError) as error:
            return f"image {image.position + 1}: {image.image} cannot be shown: {error}"
    return ""


@transaction.atomic
def retry_group(project: Project, group_id: int) -> Group:
    """Generate a failed group again, from the same noise; ask the oracle again that failed over its images; look again
    at one that has labels and a damaged image.

    Raises LabellingError when it has neither failed nor been mended.
    """
    group = Group.objects.select_for_update().filter(pk=group_id, project=project).first()
    if group is not None and group.state != GroupState.FAILED and Scoring.objects.filter(group=group, next_at=None):
        _queue_scoring(group)
        return group
    if group is not None and group.state != GroupState.FAILED and group.error and group.generations.exists():
        # Labels belong to these very images: they are not made again, they come back from a back-up.
        group.error = damage(group)[:4000]
        if group.error:
            raise LabellingError(
                _("group: %(id)s is still damaged; restore the file from a back-up") % {"id": group_id}
            )
        group.save(update_fields=["error"])
        return group
    if group is None or group.state != GroupState.FAILED:
        raise LabellingError(_("group: %(id)s has not failed; there is nothing to try again") % {"id": group_id})
    states.move(states.GROUP_MOVES, group, GroupState.QUEUED)
    group.attempt, group.error = 0, ""
    group.save()
    group.generations.all().delete()
    enqueue("generate_group", group.pk)
    events.publish(project.pk, "queue")
    return group


def _owned(group_id: int, token: int) -> Group | None:
    group = Group.objects.select_for_update().select_related("project").get(pk=group_id)
    return group if group.token == token and group.state == GroupState.GENERATING else None


# ---------------------------------------------------------------- assignment


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


# ---------------------------------------------------------------- decisions

RATEABLE = (GroupState.READY, GroupState.DONE, GroupState.SUPERSEDED, GroupState.FLAGGED)  # work that was done counts


def submit_group(
    user, project: Project, group_id: int, answer: dict[int, bool], *, seconds: float, idempotency_key: str
) -> GroupDecision:
    """Keep a person's likes (True) and dislikes (False) of every image, by position.

    The same key with the same answer returns the first decision; with another answer it raises Conflict. Raises
    LabellingError when an image is undecided. A lease is not needed: work that was done counts.
    """

    def keep(group: Group, known: dict) -> None:
        generations = {g.position: g for g in group.generations.all()}
        if wrong := sorted(set(generations) ^ set(answer)):
            raise LabellingError(
                _("labels: image %(n)s is undecided or unknown; decide on every image") % {"n": wrong[0] + 1}
            )
        images = list(generations.values())
        labels = _set_labels(user, images, {generations[position]: liked for position, liked in answer.items()})
        group.decisions += 1  # the row is locked
        tie = quality.settle(group, images, labels, known).tie
        if known["is_gold"]:
            quality.record_gold(decision)
        if group.state == GroupState.READY and group.decisions >= quality.wanted(project, tie):
            states.move(states.GROUP_MOVES, group, GroupState.DONE)
        group.save(update_fields=["decisions", "state"])

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
    """Report a group (or its image at `position`) as broken or unsafe. It leaves the queue, everybody's, at once, and
    its labels are not used until a reviewer has looked at it."""
    if kind not in FlagKind.values:
        raise LabellingError(_("kind: send one of %(values)s") % {"values": ", ".join(FlagKind.values)})

    def keep(group: Group, known: dict) -> None:
        generation = None
        if position is not None:
            generation = group.generations.filter(position=position).first()
            if generation is None:
                raise LabellingError(_("position: the group has no image %(n)s") % {"n": position + 1})
        values = {"generation": generation, "kind": kind, "note": note.strip()[:300]}
        fresh = {"resolved_at": None, "resolved_by": None, "restored": None}
        Flag.objects.update_or_create(group=group, user=user, defaults={**values, **fresh})
        if group.state in (GroupState.READY, GroupState.DONE):
            states.move(states.GROUP_MOVES, group, GroupState.FLAGGED)
            group.save(update_fields=["state"])
        group.leases.all().delete()

    decision = GroupDecision(outcome=Outcome.FLAGGED, reason=kind)
    return _decide(user, project, group_id, idempotency_key, decision, keep)


def _decide(
    user, project: Project, group_id: int, key: str, decision: GroupDecision, keep: Callable[[Group, dict], None]
) -> GroupDecision:
    """Keep one decision and what belongs to it (`keep`, with the group locked and what `_known` says of it), once:
    replays and lost races are told apart here for every outcome."""
    if not key or len(key) > 64:
        raise LabellingError(_("idempotency_key: send 1 to 64 characters, the same ones when you try again"))
    decision.user, decision.group_id, decision.idempotency_key = user, group_id, key
    try:
        with transaction.atomic():
            group = Group.objects.select_for_update().filter(pk=group_id, project=project).first()
            known = None if group is None else _known(decision, project)
            asked_before = known is None or known["asked_before"]
            if asked_before and (replay := _replayed(decision)) is not None:
                return replay
            if group is None or group.state not in RATEABLE:
                raise LabellingError(
                    _("group: %(id)s is not there to be rated; ask for the next group") % {"id": group_id}
                )
            group.project = project
            decision.day = timezone.localdate()
            decision.save(force_insert=True)
            keep(group, known)
            Lease.objects.filter(group=group, user=user).delete()
            _count(decision, project, +1)
            events.publish(project.pk, "labels")
            return decision
    except IntegrityError as error:  # the same request twice at once: the other one won
        if (replay := _replayed(decision)) is not None:
            return replay
        raise Busy(_("group: it could not be kept because of another request; try again")) from error


# With the group locked: all that an answer has to know of it beside images and labels. In SQL, because Django takes
# longer to write this query than the database takes to answer it.
KNOWN = """SELECT
    (SELECT prior FROM quality_projectquality WHERE project_id = %(project)s ORDER BY id DESC LIMIT 1),
    EXISTS(SELECT 1 FROM quality_overrule o JOIN labelling_generation g ON g.id = o.generation_id
        WHERE g.group_id = %(group)s),
    EXISTS(SELECT 1 FROM quality_goldgroup WHERE group_id = %(group)s),
    EXISTS(SELECT 1 FROM labelling_groupdecision WHERE group_id = %(group)s AND user_id = %(user)s)
        OR EXISTS(SELECT 1 FROM labelling_groupdecision WHERE idempotency_key = %(key)s AND user_id = %(user)s)
        OR EXISTS(SELECT 1 FROM labelling_undonedecision WHERE idempotency_key = %(key)s AND user_id = %(user)s)"""


def _known(asked: GroupDecision, project: Project) -> dict:
    """What `quality.settle` would ask for (`prior`, `overruled`), whether the group `is_gold`, and `asked_before`: this
    key, or this person's word on this group, has been here already."""
    values = {
        "project": project.pk,
        "group": asked.group_id,
        "user": asked.user.pk,
        "key": asked.idempotency_key,
    }
    with connection.cursor() as cursor:
        cursor.execute(KNOWN, values)
        return dict(zip(("prior", "overruled", "is_gold", "asked_before"), cursor.fetchone(), strict=True))


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
        raise Conflict(_("group: you already decided on it; undo that first to change it"))
    return None


def _set_labels(user, images: Sequence[Generation], liked: dict[Generation, bool]) -> list[Label]:
    """Keep the person's labels, and give all that these images have now."""
    there = list(Label.objects.filter(generation__in=images))
    if old := [label.pk for label in there if label.annotator_id == user.pk]:
        Label.objects.filter(pk__in=old).delete()
    made = [Label(generation=g, annotator=user, liked=value) for g, value in liked.items()]
    Label.objects.bulk_create(made)
    LabelEvent.objects.bulk_create(LabelEvent(generation=g, annotator=user, liked=value) for g, value in liked.items())
    return [label for label in there if label.annotator_id != user.pk] + made


def _count(decision: GroupDecision, project: Project, sign: int) -> None:
    """Add the decision to the person's tally of its day, or take it out (`sign` -1)."""
    submitted = decision.outcome == Outcome.SUBMITTED
    amounts = {
        "groups": int(submitted),
        "images": len(decision.answer),
        "likes": sum(decision.answer.values()),
        "skips": int(not submitted),
        "seconds": decision.seconds if submitted else 0,
    }
    day = decision.day or decision.created_at.date()
    changes = {name: F(name) + sign * n for name, n in amounts.items()}
    tally = Tally.objects.filter(user=decision.user, project=project, day=day)
    if not tally.update(**changes):  # the first of the day
        Tally.objects.get_or_create(user=decision.user, project=project, day=day)
        tally.update(**changes)


@transaction.atomic
def undo(user, project: Project, key: str = "") -> tuple[Group, dict] | None:
    """Take back the person's decision of that idempotency key, the latest one without a key, and lease the group to
    them again: (group, their answer), or None when there is none.

    The labels go, their history stays. A key that is not known yet is kept as taken back: its request may be late.
    """
    mine = GroupDecision.objects.filter(user=user, group__project=project)
    if key:
        mine = mine.filter(idempotency_key=key)
    found = mine.order_by("-created_at", "-pk").first()
    group = Group.objects.select_for_update().get(pk=found.group_id) if found else None
    # Read again under the lock: the same request may have come twice.
    decision = GroupDecision.objects.filter(pk=found.pk).first() if found else None
    if key or decision is not None:
        UndoneDecision.objects.get_or_create(
            user=user,
            idempotency_key=(key or decision.idempotency_key)[:64],
            defaults={"group": group, "outcome": decision.outcome, "answer": decision.answer} if decision else {},
        )
    if decision is None:
        return None
    if decision.outcome == Outcome.SUBMITTED:
        labels = Label.objects.filter(generation__group=group, annotator=user)
        LabelEvent.objects.bulk_create(
            LabelEvent(generation_id=label.generation_id, annotator=user, liked=None) for label in labels
        )
        labels.delete()
        group.decisions = max(0, group.decisions - 1)
        left = quality.settle(group)
        quality.forget_gold(group.pk, user.pk)
        needed = quality.wanted(project, left is not None and left.tie)
        if group.state == GroupState.DONE and group.decisions < needed:
            states.move(states.GROUP_MOVES, group, GroupState.READY)
        group.save(update_fields=["decisions", "state"])
    elif decision.outcome == Outcome.FLAGGED:
        Flag.objects.filter(group=group, user=user, resolved_at=None).delete()
        _back_from_flags(group)
    answer = decision.answer
    _count(decision, project, -1)
    decision.delete()
    Lease.objects.update_or_create(group=group, user=user, defaults={"expires_at": timezone.now() + LEASE})
    events.publish(project.pk, "labels")
    return group, answer


# ---------------------------------------------------------------- flags


@transaction.atomic
def resolve_flags(user, project: Project, group_id: int, *, restore: bool) -> Group:
    """A reviewer has looked at a flagged group: back to the queue, or out of it for good with its labels unused."""
    group = Group.objects.select_for_update().filter(pk=group_id, project=project).first()
    if group is None:
        raise LabellingError(_("group: %(id)s is not there; reload the list of flags") % {"id": group_id})
    group.flags.filter(resolved_at=None).update(resolved_at=timezone.now(), resolved_by=user, restored=restore)
    if restore:
        _back_from_flags(group)
    events.publish(project.pk, "labels")
    return group


def _back_from_flags(group: Group) -> None:
    """Back to where the group was, unless a flag is still open or a reviewer kept it out."""
    if group.state != GroupState.FLAGGED or group.flags.filter(Q(resolved_at=None) | Q(restored=False)).exists():
        return
    tie = Consensus.objects.filter(group=group, tie=True).exists()
    done = group.decisions >= quality.wanted(group.project, tie)
    states.move(states.GROUP_MOVES, group, GroupState.DONE if done else GroupState.READY)
    group.save(update_fields=["state"])


# ---------------------------------------------------------------- examples of the guidelines


def add_example(project: Project, generation_id: int, *, good: bool, note: str) -> Example:
    """Show an image beside the guidelines as one to be liked (`good`) or disliked."""
    generation = Generation.objects.filter(pk=generation_id, group__project=project).first()
    if generation is None:
        raise LabellingError(_("image: %(id)s is not in this project") % {"id": generation_id})
    others = Example.objects.filter(generation__group__project=project).exclude(generation=generation)
    if others.count() >= MOST_EXAMPLES:
        raise LabellingError(
            _("examples: there are %(n)s, which is all that people will look at; remove one first")
            % {"n": MOST_EXAMPLES}
        )
    values = {"good": good, "note": note.strip()[:200]}
    return Example.objects.update_or_create(generation=generation, defaults=values)[0]


def remove_example(project: Project, example_id: int) -> None:
    """Show the example no longer; one that is gone already is fine."""
    Example.objects.filter(pk=example_id, generation__group__project=project).delete()


# ---------------------------------------------------------------- preferences


def save_keys(user, chosen: dict[str, str], *, keys_on: bool) -> Preferences:
    """Keep which key does what for this person. Raises keys.KeyChoiceError that names the command."""
    differences = keys.check(chosen)
    preferences, _new = Preferences.objects.update_or_create(
        user=user, defaults={"keys": differences, "keys_on": keys_on}
    )
    return preferences


# ---------------------------------------------------------------- oracles


def _queue_scoring(group: Group) -> None:
    Scoring.objects.update_or_create(group=group, defaults={"next_at": timezone.now(), "attempts": 0, "error": ""})
    enqueue("score_group", group.pk)


def scorings_due() -> list[int]:
    """Ids of groups that an oracle should label, the longest waiting first."""
    return list(
        Scoring.objects.filter(next_at__lte=timezone.now()).order_by("next_at").values_list("group", flat=True)[:200]
    )


@transaction.atomic
def claim_scoring(group_id: int) -> Scoring | None:
    """The worker that is given the row asks the oracle. None when there is nothing to do, or another worker is at it."""
    now = timezone.now()
    row = Scoring.objects.select_for_update(of=("self",)).filter(group=group_id, next_at__lte=now).first()
    if row is None:
        return None
    if row.attempts >= MOST_SCORINGS:
        row.next_at, row.error = None, row.error or "the worker was lost over it; see its log"
        row.save()
        return None
    row.next_at = now + SCORING_STALE
    row.attempts += 1
    row.save()
    return row


@transaction.atomic
def fail_scoring(group_id: int, attempt: int, error: str, *, counts: bool = True) -> None:
    """The oracle gave no labels at this attempt: asked again later, or given up; see `fail_group`."""
    row = Scoring.objects.select_for_update().filter(group=group_id, attempts=attempt).first()
    if row is None:
        return
    row.attempts -= not counts
    again = timezone.now() + min(LONGEST_WAIT, FIRST_WAIT * 2 ** max(0, row.attempts - 1))
    row.next_at, row.error = again if row.attempts < MOST_SCORINGS else None, error[:500]
    row.save()


@transaction.atomic
def record_oracle_labels(group_id: int, oracle: str, verdicts: Sequence[dict]) -> None:
    """Keep an oracle's verdicts `{score, liked, reason}`, one an image. With the oracle alone the group is then done."""
    group = Group.objects.select_for_update().select_related("project").get(pk=group_id)
    for generation, verdict in zip(group.generations.all(), verdicts, strict=True):
        values = {"liked": verdict["liked"], "score": verdict["score"], "reason": verdict["reason"][:300]}
        Label.objects.update_or_create(generation=generation, annotator=None, oracle=oracle, defaults=values)
        LabelEvent.objects.create(generation=generation, oracle=oracle, liked=verdict["liked"])
    if oracle == group.project.oracle:
        Scoring.objects.filter(group=group).delete()
    quality.settle(group)
    if group.project.label_source == LabelSource.ORACLE and group.state == GroupState.READY:
        states.move(states.GROUP_MOVES, group, GroupState.DONE)
        group.save(update_fields=["state"])
    events.publish(group.project_id, "labels")


def supersede_groups(project: Project, version) -> int:
    """Drop the unrated groups of other versions than `version` that nobody is looking at; returns how many."""
    now = timezone.now()
    return (
        Group.objects.filter(project=project, state__in=[GroupState.QUEUED, GroupState.READY], decisions=0)
        .exclude(version=version)
        .exclude(pk__in=Lease.objects.filter(expires_at__gt=now).values("group"))
        .update(state=GroupState.SUPERSEDED)
    )
