"""The tasks. Each claims a row, calls the trainer and saves; what may be done is decided by the services.

What needs torch is imported by the task that calls it: beat and the oracle worker read this module too, and do without the
half a gigabyte and the seconds that torch takes.
"""

from __future__ import annotations

import contextvars
import dataclasses
import logging
import os
import socket
import string
import threading
from datetime import timedelta

from django.conf import settings
from django.db import close_old_connections, connections
from django.utils import timezone

from common.files import image_bytes
from common.intake import picture
from trainer.oracles import get_oracle
from webapp.campaigns.models import Project
from webapp.campaigns.services import oracle_spec
from webapp.campaigns.sizes import largest_of, pixels
from webapp.imports import raters
from webapp.labelling import following, generation, pictures, scoring
from webapp.labelling.models import Group, GroupState
from webapp.lib import broker, options, paths, storage
from webapp.lib.logs import about
from webapp.operations.faults import sentence
from webapp.quality import counts
from webapp.quality import services as quality
from webapp.rounds import forecasts, plans, sharing, trials
from webapp.rounds import pairs as blind
from webapp.rounds import services as rounds
from webapp.rounds.models import OPEN, Pair, TrainingRound, Trial
from webapp.webhooks import outbox
from workers import hub
from workers.app import app
from workers.database import AWAY, patiently
from workers.models import device, sampler

log = logging.getLogger(__name__)
HEARTBEAT_SECONDS = min(5.0, options.STALE.total_seconds() / 4)
REQUEUE_AFTER = timedelta(seconds=30)


def worker_name() -> str:
    """Who claims rows: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


@app.task(name=broker.TASKS["generate_group"][0])
def generate_group(group_id: int) -> None:
    """Sample a queued group's images and keep them with their trajectories; encode those that somebody brought in."""
    _trials_first()
    group = generation.claim_group_for_generation(group_id, worker_name())
    if group is None:
        return
    try:
        made = {"sizes": _encode(group)} if group.is_own else _sample(group)
    except Exception as error:  # a poison group is tried a few times, then shown with its error
        log.exception("group %s", group_id)
        generation.fail_group(group_id, group.token, sentence(error), counts=not isinstance(error, storage.Unreachable))
        return
    if generation.complete_group(group_id, group.token, **made) and group.is_own:
        raters.give_labels(group_id)


def _sample(group: Group) -> dict:
    """Write the images that are shown; what `complete_group` is told of them."""
    from trainer.sampler import trajectory_bytes
    from trainer.shown_group import sample_shown

    model = sampler(group.project)
    store = storage.store()
    version = store.version(group.version.path, group.version.sha256)
    model.use_version(version)
    prompt, size, about = _prompt(group.prompt.text, group.input_image), pixels(group.image_size), {}
    if len(group.seeds) > group.size:
        with model.backend.sized(size):
            made, inclusion = sample_shown(model, prompt, group.seeds, group.size, version)
        about = {"seeds": made.seeds, "inclusion": inclusion}
    else:
        made = model.sample_group(prompt, group.seeds, size=size)
    trajectory = trajectory_bytes(made, prompt=group.prompt.text, version=str(group.version_id))
    store.write(paths.trajectory(group.project_id, group.pk), trajectory)
    for i, image in enumerate(made.images):
        pictures.write(paths.image(group.project_id, group.pk, i), image)
    return {"sizes": [image.size for image in made.images], **about}


def _prompt(text: str, input_image: str) -> str:
    """A prompt as the sampler takes it, with the image that it changes where it has one."""
    if not input_image:
        return text
    from trainer.prompts import Instruction

    return Instruction(text, storage.store().fetch(paths.input_image(input_image)))


def _encode(group: Group) -> list[tuple[int, int]]:
    from trainer.sampler import trajectory_bytes

    store = storage.store()
    images = [picture(store.read(image.image)) for image in group.generations.all()]
    made = sampler(group.project).encode_group(images)
    store.write(
        paths.trajectory(group.project_id, group.pk), trajectory_bytes(made, prompt=group.prompt.text, version="")
    )
    return [image.size for image in images]


@app.task(name=broker.TASKS["generate_pairs"][0])
def generate_pairs(comparison_id: int) -> None:
    """Sample the images of some queued pairs of a comparison, each pair from one noise."""
    _trials_first()
    pairs = blind.claim_pairs(comparison_id)
    if not pairs:
        return
    try:
        _sample_pairs(pairs)
    except Exception as error:  # tried again a few times, then shown with its error
        log.exception("pairs of comparison %s", comparison_id)
        blind.fail_pairs(pairs, sentence(error), counts=not isinstance(error, storage.Unreachable))
        return
    blind.complete_pairs(pairs)


