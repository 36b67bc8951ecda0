"""Writes of the labelling queue: groups to be generated, leases, decisions, labels.

Every function is one transaction. A label that a caller was told about is committed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import Count, Exists, F, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from webapp import events, paths, states
from webapp.campaigns.models import LabelSource, Project, Prompt, Split
from webapp.dispatch import enqueue
from webapp.labelling.models import (
    Generation,
    Group,
    GroupDecision,
    GroupState,
    Label,
    LabelEvent,
    Lease,
    Outcome,
)
from webapp.quality import services as quality
from webapp.quality.models import Consensus

LEASE = timedelta(minutes=10)
GENERATION_STALE = 5 * timedelta(seconds=settings.LIKESTEP_STALE_SECONDS)  # generating does not beat
MOST_ATTEMPTS = 3
MOST_LEASES = 4  # a person's page holds one group and prefetches two
RACES = 5  # tries before a person who lost every race is told that nothing waits
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

    Prompts that were shown least come first, at random among equals.
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
    untouched = (
        project.groups.filter(state=GroupState.READY, version=project.active_version, group_decisions=None)
        .exclude(pk__in=Lease.objects.filter(expires_at__gt=now).values("group"))
        .count()
    )
    waiting = coming + untouched
    missing = project.ready_target - waiting
    if missing <= 0:
        return []
    rng = rng or random.Random()
    prompts = list(Prompt.objects.filter(project=project, split=Split.TRAIN).values_list("id", "shown"))
    rng.shuffle(prompts)
    prompts.sort(key=lambda row: row[1])
    if not prompts:
        return []
    return [create_group(project, prompts[i % len(prompts)][0], rng) for i in range(missing)]


def create_group(project: Project, prompt_id: int, rng: random.Random) -> Group:
    """A queued group of the active version with fresh noise; the generate workers are told after commit."""
    group = Group.objects.create(
        project=project,
        prompt_id=prompt_id,
        version=project.active_version,
        first_seed=rng.randrange(SEED_SPACE),
        size=project.group_size,
    )
    Prompt.objects.filter(pk=prompt_id).update(shown=F("shown") + 1)
    enqueue("generate_group", group.pk)
    return group


@transaction.atomic
def claim_group_for_generation(group_id: int, worker: str) -> Group | None:
    """Make `worker` the group's owner: queued, or generating with a stale heartbeat. None when there is nothing to do."""
    group = Group.objects.select_for_update().filter(pk=group_id).first()
    if group is None:
        return None
    now = timezone.now()
    if group.state == GroupState.GENERATING and group.heartbeat_at < now - GENERATION_STALE:
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
        enqueue("score_group", group.pk)
    events.publish(group.project_id, "queue")
    return True


@transaction.atomic
def fail_group(group_id: int, token: int, error: str) -> None:
    """Note a failed attempt: back to the queue, or failed for good after `MOST_ATTEMPTS`."""
    group = _owned(group_id, token)
    if group is None:
        return
    group.error = error[:4000]
    again = group.attempt < MOST_ATTEMPTS
    states.move(states.GROUP_MOVES, group, GroupState.QUEUED if again else GroupState.FAILED)
    group.save()
    events.publish(group.project_id, "queue")


def _owned(group_id: int, token: int) -> Group | None:
    group = Group.objects.select_for_update().select_related("project").get(pk=group_id)
    return group if group.token == token and group.state == GroupState.GENERATING else None


# ---------------------------------------------------------------- assignment


def lease_groups(user, project: Project, count: int = 1, *, rng: random.Random | None = None) -> list[Group]:
    """Up to `count` groups for a person to rate: those already leased to them first, then new leases.

    A group is never given to someone who decided on it, nor to more people than the overlap asks for. The database
    decides races: candidate rows are locked on PostgreSQL (others skip over them), and SQLite has one writer at a time.
    """
    if project.archived_at is not None:
        return []
    count = min(count, MOST_LEASES)
    for _ in range(RACES):
        with transaction.atomic():
            now = timezone.now()
            Lease.objects.filter(user=user, group__project=project, expires_at__gt=now).update(expires_at=now + LEASE)
            mine = list(
                # A gold group is done already, and is shown all the same.
                Group.objects.filter(
                    Q(state=GroupState.READY) | Q(state=GroupState.DONE, gold__isnull=False),
                    project=project,
                    leases__user=user,
                    leases__expires_at__gt=now,
                )
                .exclude(group_decisions__user=user)
                .order_by("leases__id")[:count]
            )
            if len(mine) < count:
                mine += _take(user, project, count - len(mine), now, rng or random.Random())
        if mine:
            break
    return mine


