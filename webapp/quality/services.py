"""Writes of quality: what a group's labels come to, gold groups and their answers, reviewers' last words, measurements."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta

from django.db import transaction
from django.db.models import Count, Exists, F, OuterRef, Q, Subquery
from django.utils import timezone
from django.utils.translation import gettext as _

from common.signal import has_signal
from webapp.campaigns.audit import audit
from webapp.campaigns.models import Project
from webapp.labelling.models import (
    Cause,
    Flag,
    Generation,
    Group,
    GroupDecision,
    GroupState,
    Label,
    LabelEvent,
    Lease,
    Outcome,
)
from webapp.lib import events, options
from webapp.lib.prepared import insert
from webapp.quality import counts, judges, measure
from webapp.quality.asking import Asking
from webapp.quality.consensus import Reliability, Vote, certainty, reward, tied
from webapp.quality.models import (
    Consensus,
    GoldAnswer,
    GoldGroup,
    GoldKind,
    LastLook,
    Overrule,
    PersonQuality,
    ProjectQuality,
)
from webapp.quality.reliability import MEASURED_AFTER
from webapp.raters.models import PracticeAnswer

CHUNK = 500  # groups settled a transaction
CERTAIN = 0.9  # an oracle's score beyond which (or below 1 - it) gold may be made of an image
OBVIOUS = 0.98  # the same for an attention check
GOLD_KEPT = 200  # active gold groups of oracles a project has at most
MEASURED_EVERY = timedelta(minutes=5)
COMPARED = timedelta(days=30)  # of answers to gold groups: a worker that was away for longer leaves them


class QualityError(ValueError):
    """A request that cannot be carried out; the message names the field and the fix."""


# ---------------------------------------------------------------- consensus


def reliabilities(project_id: int) -> dict[int, Reliability]:
    """The measured people of a project."""
    rows = PersonQuality.objects.filter(project_id=project_id, like_accuracy__isnull=False)
    return {q.user_id: Reliability(q.like_accuracy, q.dislike_accuracy) for q in rows}


def prior_of(project_id: int) -> float | None:
    """The estimated share of liked images, None before the first measurement."""
    return ProjectQuality.objects.filter(project_id=project_id).values_list("prior", flat=True).first()


def settle(
    group: Group,
    generations: Sequence[Generation] | None = None,
    labels: Sequence[Label] | None = None,
    facts: dict | None = None,
) -> Consensus | None:
    """Write what the group's labels come to now; the caller holds the group's row, and may have its images, all their
    labels, and the facts `prior` and `overruled` (whether a reviewer spoke). None when it has no label."""
    return settle_groups(group.project, [group], generations, labels, facts)[0]


def settle_groups(
    project: Project,
    groups: Sequence[Group],
    generations: Sequence[Generation] | None = None,
    all_labels: Sequence[Label] | None = None,
    facts: dict | None = None,
) -> list[Consensus | None]:
    """`settle` for many groups of one project in a fixed number of queries."""
    prior = prior_of(project.pk) if facts is None else facts["prior"]
    reliable = reliabilities(project.pk) if prior is not None else {}
    prior = 0.5 if prior is None else prior
    ids = [g.pk for g in groups]
    images: dict[int, list[int]] = {pk: [] for pk in ids}
    if generations is None:
        generations = Generation.objects.filter(group__in=ids).only("group_id", "position")
    for image in sorted(generations, key=lambda g: g.position):
        images[image.group_id].append(image.pk)
    labels: dict[int, list[Label]] = {}
    if all_labels is None:
        all_labels = Label.objects.filter(generation__group__in=ids).only(
            "generation_id", "annotator_id", "oracle", "liked", "score", "created_at"
        )
    for label in all_labels:
        labels.setdefault(label.generation_id, []).append(label)
    final = _overruled(ids) if facts is None or facts["overruled"] else {}
    results: list[Consensus | None] = []
    for group in groups:
        found = [label for pk in images[group.pk] for label in labels.get(pk, [])]
        spoken = [final[pk] for pk in images[group.pk] if pk in final]
        if not found and not spoken:
            results.append(None)
            continue
        rewards, split, images_votes = [], False, []
        for pk in images[group.pk]:
            mine = labels.get(pk, [])
            votes = [Vote(v.liked, reliable.get(v.annotator_id)) for v in mine if v.annotator_id is not None]
            judged = [v for v in mine if v.annotator_id is None]
            # One that was chosen later counts alone once it has judged the image.
            judged = [v for v in judged if v.oracle == project.oracle] or judged
            scores = [v.score if v.score is not None else float(v.liked) for v in judged]
            overruled = final[pk].liked if pk in final else None
            value = reward(overruled=overruled, votes=votes, scores=scores, prior=prior)
            rewards.append(None if value is None else round(value, 4))
            split = split or (overruled is None and tied(votes))
            images_votes.append((overruled, votes))
        people = len({v.annotator_id for v in found if v.annotator_id is not None})
        results.append(
            Consensus(
                group=group,
                project=project,
                rewards=rewards,
                signal=has_signal(rewards),
                tie=split and people >= project.last_asked,
                people=people,
                certainty=round(certainty(images_votes, prior), 4) if people else 0.0,
                labelled_at=max(v.created_at for v in [*found, *spoken]),
            )
        )
    if bare := [g.pk for g, r in zip(groups, results, strict=True) if r is None]:
        Consensus.objects.filter(group__in=bare).delete()
    insert([r for r in results if r is not None], over=["group"])
    return results


def _overruled(group_ids: Sequence[int]) -> dict[int, Overrule]:
    """The reviewers' words that count, by image."""
    newest: dict[int, Overrule] = {}
    for word in Overrule.objects.filter(generation__group__in=group_ids).order_by("id"):
        newest[word.generation_id] = word
    return {pk: word for pk, word in newest.items() if word.liked is not None}


