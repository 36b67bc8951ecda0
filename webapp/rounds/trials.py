"""Trials: images of any prompt, made by versions and the base side by side from the same noise, within seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from common.texts import LONGEST, canonical_prompt
from webapp.campaigns import sizes
from webapp.campaigns.archive import check_open
from webapp.campaigns.models import Project
from webapp.labelling.waiting import SLOW
from webapp.lib import bounds, events, options, paths, states, storage
from webapp.lib.dispatch import enqueue
from webapp.rounds.models import ModelVersion, Trial, TrialState

MOST_SIDES, MOST_SEEDS = 4, 8
PENDING = (TrialState.QUEUED, TrialState.GENERATING)
AT_ONCE = 20  # that a worker looks for, and that housekeeping removes in a pass


class TrialError(ValueError):
    """A request that cannot be carried out; the message names the field and the fix."""


@dataclass(frozen=True)
class Side:
    """A column of a trial: a version (None: the base) with the steps and the guidance of its images."""

    version: ModelVersion | None
    steps: int
    guidance: float

    @property
    def name(self) -> str:
        """As a page shows it."""
        if self.version is not None:
            return str(self.version)
        return _("base, %(steps)s steps, guidance %(guidance)s") % {
            "steps": self.steps,
            "guidance": f"{self.guidance:g}",
        }


@transaction.atomic
def start(
    project: Project,
    prompt: str,
    *,
    versions: Sequence[int],
    base: tuple[int, float] | None = None,
    seeds: Sequence[int],
    size: str = "",
    by,
) -> Trial:
    """Queue a trial of the project's versions (by number), and of the base with (steps, guidance), with images of `size`
    (as 1152x896; "": the model's own). Raises TrialError when there is nothing to see, too much of it, or too many of the
    person's or the project's wait already."""
    project = Project.objects.select_for_update().get(pk=project.pk)
    check_open(project, TrialError)
    try:
        text = canonical_prompt(prompt)
    except ValueError as error:
        raise TrialError(_("prompt: %(error)s") % {"error": error}) from error
    if not 1 <= len(text) <= LONGEST:
        raise TrialError(_("prompt: give a text of 1 to 1000 characters"))
    try:
        size = sizes.read_one(size, project.model_dir)
    except ValueError as error:
        raise TrialError(str(error)) from error
    numbers, seeds = sorted(set(versions)), list(dict.fromkeys(seeds))
    known = set(project.versions.filter(number__in=numbers).values_list("number", flat=True))
    for number in numbers:
        if number not in known:
            raise TrialError(_("versions: there is no version %(number)s") % {"number": number})
    sides = [{"version": number, "steps": project.steps, "guidance": 1.0} for number in numbers]
    try:
        if base is not None:
            steps, guidance = bounds.STEPS.whole(base[0], "steps"), bounds.GUIDANCE.real(base[1], "guidance")
            sides.append({"version": None, "steps": steps, "guidance": guidance})
        seeds = [bounds.SEED.whole(seed, "seeds") for seed in seeds]
    except bounds.OutOfBounds as error:
        raise TrialError(str(error)) from error
    if not 1 <= len(sides) <= MOST_SIDES:
        raise TrialError(_("versions: choose 1 to %(most)s, the base among them") % {"most": MOST_SIDES})
    if not 1 <= len(seeds) <= MOST_SEEDS:
        raise TrialError(_("seeds: give 1 to %(most)s different ones") % {"most": MOST_SEEDS})
    waiting = project.trials.filter(state__in=PENDING)
    if waiting.filter(made_by=by).count() >= options.TRIALS_OF_A_PERSON:
        most = {"n": options.TRIALS_OF_A_PERSON}
        raise TrialError(_("trials: %(n)s of yours wait already; wait for one, or cancel it") % most)
    if waiting.count() >= options.TRIALS_OF_A_PROJECT:
        most = {"n": options.TRIALS_OF_A_PROJECT}
        raise TrialError(_("trials: %(n)s of this project wait already; try again when one is made") % most)
    made = Trial.objects.create(project=project, prompt=text, sides=sides, seeds=seeds, image_size=size, made_by=by)
    enqueue("generate_trial", made.pk)
    return made


def sides(trial: Trial) -> list[Side]:
    """The columns, left to right."""
    numbers = [side["version"] for side in trial.sides]
    found = {v.number: v for v in ModelVersion.objects.filter(project=trial.project_id, number__in=numbers)}
    return [Side(found.get(side["version"]), side["steps"], side["guidance"]) for side in trial.sides]


def ahead(trial: Trial) -> int:
    """How many trials, of all projects, are made before this one; workers make trials before anything else."""
    return Trial.objects.filter(state__in=PENDING, project__archived_at=None, pk__lt=trial.pk).count()


def is_slow(trial: Trial) -> bool:
    """Whether it has waited so long that no worker seems to be there."""
    return trial.state == TrialState.QUEUED and timezone.now() - trial.created_at > SLOW


@transaction.atomic
def cancel(project: Project, trial_id: int) -> Trial | None:
    """End a trial that is not made yet; a worker stops before its next side. None when the project has no such trial."""
    trial = project.trials.select_for_update().filter(pk=trial_id).first()
    if trial is not None and trial.state in PENDING:
        states.move(states.TRIAL_MOVES, trial, TrialState.CANCELLED)
        trial.save(update_fields=["state"])
        events.publish(project.pk, "trial")
    return trial


# ---------------------------------------------------------------- generation


def _waits() -> Q:
    """Queued, or given to a worker that has been silent for long."""
    return Q(state=TrialState.QUEUED) | Q(
        state=TrialState.GENERATING, heartbeat_at__lt=timezone.now() - options.SILENT_STALE
    )


def waiting() -> list[int]:
    """Ids of trials that a worker should make, in their order."""
    rows = Trial.objects.filter(_waits(), state__in=PENDING, project__archived_at=None).order_by("id")
    return list(rows.values_list("pk", flat=True)[:AT_ONCE])


@transaction.atomic
def claim(trial_id: int) -> Trial | None:
    """The trial for a worker, fenced by its token; None when it is not to be made (any more)."""
    rows = Trial.objects.filter(_waits(), project__archived_at=None).select_related("project")
    trial = rows.select_for_update(of=("self",)).filter(pk=trial_id).first()
    if trial is None:
        return None
    if trial.state == TrialState.GENERATING:
        states.move(states.TRIAL_MOVES, trial, TrialState.QUEUED)
    states.move(states.TRIAL_MOVES, trial, TrialState.GENERATING)
    trial.heartbeat_at, trial.token, trial.attempt = timezone.now(), trial.token + 1, trial.attempt + 1
    if trial.attempt > options.LOST_WORKERS:
        states.move(states.TRIAL_MOVES, trial, TrialState.FAILED)
        trial.error = f"the worker was lost {options.LOST_WORKERS} times over it; see its log"
    trial.save()
    events.publish(trial.project_id, "trial")
    return trial if trial.state == TrialState.GENERATING else None


@transaction.atomic
def side_made(trial_id: int, token: int, made: int) -> bool:
    """The images of the first `made` sides lie at `paths.trial_image`. False: it was cancelled or is another worker's, and
    the caller stops."""
    trial = _owned(trial_id, token)
    if trial is None:
        return False
    trial.made, trial.heartbeat_at = made, timezone.now()
    if made == len(trial.sides):
        states.move(states.TRIAL_MOVES, trial, TrialState.READY)
        trial.error = ""
    trial.save()
    events.publish(trial.project_id, "trial")
    return True


@transaction.atomic
def fail(trial_id: int, token: int, error: str, *, counts: bool = True) -> None:
    """Back to the queue, or failed for good after `options.TRIES`; see `labelling.generation.fail_group`."""
    trial = _owned(trial_id, token)
    if trial is None:
        return
    again = trial.attempt < options.TRIES or not counts
    trial.attempt -= not counts
    states.move(states.TRIAL_MOVES, trial, TrialState.QUEUED if again else TrialState.FAILED)
    trial.error = error[:500]
    trial.save()
    events.publish(trial.project_id, "trial")


def _owned(trial_id: int, token: int) -> Trial | None:
    rows = Trial.objects.select_for_update().filter(pk=trial_id, token=token, state=TrialState.GENERATING)
    return rows.first()


def expire() -> int:
    """Remove what is older than `options.TRIAL_KEPT`, with its images; returns how many."""
    old = Trial.objects.filter(created_at__lt=timezone.now() - options.TRIAL_KEPT).order_by("created_at")[:AT_ONCE]
    gone = list(old)
    Trial.objects.filter(
        pk__in=[t.pk for t in gone]
    ).delete()  # a stop in between leaves strays, not rows without files
    names = [
        paths.trial_image(t.project_id, t.pk, column, row)
        for t in gone
        for column in range(len(t.sides))
        for row in range(len(t.seeds))
    ]
    if names:
        storage.store().delete(names)
    return len(gone)
