"""Garbage collection deletes what nobody can need again, says so first, and nothing else."""

import os
import time
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from common.files import write_atomic
from tests.webapp import acting
from webapp.labelling.models import Group
from webapp.lib import paths
from webapp.operations.garbage import collect
from webapp.rounds.models import ModelVersion, TrainingRound


def age(path, days=30):
    for file in [path, *path.rglob("*")]:
        os.utime(file, (time.time() - days * 86_400,) * 2)


@pytest.fixture
def old(project, ready, ann):
    """A project of last month: a labelled group, a superseded one, a waiting one, an ended and an open round."""
    labelled, superseded, waiting = ready(3)
    answer = dict.fromkeys(range(4), True)
    acting.submit_group(ann, project, labelled.pk, answer, seconds=1, idempotency_key="k")
    for group in (labelled, superseded, waiting):
        write_atomic(paths.data(group.trajectory_file), b"12345")
    Group.objects.filter(pk=superseded.pk).update(state="superseded")
    Group.objects.update(created_at=timezone.now() - timedelta(days=30))
    for number, state in ((1, "done"), (2, "running")):
        training = TrainingRound.objects.create(
            project=project,
            number=number,
            base_version=project.active_version,
            state=state,
            idempotency_key=str(number),
        )
        TrainingRound.objects.filter(pk=training.pk).update(finished_at=timezone.now() - timedelta(days=30))
        for name in ("checkpoint/state.json", "grid/before.webp"):
            write_atomic(paths.round_dir(training.pk) / name, b"12345")
        age(paths.round_dir(training.pk))
    path = paths.version("round-1000")
    ModelVersion.objects.create(project=project, number=2, path=path, status="kept out")
    for name in (path, paths.version("round-2000"), paths.version("round-3000")):
        write_atomic(paths.data(name) / "pytorch_lora_weights.safetensors", b"12345")
        age(paths.data(name))
    age(paths.data(paths.version("round-3000")), days=1)
    stray = paths.data("trajectories/1/.7.safetensors.99.tmp")
    write_atomic(stray, b"12345")
    age(stray)
    return labelled, superseded, waiting


def names():
    root = paths.data("")
    return {str(f.relative_to(root)) for folder in paths.FOLDERS for f in (root / folder).rglob("*") if f.is_file()}


def test_a_dry_run_says_what_and_deletes_nothing(old, capsys):
    before = names()
    call_command("collect_garbage", "--dry-run")
    assert names() == before
    assert Group.objects.count() == 3
    said = capsys.readouterr().out
    assert "unrated: would delete 5 files" in said
    assert "checkpoints: would delete 1 files" in said
    assert "strays: would delete 2 files" in said


def test_only_garbage_goes(old, project):
    _, superseded, _ = old
    ended = TrainingRound.objects.get(number=1).pk
    before = names()
    would = collect(older_than=timedelta(days=7), dry_run=True)
    assert collect(older_than=timedelta(days=7), dry_run=False) == would
    assert before - names() == {
        *(paths.image(project.pk, superseded.pk, i) for i in range(4)),
        paths.trajectory(project.pk, superseded.pk),
        f"rounds/{ended}/checkpoint/state.json",
        "versions/round-2000/pytorch_lora_weights.safetensors",
        "trajectories/1/.7.safetensors.99.tmp",
    }
    assert not Group.objects.filter(pk=superseded.pk).exists()
    assert Group.objects.count() == 2
    again = collect(older_than=timedelta(days=7), dry_run=False)
    assert sum(what.files for what in again.values()) == 0


def test_what_is_young_stays(old):
    before = names()
    collect(older_than=timedelta(days=365), dry_run=False)
    assert names() == before