def wanted(project: Project, answers: int, found: Consensus | None) -> int:
    """How many people a group with so many answers needs, by what its labels come to (`asking`)."""
    asking = Asking.of(project)
    return asking.wanted(answers) if found is None else asking.wanted(answers, found.tie, found.certainty)


@transaction.atomic
def overrule(reviewer, project: Project, words: dict[int, bool | None], reason: str) -> list[Overrule]:
    """A reviewer's last word on images of one group: generation id → like, dislike, or None to take a word back.

    Labels stay as they were given; the images' rewards follow the reviewer. Raises QualityError without a reason.
    """
    reason = reason.strip()
    if len(reason) < 3:
        raise QualityError(_("reason: say why in a few words; the annotators may read it"))
    images = list(Generation.objects.filter(pk__in=words, group__project=project).select_related("group"))
    if not words or len(images) != len(words) or len({i.group_id for i in images}) != 1:
        raise QualityError(_("images: choose images of one group of this project"))
    group = Group.objects.select_for_update().get(pk=images[0].group_id)
    made = [
        Overrule.objects.create(generation=image, reviewer=reviewer, liked=words[image.pk], reason=reason[:300])
        for image in images
    ]
    LabelEvent.objects.bulk_create(
        LabelEvent(generation=i, annotator=reviewer, liked=words[i.pk], cause=Cause.OVERRULED) for i in images
    )
    settle(group)
    audit(project, reviewer, "labels overruled", group=group.pk, images=len(made), reason=reason[:300])
    events.publish(project.pk, "labels")
    return made


# ---------------------------------------------------------------- gold


@transaction.atomic
def make_gold(group: Group, kind: str, answer: dict[int, bool], by=None) -> GoldGroup:
    """Show a rated group again to people who have not seen it. Raises QualityError when it cannot tell anything."""
    if group.state != GroupState.DONE:
        raise QualityError(_("group: it is %(state)s; only a labelled group can be gold") % {"state": group.state})
    if len(answer) < 2 or len(set(answer.values())) < 2:
        raise QualityError(_("answer: a gold group needs an image to like and one to dislike"))
    gold, _new = GoldGroup.objects.update_or_create(
        group=group,
        defaults={
            "project": group.project,
            "kind": kind,
            "answer": {str(k): v for k, v in sorted(answer.items())},
            "active": True,
            "created_by": by,
        },
    )
    if by is not None:
        audit(group.project, by, "gold group made", group=group.pk)
    return gold


