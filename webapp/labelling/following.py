"""What is derived of a project's settings follows when they change: which groups are done, which the oracle judges, which
of its scores are likes."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Sum
from django.utils import timezone
from django.utils.translation import gettext as _

from webapp.campaigns.archive import check_open
from webapp.campaigns.audit import audit
from webapp.campaigns.models import LabelSource, Project
from webapp.campaigns.queries import unjudged
from webapp.campaigns.services import update_project
from webapp.labelling import history
from webapp.labelling.errors import LabellingError
from webapp.labelling.models import Group, GroupState, Label, Scoring
from webapp.lib import events, states
from webapp.lib.dispatch import enqueue
from webapp.quality import services as quality
from webapp.quality.asking import Asking
from webapp.quality.needing import more

CHUNK = 500  # groups a transaction
LABELS = 1000  # of an oracle that follow a threshold in a transaction


def finish_answered(project_id: int) -> int:
    """Make done what waits for more answers than the project asks for now: its overlap or its certainty may have been
    lowered, its budget of answers have ended, its tie break been switched off, people been measured anew, or an oracle
    alone may label it. Returns how many. Housekeeping does it every time."""
    project, finished, last = Project.objects.get(pk=project_id), 0, 0
    note_budget(project)
    while True:
        with transaction.atomic():
            waiting = _answered(project).filter(pk__gt=last).order_by("pk")
            groups = list(waiting.select_for_update(of=("self",))[:CHUNK])
            if not groups:
                break
            for group, found in zip(groups, quality.settle_groups(project, groups), strict=True):
                by_oracle = project.label_source == LabelSource.ORACLE
                if by_oracle or group.decisions >= quality.wanted(project, group.decisions, found):
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
    return waiting.annotate(taken=F("decisions")).exclude(more(Asking.of(project)))


def note_budget(project: Project) -> bool:
    """Note whether people have given as many answers as the project's budget has, after which a range ends at its begin;
    returns it. An answer itself counts nothing, so some more may come in until housekeeping looks."""
    spent = False
    if project.answer_budget is not None:
        spent = (project.tallies.aggregate(n=Sum("groups"))["n"] or 0) >= project.answer_budget
    if spent != project.budget_spent:
        Project.objects.filter(pk=project.pk).update(budget_spent=spent)
        project.budget_spent = spent
    return spent


@transaction.atomic
def ask_oracle_again(project: Project, by) -> int:
    """Let the project's oracle judge what it has not judged, such as all that was labelled by one before it; returns how
    many groups. Raises LabellingError without an oracle."""
    check_open(project, LabellingError)
    if not project.oracle:
        raise LabellingError(_("oracle: choose one first"))
    return _ask(project, unjudged(project), by)


def _ask(project: Project, groups: QuerySet[Group], by) -> int:
    now = timezone.now()
    rows = [Scoring(group_id=pk, next_at=now) for pk in groups.values_list("pk", flat=True)]
    fresh = {"update_conflicts": True, "unique_fields": ["group"], "update_fields": ["next_at", "attempts", "error"]}
    Scoring.objects.bulk_create(rows, batch_size=CHUNK, **fresh)
    if rows:
        audit(project, by, "oracle asked again", oracle=project.oracle, groups=len(rows))
        enqueue("housekeeping", project.pk)
    return len(rows)


# ---------------------------------------------------------------- the threshold of its score


def fitted_threshold(project: Project) -> float | None:
    """What the last measurement fitted for the project's oracle to reviewers' gold groups."""
    found = project.oracle_qualities.filter(oracle=project.oracle, tag="").values_list("threshold", flat=True).first()
    return None if found is None else round(found, 4)


@transaction.atomic
def use_threshold(project: Project, by) -> float:
    """Let the fitted threshold say what the project's oracle likes, from now on and of what it has judged, which a worker
    changes. Raises LabellingError where none is fitted."""
    check_open(project, LabellingError)
    fitted = fitted_threshold(project)
    if fitted is None:
        raise LabellingError(_("oracle: no threshold is fitted yet; it takes 20 images of gold groups by reviewers"))
    update_project(project, by, oracle_thresholds={**project.oracle_thresholds, project.oracle: fitted})
    enqueue("measure_quality", project.pk)
    return fitted


@transaction.atomic
def drop_threshold(project: Project, by) -> int:
    """Let the project's oracle say itself what it likes again; it is asked once more about all that it has judged. Returns
    how many groups."""
    check_open(project, LabellingError)
    if project.oracle not in project.oracle_thresholds:
        return 0
    left = {name: value for name, value in project.oracle_thresholds.items() if name != project.oracle}
    update_project(project, by, oracle_thresholds=left)
    judged = Label.objects.filter(generation__group=OuterRef("pk"), annotator=None, oracle=project.oracle)
    return _ask(project, project.groups.filter(Exists(judged)), by)


def follow_threshold(project: Project) -> int:
    """Likes and dislikes of the project's oracle that are not as its threshold says become so; returns how many. What the
    groups come to stays: that is made of the scores. Slow: for a worker."""
    threshold = project.oracle_thresholds.get(project.oracle)
    if threshold is None:
        return 0
    mine = Label.objects.filter(generation__group__project=project, annotator=None, oracle=project.oracle)
    wrong = mine.filter(Q(liked=True, score__lt=threshold) | Q(liked=False, score__gte=threshold)).order_by("pk")
    changed = 0
    while True:
        with transaction.atomic():
            found = list(wrong.select_related("generation__group")[:LABELS])
            if not found:
                break
            groups = sorted({label.generation.group_id for label in found})
            list(Group.objects.select_for_update().filter(pk__in=groups).order_by("pk").values_list("pk"))
            labels = list(wrong.filter(pk__in=[label.pk for label in found]).select_related("generation__group"))
            for label in labels:
                label.liked = not label.liked
            Label.objects.bulk_update(labels, ["liked"])
            history.given(labels)
            history.left_out([v for v in labels if v.generation.group.state == GroupState.FLAGGED])
            changed += len(labels)
    if changed:
        events.publish(project.pk, "labels")
    return changed