def _sample_pairs(pairs: list[Pair]) -> None:
    comparison = pairs[0].comparison
    project = comparison.project
    model = sampler(project)
    store = storage.store()
    for name, version in zip(string.ascii_lowercase, comparison.versions, strict=False):
        asked = [pair for pair in pairs if name in pair.sides]
        if asked:
            model.use_version(store.version(version.path, version.sha256))
        for pair in asked:
            prompt = _prompt(pair.prompt.text, pair.input_image)
            (image,) = model.sample_group(prompt, [pair.seed], size=pixels(pair.image_size)).images
            store.write(paths.pair_image(project.pk, pair.pk, name), image_bytes(image, "WEBP", quality=95))


@app.task(name=broker.TASKS["generate_trial"][0])
def generate_trial(trial_id: int) -> None:
    """Sample a trial's images, a side after the other: the page shows each as soon as it is there."""
    trial = trials.claim(trial_id)
    if trial is None:
        return
    try:
        _sample_trial(trial)
    except Exception as error:  # tried again a few times, then shown with its error
        log.exception("trial %s", trial_id)
        trials.fail(trial_id, trial.token, sentence(error), counts=not isinstance(error, storage.Unreachable))


def _sample_trial(trial: Trial) -> None:
    model, size = sampler(trial.project), pixels(trial.image_size)
    store = storage.store()
    for column, side in enumerate(trials.sides(trial)):
        if column < trial.made:
            continue
        model.use_version(store.version(side.version.path, side.version.sha256) if side.version else None)
        how = {"steps": side.steps, "guidance": side.guidance, "size": size}
        made = model.sample_group(trial.prompt, trial.seeds, **how)
        for row, image in enumerate(made.images):
            name = paths.trial_image(trial.project_id, trial.pk, column, row)
            store.write(name, image_bytes(image, "WEBP", quality=95))
        if not trials.side_made(trial.pk, trial.token, column + 1):
            return


def _trials_first() -> None:
    """Somebody looks at a page and waits for a trial, while groups are made ahead: whoever is about to generate makes the
    trials that wait before, however long the broker's queue is."""
    for trial_id in trials.waiting():
        generate_trial(trial_id)


@app.task(name=broker.TASKS["score_group"][0])
def score_group(group_id: int) -> None:
    """Label a group with the project's oracle."""
    claimed = scoring.claim_scoring(group_id)
    if claimed is None:
        return
    group = Group.objects.select_related("project", "prompt").get(pk=group_id)
    try:
        verdicts = _score(group)
    except Exception as error:  # an oracle's server may be away for hours; it is asked again, then shown with its error
        log.exception("scoring of group %s", group_id)
        reached = not isinstance(error, storage.Unreachable)
        scoring.fail_scoring(group_id, claimed.attempts, sentence(error), counts=reached)
        return
    scoring.record_oracle_labels(group_id, group.project.oracle, verdicts)


def _score(group: Group) -> list[dict]:
    files = [storage.store().read(g.image) for g in group.generations.all()]
    images = [picture(file) for file in files]
    prompts, metadata = [group.prompt.text] * len(images), [group.prompt.metadata] * len(images)
    verdicts = get_oracle(oracle_spec(group.project.oracle)).score(images, prompts, metadata)
    return [dataclasses.asdict(verdict) for verdict in verdicts]


@app.task(name=broker.TASKS["plan_round"][0])
def plan_round(plan_id: int) -> None:
    """Work out what a round takes on the machine that would train it."""
    asked = plans.wanted(plan_id)
    if asked is None:
        return
    from workers import planning

    try:
        project, size = asked.project, largest_of(asked.project)
        found = planning.plan(project.model_dir, asked.settings, device(), project.round_memory, asked.card, size)
        plans.keep(plan_id, found)
    except Exception as error:  # the form says it, and the round can be started all the same
        log.exception("plan %s", plan_id)
        plans.keep(plan_id, None, sentence(error))


@app.task(name=broker.TASKS["run_round"][0])
def run_round(round_id: int) -> None:
    """Run a training round, or take it up from its checkpoint when its worker was lost."""
    training = rounds.claim_round(round_id, worker_name())
    if training is None:
        return
    from trainer.rounds import RoundCancelled, RoundLost
    from trainer.rounds import run_round as train_round
    from workers.work import work_of

    work, waits = work_of(training), False
    with about(round=round_id), _Heart(training) as heart:
        try:
            result = train_round(
                work.bring(),
                on_progress=heart.report,
                should_stop=heart.lost,
                device=device(),
                save_seconds=settings.LIKESTEP_CHECKPOINT_SECONDS,
                may_write=heart.is_owner,
                on_checkpoint=lambda step: work.keep(step, heart.lose),
            )
            values = work.deliver(result)
        except RoundCancelled:
            patiently(lambda: rounds.confirm_cancel(round_id, training.token))
        except RoundLost as error:
            log.warning("round %s: %s", round_id, error)
        except (storage.Unreachable, *AWAY) as error:
            # Housekeeping finds it again once this heart has been silent for long enough.
            log.warning("round %s waits: %s", round_id, error)
            waits, why = True, sentence(error)
            patiently(lambda: rounds.release_round(round_id, training.token, why))
        except Exception as error:  # the round's own page shows it
            log.exception("round %s", round_id)
            why = sentence(error)
            patiently(lambda: rounds.fail_round(round_id, training.token, why))
        else:
            patiently(lambda: rounds.finish_round(round_id, training.token, values))
        work.clear(waits=waits)