@transaction.atomic
def retire_gold(project: Project, gold_id: int, by) -> None:
    """Show a gold group to nobody any more; its answers stay."""
    if project.gold_groups.filter(pk=gold_id, active=True).update(active=False):
        audit(project, by, "gold group retired", gold=gold_id)


def pick_gold(user, project: Project, count: int, *, rng: random.Random | None = None) -> list[Group]:
    """Up to `count` gold groups that this person never had, in practice neither, the least answered of a few at random."""
    flagged = Flag.objects.filter(group=OuterRef("group"), resolved_at=None)
    unseen = (
        GoldGroup.objects.filter(project=project, active=True, group__state=GroupState.DONE)
        .filter(~Exists(GroupDecision.objects.filter(group=OuterRef("group"), user=user)))
        .filter(~Exists(GoldAnswer.objects.filter(gold=OuterRef("pk"), user=user)))
        .filter(~Exists(Lease.objects.filter(group=OuterRef("group"), user=user)))
        .filter(~Exists(PracticeAnswer.objects.filter(gold=OuterRef("pk"), practice__user=user)))
        .filter(~Exists(flagged))
    )
    ids = list(unseen.order_by("id").values_list("pk", flat=True)[:GOLD_KEPT])
    some = (rng or random).sample(ids, min(5 * count, len(ids)))
    found = GoldGroup.objects.filter(pk__in=some).select_related("group__project", "group__prompt")
    return [gold.group for gold in found.annotate(n=Count("answers")).order_by("n", "?")[:count]]


def compare_with_gold() -> int:
    """Compare what people answered to gold groups with the known answers, once nothing of it can be undone any more;
    returns how many. A worker does it, so that an answer takes as long as one to any other group."""
    final = timezone.now() - options.UNDO
    decisions = GroupDecision.objects.filter(
        ~Exists(GoldAnswer.objects.filter(gold__group=OuterRef("group"), user=OuterRef("user"))),
        outcome=Outcome.SUBMITTED,
        group__gold__isnull=False,
        created_at__gt=F("group__gold__created_at"),  # who answered before made it gold
        created_at__range=(final - COMPARED, final),
    )
    made = []
    for decision in decisions.select_related("group__gold"):
        gold = decision.group.gold
        right = sum(decision.answer.get(position) == liked for position, liked in gold.answer.items())
        made.append(GoldAnswer(gold=gold, user_id=decision.user_id, right=right, total=len(gold.answer)))
    return len(GoldAnswer.objects.bulk_create(made, ignore_conflicts=True))


def find_gold(project: Project) -> int:
    """Make gold of labelled groups that an oracle is certain about, up to `GOLD_KEPT`; returns how many are new.

    Only images whose score is beyond `CERTAIN` either way are in the answer; where all are beyond `OBVIOUS` the group
    is an attention check.
    """
    if project.gold_rate <= 0:
        return 0
    missing = GOLD_KEPT - project.gold_groups.filter(active=True).exclude(kind=GoldKind.REVIEW).count()
    if missing <= 0:
        return 0
    candidates = (
        Group.objects.filter(project=project, state=GroupState.DONE, gold=None)
        .filter(Exists(Label.objects.filter(generation__group=OuterRef("pk"), annotator=None, score__gte=CERTAIN)))
        .filter(Exists(Label.objects.filter(generation__group=OuterRef("pk"), annotator=None, score__lte=1 - CERTAIN)))
        .order_by("-id")[:missing]
    )
    made = 0
    for group in candidates:
        scores: dict[int, list[float]] = {}
        rows = Label.objects.filter(generation__group=group, annotator=None, score__isnull=False)
        for position, score in rows.values_list("generation__position", "score"):
            scores.setdefault(position, []).append(score)
        answer = {p: min(s) >= CERTAIN for p, s in scores.items() if min(s) >= CERTAIN or max(s) <= 1 - CERTAIN}
        if len(set(answer.values())) < 2:
            continue
        obvious = len(answer) == group.size and all(min(s) >= OBVIOUS or max(s) <= 1 - OBVIOUS for s in scores.values())
        make_gold(group, GoldKind.ATTENTION if obvious else GoldKind.ORACLE, answer)
        made += 1
    return made


