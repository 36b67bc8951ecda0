"""Writes of training rounds and versions: start, claim, progress, finish, publish."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from common.files import write_atomic, write_json
from common.round_folder import GROUPS, SPEC
from common.settings import WITH_SURROGATE, SettingsError, TDMR1Settings
from webapp.campaigns import services as campaigns
from webapp.campaigns import sizes
from webapp.campaigns.archive import check_open
from webapp.campaigns.audit import audit
from webapp.campaigns.models import Project, Split
from webapp.campaigns.services import oracle_spec
from webapp.labelling import queries as labelling
from webapp.labelling.generation import supersede_groups
from webapp.lib import events, options, paths, states, storage
from webapp.lib.dispatch import enqueue
from webapp.quality.signal import GROUP_HAS_SIGNAL
from webapp.rounds import forecasts
from webapp.rounds.models import (
    OPEN,
    ModelVersion,
    RoundForecast,
    RoundMetric,
    RoundState,
    TrainingRound,
    VersionStatus,
    next_number,
)
from webapp.webhooks import events as webhook_events
from webapp.webhooks import outbox


class RoundError(ValueError):
    """A round that cannot be started or moved; the message says what to do."""


def check_settings(values: dict) -> dict:
    """The whole settings of a round, defaults filled in. Raises RoundError that names the field."""
    try:
        settings = TDMR1Settings.from_json(values)
        settings.check_source(labels=True)
    except SettingsError as error:
        raise RoundError(str(error)) from error
    return settings.to_json()


def start_round(project: Project, values: dict, *, idempotency_key: str, user=None) -> TrainingRound:
    """Queue a round from the active version. The same key returns the round it started before.

    Raises RoundError when one is open already, when settings are wrong or when no labelled group has signal.
    """
    done = TrainingRound.objects.filter(project=project, idempotency_key=idempotency_key).first()
    if done is not None:
        return done
    chosen = check_settings({**project.round_settings, **values})
    base = project.active_version
    check_open(project, RoundError)
    if base is None:
        raise RoundError(_("base version: the project has none; publish a version first"))
    teaching = labelling.labelled_groups(project).filter(GROUP_HAS_SIGNAL)
    if not teaching.exists():
        raise RoundError(_("labels: no group has both a liked and a disliked image yet; rate some groups first"))
    if chosen["method"] not in WITH_SURROGATE and not teaching.exclude(version=None).exists():
        raise RoundError(
            _(
                "method: all labelled groups are of own images, which never teach the student itself; choose tdm_r1 or "
                "task_vector"
            )
        )
    try:
        with transaction.atomic():
            number, forecast = next_number(project.rounds), forecasts.next_round(project)
            training = TrainingRound.objects.create(
                project=project,
                number=number,
                base_version=base,
                settings=chosen,
                started_by=user,
                idempotency_key=idempotency_key,
                total=chosen["updates"],
            )
            RoundForecast.objects.create(round=training, needed=forecast.needed, had=forecast.had)
            enqueue("run_round", training.pk)
            events.publish(project.pk, "round", round=training.pk)
    except IntegrityError as error:
        done = TrainingRound.objects.filter(project=project, idempotency_key=idempotency_key).first()
        if done is not None:
            return done
        raise RoundError(_("round: one is already queued or running; wait for it or cancel it")) from error
    return training


@transaction.atomic
def cancel_round(round_id: int) -> TrainingRound:
    """Ask a round to stop: at once when it is still queued, at its next step when it runs."""
    training = TrainingRound.objects.select_for_update().get(pk=round_id)
    if training.state == RoundState.QUEUED:
        _close(training, RoundState.CANCELLED)
    elif training.state == RoundState.RUNNING:
        training.cancel_requested = True
        training.save(update_fields=["cancel_requested"])
    events.publish(training.project_id, "round", round=training.pk)
    return training


@transaction.atomic
def claim_round(round_id: int, owner: str) -> TrainingRound | None:
    """Make `owner` the one who runs the round: it is queued, or its owner's heartbeat is stale. None otherwise, so a
    task that is delivered twice does not run twice. A round that loses worker after worker at the same place fails."""
    here = TrainingRound.objects.filter(project__archived_at=None)
    training = here.select_for_update(of=("self",)).filter(pk=round_id).first()
    if training is None or training.state not in OPEN:
        return None
    if training.state == RoundState.RUNNING and training.heartbeat_at > timezone.now() - options.STALE:
        return None
    if training.attempt >= options.ROUND_LOST_WORKERS:
        training.error = (
            f"the worker was lost {options.ROUND_LOST_WORKERS} times after step {training.kept_step}; see its log"
        )
        states.move(states.ROUND_MOVES, training, RoundState.RUNNING)
        _close(training, RoundState.FAILED)
        return None
    states.move(states.ROUND_MOVES, training, RoundState.RUNNING)
    training.owner, training.heartbeat_at, training.error = owner, timezone.now(), ""
    training.token += 1
    training.attempt += 1
    training.save()
    events.publish(training.project_id, "round", round=training.pk)
    return training


def is_first(training: TrainingRound) -> bool:
    """Whether nobody ran the round before the owner who has just claimed it."""
    return training.token == 1 and not training.checkpoint


def write_spec(training: TrainingRound, folder: Path | None = None) -> Path:
    """Write the round's labelled groups and its RoundSpec as files in `folder` (default: the round's); returns the spec's
    path. The groups of a round are fixed when it is first written: a resumed round learns from the same ones. Paths are
    those of today: the data folder may have been restored elsewhere."""
    folder = folder or paths.round_dir(training.pk)
    if is_first(training):
        # Nobody ran it before, so what lies here is of another database.
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    spec_file, groups_file = folder / SPEC, folder / GROUPS
    project = training.project
    places = {
        "model_dir": project.model_dir,
        "parent_dir": str(storage.store().version(training.base_version.path, training.base_version.sha256)),
        "work_dir": str(folder),
        "output_dir": str(paths.data(paths.round_version(training.pk, training.token))),
        "groups_file": str(groups_file),
        "inputs": str(paths.data(paths.INPUTS)),
    }
    now = {**places, "memory": project.round_memory}  # the worker has its own beside it
    if spec_file.exists():
        write_json(spec_file, {**json.loads(spec_file.read_text()), **now})
        return spec_file
    lines, rows = [], labelling.labelled_groups(project).order_by().values("pk")
    inclusions = labelling.inclusions(rows)
    for group in labelling.labelled_groups(project).iterator(chunk_size=1000):
        image = {campaigns.INPUT: group.input_image} if group.input_image else {}
        line = {
            "group": str(group.pk),
            "prompt": group.prompt.text,
            "metadata": group.prompt.metadata | image,
            "version": "" if group.is_own else str(group.version_id),
            "imported": group.is_own,
            "trajectory_file": os.path.relpath(paths.data(group.trajectory_file), folder),
            "rewards": labelling.rewards(group),
        }
        if group.pk in inclusions:
            line["inclusion"] = inclusions[group.pk]
        lines.append(json.dumps(line))
    write_atomic(groups_file, ("\n".join(lines) + "\n").encode())
    groups = labelling.labelled_groups(project)
    made_from = {
        "labels": labelling.label_sources(groups),
        "people": labelling.people_of(groups),
        "own": groups.filter(GROUP_HAS_SIGNAL, version=None).count(),
    }
    TrainingRound.objects.filter(pk=training.pk).update(groups_used=len(lines), made_from=made_from)
    spec = {
        **now,
        "train_prompts": _lines(project, Split.TRAIN),
        "validation": _lines(project, Split.VALIDATION),
        "validation_oracle": oracle_spec(project.oracle) if project.oracle else None,
        "sizes": sizes.of_project(project),
        "labels": made_from["labels"],
        "settings": training.settings,
    }
    write_json(spec_file, spec)
    return spec_file


def _lines(project: Project, split: str) -> list[dict]:
    rows = list(
        project.prompts.in_use().filter(split=split).order_by("pk").values_list("text", "metadata", "input_image")
    )
    own = sizes.of_inputs(project, (image for _text, _metadata, image in rows if image))
    lines = []
    for text, metadata, image in rows:
        of_image = {campaigns.INPUT: image, "size": metadata.get("size") or own[image]} if image else {}
        lines.append({**metadata, **of_image, "prompt": text})
    return lines


@transaction.atomic
def heartbeat(round_id: int, token: int, progress: dict | None = None) -> bool:
    """The owner is alive; `progress` is the trainer's Progress as a dict. False: the round was cancelled or has another
    owner, and the caller must stop."""
    training = TrainingRound.objects.select_for_update().get(pk=round_id)
    if training.token != token or training.state != RoundState.RUNNING:
        return False
    training.heartbeat_at = timezone.now()
    if progress:
        training.phase, training.step, training.total = progress["phase"], progress["step"], progress["total"]
        training.seconds_left, training.alarm = progress["seconds_left"], progress.get("alarm", "")
        if progress["metrics"]:
            RoundMetric.objects.update_or_create(
                round=training, step=progress["step"], defaults={"values": progress["metrics"]}
            )
        events.publish(training.project_id, "progress", round=training.pk)
    training.save()
    return not training.cancel_requested


def is_owner(round_id: int, token: int) -> bool:
    """Whether the round is still the one's whom `claim_round` gave this token; to be asked before a file is replaced."""
    return TrainingRound.objects.filter(pk=round_id, token=token, state=RoundState.RUNNING).exists()