@app.task(name=broker.TASKS["deliver_webhook"][0])
def deliver_webhook(delivery_id: int) -> None:
    """Try to send a message of the outbox."""
    outbox.deliver(delivery_id)


@app.task(name=broker.TASKS["share_version"][0])
def share_version(sharing_id: int) -> None:
    """Begin to send a version to the hub. That may take minutes, and this worker has others who wait: hence a thread."""
    threading.Thread(target=hub.send, args=[sharing_id], daemon=True).start()


@app.task(name=broker.TASKS["measure_quality"][0])
def measure_quality(project_id: int) -> None:
    """Measure how far a project's people agree and how reliable each is, once its oracle's labels follow its threshold."""
    project = Project.objects.get(pk=project_id)
    if following.follow_threshold(project):
        quality.measure_oracles(project, again=True)
    quality.measure_project(project)


class _Heart:
    """Beats while a round runs, also through its slow steps, and learns that the round is lost or cancelled."""

    def __init__(self, training: TrainingRound):
        self.training, self._lost, self._stop = training, threading.Event(), threading.Event()
        context = contextvars.copy_context()  # so that its log lines name the round too
        self._thread = threading.Thread(target=context.run, args=[self._beat], daemon=True)

    def __enter__(self) -> _Heart:
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._stop.set()
        self._thread.join()

    def lost(self) -> bool:
        """Whether the caller must stop."""
        return self._lost.is_set()

    def is_owner(self) -> bool:
        """Whether files may be replaced, asked of the database, which is waited for: without it nobody knows."""
        return patiently(lambda: rounds.is_owner(self.training.pk, self.training.token))

    def lose(self) -> None:
        """The round is another owner's."""
        self._lost.set()

    def report(self, progress) -> None:
        """Keep the trainer's progress."""
        self._send(dataclasses.asdict(progress))

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            self._send(None)
            close_old_connections()
        connections.close_all()  # this thread's own

    def _send(self, progress: dict | None) -> None:
        try:
            if not rounds.heartbeat(self.training.pk, self.training.token, progress):
                self._lost.set()
        except Exception as error:  # the database may come back before the heartbeat is stale
            log.warning("no heartbeat for round %s: %s", self.training.pk, error)


@app.task(name=broker.TASKS["housekeeping"][0])
def housekeeping(project_id: int | None = None) -> None:
    """Find again what waits: stale or unsent jobs, queues to fill, rounds that are due."""
    for project in Project.objects.filter(pk=project_id) if project_id else Project.objects.all():
        generation.top_up(project.pk)
        following.finish_answered(project.pk)
    now = timezone.now()
    mine = Group.objects.filter(project__archived_at=None)
    waiting = mine.filter(state=GroupState.QUEUED, created_at__lt=now - REQUEUE_AFTER)
    stale = mine.filter(state=GroupState.GENERATING, heartbeat_at__lt=now - options.SILENT_STALE)
    for group_id in (waiting | stale).values_list("pk", flat=True)[:200]:
        broker.send("generate_group", group_id)
    for group_id in scoring.scorings_due():
        broker.send("score_group", group_id)
    for training in TrainingRound.objects.filter(state__in=OPEN, project__archived_at=None):
        beat = training.heartbeat_at or training.created_at
        if beat < now - options.STALE:
            broker.send("run_round", training.pk)
    for comparison_id in blind.waiting():
        broker.send("generate_pairs", comparison_id)
    for trial_id in trials.waiting():
        broker.send("generate_trial", trial_id)
    for sharing_id in sharing.waiting():
        broker.send("share_version", sharing_id)
    trials.expire()
    raters.give_late()
    forecasts.settle()
    rounds.start_due_rounds()
    outbox.announce_milestones()
    for delivery_id in outbox.due():
        broker.send("deliver_webhook", delivery_id)
    counts.count_large()
    quality.compare_with_gold()
    for due_id in quality.due():
        broker.send("measure_quality", due_id)