# ---------------------------------------------------------------- measuring


def measure_project(project: Project) -> ProjectQuality | None:
    """Look for gold, count what was labelled when, measure everybody and the oracles, settle again the groups of those
    whose reliability moved. Slow: for a worker.

    None when there is no label of people that the last measurement had not seen.
    """
    began = timezone.now()
    find_gold(project)
    counts.count_quarters(project)
    counts.count_versions(project)
    measure_oracles(project)
    found = _measure_people(project)
    LastLook.objects.update_or_create(project=project, defaults={"looked_at": began})
    return found


def _measure_people(project: Project) -> ProjectQuality | None:
    people_labels = Label.objects.filter(generation__group__project=project, annotator__isnull=False)
    count = people_labels.count()
    last = project.qualities.first()
    if count == 0 or (last is not None and last.labels == count and last.created_at > _newest(people_labels)):
        return None
    before = reliabilities(project.pk)
    found = measure.measure(project)
    now = timezone.now()
    with transaction.atomic():
        for person in found.people:
            trusted = person.shared >= MEASURED_AFTER
            values = {
                "groups": person.groups,
                "labels": person.labels,
                "likes": person.likes,
                "seconds_per_image": person.seconds_per_image,
                "shared": person.shared,
                "agreement": person.agreement,
                "bias": person.bias,
                "like_accuracy": person.like_accuracy if trusted else None,
                "dislike_accuracy": person.dislike_accuracy if trusted else None,
                "hasty": person.hasty,
                "measured_at": now,
            }
            PersonQuality.objects.update_or_create(project=project, user_id=person.user_id, defaults=values)
        quality = ProjectQuality.objects.create(
            project=project,
            alpha=found.alpha,
            prior=found.prior,
            labels=count,
            shared=found.shared,
            people=len(found.people),
        )
    after = reliabilities(project.pk)
    moved = [user for user, rates in after.items() if user not in before or rates.moved(before[user])]
    settle_all(project, moved)
    return quality


def measure_oracles(project: Project, *, again: bool = False) -> bool:
    """Measure the oracles, unless nothing was labelled, overruled or made gold since (`again`: all the same); returns
    whether it did."""
    last = project.oracle_qualities.values_list("measured_at", flat=True).first()
    labels = Label.objects.filter(generation__group__project=project)
    words = Overrule.objects.filter(generation__group__project=project)
    if (
        not again
        and last is not None
        and last > max(_newest(rows) for rows in (labels, words, project.gold_groups.all()))
    ):
        return False
    judges.measure(project, _overruled)
    return True


def due() -> list[int]:
    """Ids of projects with labels, an oracle's too, that are newer than the last look at them, which is `MEASURED_EVERY`
    old."""
    old = timezone.now() - MEASURED_EVERY
    newest = Consensus.objects.filter(project=OuterRef("pk")).order_by("-labelled_at").values("labelled_at")[:1]
    looked = F("last_look__looked_at")
    rows = (
        Project.objects.filter(archived_at=None)
        .annotate(newest=Subquery(newest), looked=looked)
        .filter(Q(looked=None) | Q(looked__lt=old, newest__gt=F("looked")), newest__isnull=False)
    )
    return list(rows.values_list("pk", flat=True))


def _newest(rows):
    newest = rows.order_by("-id").values_list("created_at", flat=True).first()
    return newest or timezone.now() - timedelta(days=36_500)


def settle_all(project: Project, people: Sequence[int]) -> int:
    """Settle the groups that these people (ids) labelled with their reliabilities of now, in chunks; returns how many."""
    last, settled = 0, 0
    theirs = Group.objects.filter(
        Exists(Label.objects.filter(generation__group=OuterRef("pk"), annotator__in=people)), project=project
    )
    while True:
        with transaction.atomic():
            ids = list(theirs.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:CHUNK])
            if not ids:
                return settled
            settle_groups(project, list(Group.objects.select_for_update().filter(pk__in=ids).order_by("pk")))
        last, settled = ids[-1], settled + len(ids)
