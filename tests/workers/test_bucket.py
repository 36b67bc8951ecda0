"""Workers on several machines with nothing in common but the database, Redis and a bucket.

A machine is a data folder of its own. Some of them are other processes, so that they can be killed.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import psycopg2
import pytest
import torch
from django.db import connection
from django.utils import timezone
from safetensors.torch import load_file

from common.files import sha256_of
from common.round_folder import bucket_checkpoint
from tests.servers import S3_KEYS, database_url, wait_for
from tests.webapp import acting
from tests.workers.conftest import make_project
from trainer.rounds import Stages
from trainer.sampler import load_trajectory
from webapp.accounts.models import User
from webapp.campaigns.models import LabelSource, Membership
from webapp.labelling import generation, scoring
from webapp.labelling.models import Group, Label, Scoring
from webapp.lib import options, storage
from webapp.rounds import services as rounds
from workers import tasks
from workers.work import BucketWork

SHORT = {"updates": 2, "validate_every": 2}


@pytest.fixture
def machine(settings, tmp_path):
    """machine(name): from now on this process is that machine; returns its data folder."""

    def move(name):
        settings.LIKESTEP_DATA = tmp_path / name
        settings.LIKESTEP_DATA.mkdir(exist_ok=True)
        return settings.LIKESTEP_DATA

    return move


@pytest.fixture
def elsewhere(s3, bucket, tmp_path):
    """elsewhere(name, round id): another machine that runs a round, as a process."""
    started = []

    def start(name, round_id):
        environment = {
            **os.environ,
            **S3_KEYS,
            "DATABASE_URL": database_url(),
            "LIKESTEP_DATA": str(tmp_path / name),
            "LIKESTEP_S3_BUCKET": bucket.name,
            "LIKESTEP_S3_ENDPOINT": s3.endpoint,
            "LIKESTEP_S3_REGION": "us-east-1",
            "LIKESTEP_CHECKPOINT_SECONDS": "0",
        }
        (tmp_path / name).mkdir(exist_ok=True)
        code = f"from workers import tasks; tasks.run_round({round_id})"
        command = [sys.executable, "manage.py", "shell", "--no-imports", "-c", code]
        log = (tmp_path / f"{name}.log").open("wb")
        started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()


def label(project):
    """Three generated groups with labels, by somebody."""
    person, _ = User.objects.get_or_create(username="ann")
    Membership.objects.get_or_create(user=person, project=project, role="annotator")
    for group in generation.top_up(project.pk):
        tasks.generate_group(group.pk)
        answer = {0: True, 1: False, 2: False}
        acting.submit_group(person, project, group.pk, answer, seconds=1, idempotency_key=f"k{group.pk}")


def is_silent(training):
    """Its owner has not been heard of for long."""
    type(training).objects.filter(pk=training.pk).update(heartbeat_at=training.created_at - timedelta(days=1))


def weights(bucket, version):
    return load_file(bucket / version.path / "pytorch_lora_weights.safetensors")


def damage(file):
    """Another last byte."""
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def objects(bucket, part):
    return sorted(str(f.relative_to(bucket)) for f in (bucket / part).rglob("*") if f.is_file())


def test_from_images_to_images_of_the_new_version_on_three_machines(bucket, project, machine, client):
    first = machine("first")
    label(project)
    group = Group.objects.filter(project=project).first()
    assert len(objects(bucket, "media")) == 9 and len(objects(bucket, "trajectories")) == 3
    assert not list(first.rglob("*.webp")) and not list(first.rglob("*.safetensors"))

    second = machine("second")
    training = rounds.start_round(project, SHORT, idempotency_key="k")
    tasks.run_round(training.pk)
    training.refresh_from_db()
    assert (training.state, training.error) == ("done", "")
    version = training.result_version
    lora = bucket / version.path / "pytorch_lora_weights.safetensors"
    assert sha256_of(lora) == version.sha256
    assert not (second / "work").exists() or not list((second / "work").iterdir())
    client.force_login(User.objects.create_superuser("boss"))
    for which in ("before", "after"):
        assert client.get(f"/p/tiny/rounds/1/{which}.webp").status_code == 302
    assert (bucket / "rounds" / str(training.pk) / "log.jsonl").is_file()
    assert list((bucket / "rounds" / str(training.pk) / "tensorboard").iterdir())

    third = machine("third")  # its cache is empty
    rounds.publish_version(project, version.pk)
    for group in generation.top_up(project.pk):
        tasks.generate_group(group.pk)
    group.refresh_from_db()
    assert (group.state, group.version, group.error) == ("ready", version, "")
    copy = third / "cache" / "versions" / version.sha256 / "pytorch_lora_weights.safetensors"
    assert copy.read_bytes() == lora.read_bytes()
    stored = load_trajectory(storage.store().fetch(group.trajectory_file))
    assert stored.version == str(version.pk)
    # What is here already is not fetched again: the bucket need not even have it.
    shutil.rmtree(lora.parent)
    assert storage.store().version(version.path, version.sha256) == copy.parent


@pytest.mark.django_db(transaction=True)
def test_a_round_goes_on_elsewhere_while_another_project_trains(bucket, tiny, machine, elsewhere, tmp_path, settings):
    machine("web")
    settings.LIKESTEP_CHECKPOINT_SECONDS = 0
    project, other = make_project(tiny), make_project(tiny, "other")
    for each in (project, other):
        label(each)
    labels = Label.objects.count()
    training = rounds.start_round(project, {"updates": 12, "validate_every": 12}, idempotency_key="k")
    beside = rounds.start_round(other, {"updates": 12, "validate_every": 12}, idempotency_key="k")
    doomed, _ = elsewhere("doomed", training.pk), elsewhere("beside", beside.pk)
    both = set()

    def far_enough():
        for row in (training, beside):
            row.refresh_from_db()
        if {training.state, beside.state} == {"running"}:
            both.update({training.owner, beside.owner})
        return training.checkpoint >= bucket_checkpoint(1, 3)

    assert wait_for(far_enough, 200), (tmp_path / "doomed.log").read_text()
    doomed.kill()
    doomed.wait()
    assert len(both) == 2  # two projects trained at the same time, on two machines
    shutil.rmtree(tmp_path / "doomed")

    is_silent(training)
    machine("successor")
    tasks.run_round(training.pk)
    training.refresh_from_db()
    assert (training.state, training.error, training.token) == ("done", "", 2)
    log = (bucket / "rounds" / str(training.pk) / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == list(range(1, 13))  # on from where it was, not over again
    assert training.result_version.path == f"versions/round-{training.pk}-2"
    kept = {name.split("/")[3] for name in objects(bucket, f"rounds/{training.pk}/checkpoints")}
    assert kept == {Path(bucket_checkpoint(2, step)).name for step in (11, 12)}

    # The one that nobody killed learned the same from the same labels.
    def ended():
        beside.refresh_from_db()
        return beside.state not in ("queued", "running")

    assert wait_for(ended, 200), (tmp_path / "beside.log").read_text()
    assert beside.error == ""
    again = rounds.start_round(project, {"updates": 12, "validate_every": 12}, idempotency_key="again")
    machine("unbroken")
    tasks.run_round(again.pk)
    again.refresh_from_db()
    # Weight by weight: the order of a LoRA file's metadata is not fixed.
    broken, whole = (weights(bucket, round.result_version) for round in (training, again))
    assert broken.keys() == whole.keys() and all(torch.equal(broken[name], whole[name]) for name in whole)
    assert Label.objects.count() == labels == 18


def test_an_owner_who_lost_the_round_changes_nothing(bucket, project, machine, monkeypatch, settings):
    """The first owner hangs in an upload while another takes the round over and ends it; then it wakes up."""
    machine("slow")
    settings.LIKESTEP_CHECKPOINT_SECONDS = 0
    label(project)
    training = rounds.start_round(project, SHORT, idempotency_key="k")
    keep, hung = BucketWork.keep, []

    def hang(work, step, lost):
        if not hung and step == 1:
            hung.append(step)
            is_silent(training)
            here = settings.LIKESTEP_DATA
            machine("quick")
            tasks.run_round(training.pk)
            settings.LIKESTEP_DATA = here
        keep(work, step, lost)

    monkeypatch.setattr(BucketWork, "keep", hang)
    tasks.run_round(training.pk)
    training.refresh_from_db()
    assert hung and (training.state, training.token) == ("done", 2)
    assert training.checkpoint == bucket_checkpoint(2, 2)
    assert project.versions.count() == 2
    assert sha256_of(bucket / training.result_version.path / "pytorch_lora_weights.safetensors") == (
        training.result_version.sha256
    )


def test_a_damaged_version_is_refused_by_name(bucket, project, machine):
    machine("first")
    label(project)
    training = rounds.start_round(project, SHORT, idempotency_key="k")
    tasks.run_round(training.pk)
    training.refresh_from_db()
    rounds.publish_version(project, training.result_version.pk)
    name = f"{training.result_version.path}/pytorch_lora_weights.safetensors"
    whole = (bucket / name).read_bytes()
    damage(bucket / name)
    machine("second")
    group = generation.top_up(project.pk)[0]
    tasks.generate_group(group.pk)
    group.refresh_from_db()
    assert group.state == "queued"
    assert group.error.startswith(f"storage: {name} in the bucket {bucket.name} is damaged (its checksum is wrong)")
    # Also one that is whole but another one than the row's.
    (bucket / name).write_bytes(whole)
    storage.store().write(name, b"another LoRA")
    tasks.generate_group(group.pk)
    group.refresh_from_db()
    assert "is damaged (its checksum is wrong)" in group.error
    storage.store().write(name, whole)
    tasks.generate_group(group.pk)
    group.refresh_from_db()
    assert (group.state, group.error) == ("ready", "")


def test_damaged_trajectories_are_left_out(bucket, project, machine, caplog):
    machine("first")
    label(project)
    groups = list(Group.objects.filter(project=project))
    for group in groups[1:]:
        damage(bucket / group.trajectory_file)
    training = rounds.start_round(project, SHORT, idempotency_key="k")
    with caplog.at_level(logging.WARNING):
        tasks.run_round(training.pk)
    training.refresh_from_db()
    assert (training.state, training.error) == ("done", "")
    for group in groups[1:]:
        assert f"leaves out group {group.pk}: storage: {group.trajectory_file} in the bucket" in caplog.text
    damage(bucket / groups[0].trajectory_file)
    last = rounds.start_round(project, SHORT, idempotency_key="again")
    machine("second")
    tasks.run_round(last.pk)
    last.refresh_from_db()
    assert last.state == "failed"
    assert "3 could not be read" in last.error


def test_without_the_bucket_work_waits(bucket, project, machine, s3):
    machine("first")
    label(project)
    training = rounds.start_round(project, SHORT, idempotency_key="k")
    generation.top_up(project.pk)
    group = Group.objects.filter(state="queued").first()
    s3.stop()
    try:
        for _ in range(options.TRIES + 1):
            tasks.generate_group(group.pk)
        for _ in range(options.ROUND_LOST_WORKERS + 1):  # however long it takes
            tasks.run_round(training.pk)
            training.refresh_from_db()
            is_silent(training)
    finally:
        s3.start()
    group.refresh_from_db()
    for row, state in ((group, "queued"), (training, "running")):
        assert row.state == state
        assert row.error.startswith(f"storage: the bucket {bucket.name} cannot be used (")
    tasks.generate_group(group.pk)
    tasks.run_round(training.pk)
    for row, state in ((group, "ready"), (training, "done")):
        row.refresh_from_db()
        assert (row.state, row.error) == (state, "")


def test_a_bucket_that_fails_meanwhile_stops_no_round(bucket, project, machine, s3, monkeypatch, settings):
    machine("first")
    settings.LIKESTEP_CHECKPOINT_SECONDS = 0
    label(project)
    training = rounds.start_round(project, {"updates": 3, "validate_every": 3}, idempotency_key="k")
    keep = BucketWork.keep

    def fail_once(work, step, lost):
        if step == 1:
            s3.stop()
        keep(work, step, lost)
        if step == 1:
            s3.start()

    monkeypatch.setattr(BucketWork, "keep", fail_once)
    tasks.run_round(training.pk)
    training.refresh_from_db()
    assert (training.state, training.error, training.attempt) == ("done", "", 1)


def test_what_the_bucket_did_not_take_is_kept_here_and_used(bucket, project, machine, s3, monkeypatch, settings):
    """The bucket goes away in the middle and stays away: the round ends here, and only its version is missing there."""
    here = machine("here")
    settings.LIKESTEP_CHECKPOINT_SECONDS = 0
    label(project)
    training = rounds.start_round(project, {"updates": 4, "validate_every": 4}, idempotency_key="k")
    keep, update, made = BucketWork.keep, Stages.step, []

    def keep_or_not(work, step, lost):
        if step == 2:
            s3.stop()
        keep(work, step, lost)

    def count(self, step):
        made.append(step)
        return update(self, step)

    monkeypatch.setattr(BucketWork, "keep", keep_or_not)
    monkeypatch.setattr(Stages, "step", count)
    try:
        tasks.run_round(training.pk)
        is_silent(training)
        tasks.run_round(training.pk)  # the bucket is still away
    finally:
        s3.start()
    training.refresh_from_db()
    assert (training.state, training.checkpoint, made) == ("running", bucket_checkpoint(1, 1), [0, 1, 2, 3])
    is_silent(training)
    tasks.run_round(training.pk)
    training.refresh_from_db()
    assert (training.state, training.error, made) == ("done", "", [0, 1, 2, 3])
    assert sha256_of(bucket / training.result_version.path / "pytorch_lora_weights.safetensors") == (
        training.result_version.sha256
    )
    assert not list((here / "work").iterdir()) and not list((here / "versions").iterdir())


def test_a_damaged_checkpoint_of_this_machine_is_not_preferred(bucket, project, machine, monkeypatch, settings):
    here = machine("here")
    settings.LIKESTEP_CHECKPOINT_SECONDS = 0
    label(project)
    training = rounds.start_round(project, {"updates": 3, "validate_every": 3}, idempotency_key="k")
    keep = BucketWork.keep

    def killed(work, step, lost):
        if step == 2:
            raise KeyboardInterrupt
        keep(work, step, lost)

    monkeypatch.setattr(BucketWork, "keep", killed)
    with pytest.raises(KeyboardInterrupt):
        tasks.run_round(training.pk)
    monkeypatch.setattr(BucketWork, "keep", keep)
    damage(here / "work" / f"{training.pk}-1" / "checkpoint" / "state.safetensors")
    is_silent(training)
    tasks.run_round(training.pk)
    training.refresh_from_db()
    assert (training.state, training.error) == ("done", "")


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no server that could restart")
@pytest.mark.django_db(transaction=True)
def test_a_database_that_restarts_while_files_are_uploaded(bucket, tiny, machine, monkeypatch, settings):
    machine("here")
    settings.LIKESTEP_CHECKPOINT_SECONDS = 0
    project = make_project(tiny)
    label(project)
    training = rounds.start_round(project, SHORT, idempotency_key="k")
    keep, cut = storage.Bucket.keep, []

    def cut_off(store, name, file):
        keep(store, name, file)
        if name.endswith(("state.json", "version.json")):
            cut.append(name)
            with psycopg2.connect(database_url()) as other:
                other.cursor().execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

    monkeypatch.setattr(storage.Bucket, "keep", cut_off)
    tasks.run_round(training.pk)
    assert len(cut) == 4  # three checkpoints and the version
    training.refresh_from_db()
    assert (training.state, training.error, training.token) == ("done", "", 1)


def test_an_oracle_waits_for_the_bucket(bucket, project, machine, s3):
    machine("first")
    project.label_source = LabelSource.ORACLE
    project.save()
    group = generation.top_up(project.pk)[0]
    tasks.generate_group(group.pk)
    s3.stop()
    try:
        for _ in range(options.ORACLE_TRIES + 1):
            tasks.score_group(group.pk)
            Scoring.objects.update(next_at=timezone.now())
    finally:
        s3.start()
    assert "cannot be used" in Scoring.objects.get(group=group).error
    assert scoring.scorings_due() == [group.pk]
    tasks.score_group(group.pk)
    group.refresh_from_db()
    assert (group.state, scoring.scorings_due()) == ("done", [])


def test_a_round_that_moves_into_a_bucket_goes_on(bucket, project, machine, monkeypatch, settings):
    """What `manage.py restore` does with the files of a data folder's back-up."""
    settings.LIKESTEP_CHECKPOINT_SECONDS = 0
    here, settings.LIKESTEP_S3_BUCKET = machine("folder"), ""
    label(project)
    training = rounds.start_round(project, {"updates": 4, "validate_every": 4}, idempotency_key="k")
    report = tasks._Heart.report

    def stop(heart, progress):
        report(heart, progress)
        if progress.step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(tasks._Heart, "report", stop)
    with pytest.raises(KeyboardInterrupt):
        tasks.run_round(training.pk)
    monkeypatch.setattr(tasks._Heart, "report", report)
    settings.LIKESTEP_S3_BUCKET = bucket.name
    for file in here.rglob("*"):
        if file.is_file():
            storage.store().keep(str(file.relative_to(here)), file)
    machine("elsewhere")
    is_silent(training)
    tasks.run_round(training.pk)
    training.refresh_from_db()
    assert (training.state, training.error, training.token) == ("done", "", 2)
    steps = [json.loads(line)["step"] for line in (bucket / f"rounds/{training.pk}/log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 3, 4]  # the third was logged and not kept