def _take(user, project: Project, count: int, now, rng: random.Random) -> list[Group]:
    """New leases on groups that need one more person: decisions + live leases of others < what the group needs.

    At the project's gold rate a group whose answer is known stands in for one of them, which stays in the queue.
    """
    live = (
        Lease.objects.filter(group=OuterRef("pk"), expires_at__gt=now)
        .order_by()
        .values("group")
        .annotate(n=Count("pk"))
        .values("n")
    )
    candidates = (
        Group.objects.filter(project=project, state=GroupState.READY)
        .filter(~Exists(Lease.objects.filter(group=OuterRef("pk"), user=user, expires_at__gt=now)))
        .filter(~Exists(GroupDecision.objects.filter(group=OuterRef("pk"), user=user)))
        .annotate(taken=F("decisions") + Coalesce(Subquery(live), 0))
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
    groups = [g for g in locked[:count] if _needs_one_more(g, user, project, now)]
    for i, group in enumerate(groups):
        if project.gold_rate and rng.random() < project.gold_rate:
            group = groups[i] = quality.pick_gold(user, project, rng=rng) or group
        Lease.objects.update_or_create(group=group, user=user, defaults={"expires_at": now + LEASE})
    return groups


def _needs_one_more(group: Group, user, project: Project, now) -> bool:
    """Asked again with the row locked: the query may have read it just before another person's lease was committed."""
    others = group.leases.filter(expires_at__gt=now).exclude(user=user).count()
    submitted = group.group_decisions.filter(outcome=Outcome.SUBMITTED).count()
    tie = project.tie_break and Consensus.objects.filter(group=group, tie=True).exists()
    return others + submitted < quality.wanted(project, tie)


def expire_leases() -> int:
    """Delete leases that ran out; returns how many."""
    return Lease.objects.filter(expires_at__lte=timezone.now()).delete()[0]


# ---------------------------------------------------------------- decisions


def submit_group(
    user, project: Project, group_id: int, answer: dict[int, bool], *, seconds: float, idempotency_key: str
) -> GroupDecision:
    """Keep a person's likes (True) and dislikes (False) of every image, by position.

    The same key with the same answer returns the first decision; with another answer it raises Conflict. Raises
    LabellingError when an image is undecided. A lease is not needed: work that was done counts.
    """
    if not idempotency_key or len(idempotency_key) > 64:
        raise LabellingError("idempotency_key: send 1 to 64 characters, the same ones when you try again")
    plain = {str(k): v for k, v in sorted(answer.items())}
    try:
        with transaction.atomic():
            if (replay := _replayed(user, group_id, idempotency_key, plain)) is not None:
                return replay
            group = Group.objects.select_for_update().filter(pk=group_id, project=project).first()
            if group is None or group.state not in (GroupState.READY, GroupState.DONE, GroupState.SUPERSEDED):
                raise LabellingError(f"group: {group_id} is not there to be rated; ask for the next group")
            generations = {g.position: g for g in group.generations.all()}
            if wrong := sorted(set(generations) ^ set(answer)):
                raise LabellingError(f"labels: image {wrong[0] + 1} is undecided or unknown; decide on every image")
            decision = GroupDecision.objects.create(
                group=group,
                user=user,
                outcome=Outcome.SUBMITTED,
                seconds=max(0.0, min(seconds, 86_400.0)),
                idempotency_key=idempotency_key,
                answer=plain,
            )
            for position, liked in answer.items():
                _set_label(generations[position], user, liked)
            group.decisions += 1  # the row is locked
            tie = quality.settle(group).tie
            quality.record_gold(decision)
            if group.state == GroupState.READY and group.decisions >= quality.wanted(project, tie):
                states.move(states.GROUP_MOVES, group, GroupState.DONE)
            group.save(update_fields=["decisions", "state"])
            Lease.objects.filter(group=group, user=user).delete()
            events.publish(project.pk, "labels")
            return decision
    except IntegrityError as error:  # the same request twice at once: the other one won
        if (replay := _replayed(user, group_id, idempotency_key, plain)) is not None:
            return replay
        raise Busy("group: it could not be kept because of another request; try again") from error


def _replayed(user, group_id: int, key: str, plain: dict) -> GroupDecision | None:
    done = GroupDecision.objects.filter(user=user, idempotency_key=key).first()
    if done is not None:
        if done.group_id == group_id and done.answer == plain:
            return done
        raise Conflict("idempotency_key: it was used for another answer; use a new key for a new answer")
    if GroupDecision.objects.filter(user=user, group_id=group_id).exists():
        raise Conflict("group: you already decided on it; undo that first to change it")
    return None


def _set_label(generation: Generation, user, liked: bool) -> None:
    Label.objects.update_or_create(generation=generation, annotator=user, oracle="", defaults={"liked": liked})
    LabelEvent.objects.create(generation=generation, annotator=user, liked=liked)


@transaction.atomic
def skip_group(user, project: Project, group_id: int, *, reason: str, idempotency_key: str) -> GroupDecision:
    """Leave a group without labels; it goes to someone else and never comes back to this person."""
    if (replay := _replayed(user, group_id, idempotency_key, {})) is not None:
        return replay
    group = Group.objects.filter(pk=group_id, project=project).first()
    if group is None:
        raise LabellingError(f"group: {group_id} is not there to be skipped; ask for the next group")
    decision = GroupDecision.objects.create(
        group=group, user=user, outcome=Outcome.SKIPPED, reason=reason[:300], idempotency_key=idempotency_key
    )
    Lease.objects.filter(group=group, user=user).delete()
    return decision


@transaction.atomic
def undo_last(user, project: Project) -> tuple[Group, dict] | None:
    """Take the person's latest decision back and lease the group to them again: (group, their answer), or None.

    The labels go, their history stays.
    """
    decision = GroupDecision.objects.filter(user=user, group__project=project).order_by("-created_at", "-pk").first()
    if decision is None:
        return None
    group = Group.objects.select_for_update().get(pk=decision.group_id)
    if decision.outcome == Outcome.SUBMITTED:
        for label in Label.objects.filter(generation__group=group, annotator=user):
            LabelEvent.objects.create(generation_id=label.generation_id, annotator=user, liked=None)
            label.delete()
        group.decisions = max(0, group.decisions - 1)
        left = quality.settle(group)
        quality.forget_gold(group.pk, user.pk)
        needed = quality.wanted(project, left is not None and left.tie)
        if group.state == GroupState.DONE and group.decisions < needed:
            states.move(states.GROUP_MOVES, group, GroupState.READY)
        group.save(update_fields=["decisions", "state"])
    answer = decision.answer
    decision.delete()
    Lease.objects.update_or_create(group=group, user=user, defaults={"expires_at": timezone.now() + LEASE})
    events.publish(project.pk, "labels")
    return group, answer


@transaction.atomic
def record_oracle_labels(group_id: int, oracle: str, verdicts: Sequence[dict]) -> None:
    """Keep an oracle's verdicts `{score, liked, reason}`, one an image. With the oracle alone the group is then done."""
    group = Group.objects.select_for_update().select_related("project").get(pk=group_id)
    for generation, verdict in zip(group.generations.all(), verdicts, strict=True):
        values = {"liked": verdict["liked"], "score": verdict["score"], "reason": verdict["reason"][:300]}
        Label.objects.update_or_create(generation=generation, annotator=None, oracle=oracle, defaults=values)
        LabelEvent.objects.create(generation=generation, oracle=oracle, liked=verdict["liked"])
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
