"""A full disk, a read-only one, a damaged checkpoint: a sentence on the dashboard, nothing half-written, and on it goes."""

import contextlib
import json
import subprocess

import pytest

from tests.webapp import acting
from webapp.accounts.models import User
from webapp.labelling import generation
from webapp.labelling.models import Group
from webapp.lib import options, paths
from webapp.rounds import services as rounds
from webapp.rounds.models import ModelVersion, TrainingRound
from workers import tasks


@pytest.fixture
def small_disk(data_folder):
    """A real file system of 2 MB as the data folder."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "likestep-test", data_folder]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root only")
    yield data_folder
    subprocess.run(["umount", data_folder], check=True)


@pytest.fixture
def dashboard(client, project):
    client.force_login(User.objects.create_superuser("boss"))
    return lambda: client.get("/p/tiny/").content.decode()


def fill(folder):
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"0" * 4096)
    return folder / "filler"


def files(folder):
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file() and f.name != "filler")


def test_a_full_disk(small_disk, project, dashboard, client):
    filler = fill(small_disk)
    group = generation.top_up(project.pk)[0]
    for _ in range(3):
        tasks.generate_group(group.pk)
    group.refresh_from_db()
    assert group.state == "failed"
    assert group.error.startswith("the disk with the data folder is full; free some space (OSError")
    assert files(small_disk) == []
    page = dashboard()
    assert f"Group {group.pk} failed: <bdi>the disk with the data folder is full" in page
    assert client.get("/readyz").json()["storage"] == "failed"
    # Failing groups are not followed by ever more of them.
    tasks.housekeeping()
    assert Group.objects.exclude(state="failed").count() == project.ready_target - 1

    filler.unlink()
    client.post(f"/p/tiny/groups/{group.pk}/retry/")
    tasks.generate_group(group.pk)
    group.refresh_from_db()
    assert (group.state, group.generations.count()) == ("ready", 3)
    assert "Images and checkpoints cannot be written" not in dashboard()
    assert "nearly full" in dashboard()


def test_a_read_only_disk(small_disk, project, dashboard):
    group = generation.top_up(project.pk)[0]
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    tasks.generate_group(group.pk)
    group.refresh_from_db()
    assert (group.state, files(small_disk)) == ("queued", [])
    assert "the data folder is read-only; mount it writable" in group.error
    assert "Images and checkpoints cannot be written: the data folder is read-only" in dashboard()


@pytest.fixture
def labelled(project, ann):
    for group in generation.top_up(project.pk):
        tasks.generate_group(group.pk)
        answer = {0: True, 1: False, 2: False}
        acting.submit_group(ann, project, group.pk, answer, seconds=1, idempotency_key=str(group.pk))


def test_a_round_on_a_full_disk(small_disk, project, labelled, dashboard, client):
    training = rounds.start_round(project, {}, idempotency_key="k")
    before = files(small_disk)
    filler = fill(small_disk)
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - 200_000)  # room for its lists and pictures, not for a checkpoint
    tasks.run_round(training.pk)
    training.refresh_from_db()
    assert training.state == "failed"
    assert training.error.startswith("the disk with the data folder is full; free some space")
    assert "the disk with the data folder is full" in client.get("/p/tiny/rounds/1/").content.decode()
    assert ModelVersion.objects.count() == 1
    new = set(files(small_disk)) - set(before)
    assert not [name for name in new if "checkpoint" in name or "versions" in name or ".tmp" in name], new


def test_an_owner_who_lost_the_round_leaves_the_checkpoint_alone(project, labelled, monkeypatch, settings):
    settings.LIKESTEP_CHECKPOINT_SECONDS = 0
    training = rounds.start_round(project, {}, idempotency_key="k")
    state = paths.round_dir(training.pk) / "checkpoint" / "state.json"
    report, seen = tasks._Heart.report, []

    def taken_over(heart, progress):
        report(heart, progress)
        if progress.step == 1:
            long_ago = training.created_at - 2 * options.STALE
            TrainingRound.objects.filter(pk=training.pk).update(heartbeat_at=long_ago)
            assert rounds.claim_round(training.pk, "another").token == 2
            seen.append(json.loads(state.read_text())["step"])

    monkeypatch.setattr(tasks._Heart, "report", taken_over)
    tasks.run_round(training.pk)
    training.refresh_from_db()
    assert (training.state, training.owner) == ("running", "another")
    assert seen == [0] and json.loads(state.read_text())["step"] == 0


def test_a_damaged_checkpoint(project, labelled, dashboard, client):
    training = rounds.start_round(project, {}, idempotency_key="k")
    training.state, training.token = "running", 1  # its worker was lost long ago
    training.heartbeat_at = training.created_at - 2 * options.STALE
    training.save()
    folder = paths.round_dir(training.pk) / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "state.safetensors").write_bytes(b"half of it")
    (folder / "state.json").write_text('{"step": 2, "sha256": "0"}')
    tasks.run_round(training.pk)
    training.refresh_from_db()
    assert training.state == "failed"
    page = client.get("/p/tiny/rounds/1/").content.decode()
    assert "checkpoint is damaged (its checksum is wrong); delete it to start over" in page
    assert ModelVersion.objects.count() == 1