@transaction.atomic
def keep_checkpoint(round_id: int, token: int, step: int, name: str = "") -> bool:
    """A checkpoint of `step` updates is kept where the next owner finds it, in a bucket under `name` (of
    `round_folder.bucket_checkpoint`). A round that got further than ever forgets its lost workers. False when the owner of
    `token` has
    lost it."""
    training = _owned(round_id, token)
    if training is None:
        return False
    if name:
        training.checkpoint = name
    if step > training.kept_step:
        training.kept_step, training.attempt = step, 1
    training.save(update_fields=["checkpoint", "kept_step", "attempt"])
    return True


@transaction.atomic
def release_round(round_id: int, token: int, error: str) -> None:
    """The owner cannot go on for a reason that lies outside the round: another one, or the same, will as soon as it can. It
    does not count as lost."""
    if (training := _owned(round_id, token)) is not None:
        training.error = error[:8000]
        training.attempt = max(0, training.attempt - 1)
        training.save(update_fields=["error", "attempt"])
        events.publish(training.project_id, "round", round=training.pk)


@transaction.atomic
def finish_round(round_id: int, token: int, result: dict) -> ModelVersion | None:
    """Make the draft version of the trainer's RoundResult (a dict). None when another owner has taken over."""
    training = _owned(round_id, token)
    if training is None:
        return None
    project = Project.objects.select_for_update().get(pk=training.project_id)
    version = ModelVersion.objects.create(
        project=project,
        number=next_number(project.versions),
        parent=training.base_version,
        path=paths.round_version(training.pk, token),
        sha256=result["sha256"],
        scores=result["scores_after"],
    )
    training.result_version = version
    training.scores_before, training.scores_after = result["scores_before"], result["scores_after"]
    training.alarm = result.get("alarm", "")
    training.step = result["steps"] if training.alarm else training.total
    _close(training, RoundState.DONE)
    return version


@transaction.atomic
def fail_round(round_id: int, token: int, error: str) -> None:
    """The round ended in an error that trying again would not mend."""
    if (training := _owned(round_id, token)) is not None:
        training.error = error[:8000]
        _close(training, RoundState.FAILED)


@transaction.atomic
def confirm_cancel(round_id: int, token: int) -> None:
    """The owner has stopped at the admin's wish."""
    training = _owned(round_id, token)
    if training is not None and training.cancel_requested:
        _close(training, RoundState.CANCELLED)


def _owned(round_id: int, token: int) -> TrainingRound | None:
    training = TrainingRound.objects.select_for_update().get(pk=round_id)
    return training if training.token == token and training.state == RoundState.RUNNING else None


def _close(training: TrainingRound, state: str) -> None:
    states.move(states.ROUND_MOVES, training, state)
    training.finished_at = timezone.now()
    training.save()
    names = ("scores_after", "error", "alarm")
    told = {"round": training.number, "state": state, **{name: getattr(training, name) for name in names}}
    outbox.tell(training.project_id, webhook_events.ROUND, f"round-{training.number}-{state}", told)
    events.publish(training.project_id, "round", round=training.pk)


@transaction.atomic
def publish_version(project: Project, version_id: int, *, by=None) -> ModelVersion:
    """Make a version the one that generates; unrated groups of the old one are dropped from the queue."""
    project = Project.objects.select_for_update().get(pk=project.pk)
    check_open(project, RoundError)
    version = project.versions.get(pk=version_id)
    version.status = VersionStatus.PUBLISHED
    version.save(update_fields=["status"])
    before = project.active_version.number if project.active_version else None
    audit(project, by, "version published", version=version.number, before=before)
    project.active_version = version
    project.save(update_fields=["active_version"])
    supersede_groups(project, version)
    enqueue("housekeeping", project.pk)
    told = {"version": version.number, "before": before}
    outbox.tell(project.pk, webhook_events.PUBLISHED, f"published-{version.number}-{timezone.now().timestamp()}", told)
    events.publish(project.pk, "version")
    return version


@transaction.atomic
def keep_old_version(project: Project, version_id: int, *, by=None) -> ModelVersion:
    """Decide against a draft; it is kept, but does not generate."""
    version = project.versions.select_for_update().get(pk=version_id)
    if version.status != VersionStatus.DRAFT:
        raise RoundError(
            _("version: version %(n)s is %(status)s, not a draft to decide on")
            % {"n": version.number, "status": _(version.status)}
        )
    version.status = VersionStatus.KEPT_OUT
    version.save(update_fields=["status"])
    audit(project, by, "version kept out", version=version.number)
    events.publish(project.pk, "version")
    return version


def start_due_rounds() -> list[TrainingRound]:
    """Start a round in every project with as many newly labelled groups with signal as its settings or its forecast ask
    for."""
    started = []
    wanted = Q(auto_start_after__gt=0) | Q(auto_start_by_forecast=True)
    for project in Project.objects.filter(wanted, active_version__isnull=False, archived_at=None):
        if project.rounds.filter(state__in=OPEN).exists():
            continue
        last = project.rounds.first()
        if forecasts.groups_missing(project) == 0:
            key = f"auto-{project.pk}-{last.number if last else 0}"
            try:
                started.append(start_round(project, {}, idempotency_key=key))
            except RoundError:
                continue
    return started


def new_key() -> str:
    """An idempotency key for a form."""
    return uuid.uuid4().hex
