"""kill -9 of the train worker in the middle of a round: the round ends all the same, once, and no label is lost."""

import os
import signal
import subprocess
import sys
from datetime import timedelta

import pytest

from tests.servers import database_url, wait_for
from tests.webapp import acting
from tests.workers.conftest import make_project
from webapp.accounts.models import User
from webapp.campaigns.models import Membership
from webapp.labelling import generation
from webapp.labelling.models import Label
from webapp.lib import options
from webapp.rounds import services as rounds
from webapp.rounds.models import ModelVersion
from workers import tasks

STALE_SECONDS = 4


@pytest.fixture
def worker(tmp_path):
    started = []

    def start():
        environment = {
            **os.environ,
            "DATABASE_URL": database_url(),
            "LIKESTEP_STALE_SECONDS": str(STALE_SECONDS),
            "DJANGO_SETTINGS_MODULE": "webapp.settings",
        }
        name = f"train{len(started)}@test"
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "workers.app",
            "worker",
            "-P",
            "solo",
            "-Q",
            "train",
            "-n",
            name,
        ]
        log = (tmp_path / f"{name}.log").open("wb")
        started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()


@pytest.mark.django_db(transaction=True)
def test_the_round_ends_all_the_same(tiny, worker, monkeypatch):
    monkeypatch.setattr(options, "STALE", timedelta(seconds=STALE_SECONDS))
    project = make_project(tiny)
    ann = User.objects.create_user("ann")
    Membership.objects.create(user=ann, project=project, role="annotator")
    for group in generation.top_up(project.pk):
        tasks.generate_group(group.pk)
        acting.submit_group(
            ann, project, group.pk, {0: True, 1: False, 2: False}, seconds=1, idempotency_key=str(group.pk)
        )
    labels = Label.objects.count()
    training = rounds.start_round(project, {"updates": 60, "validate_every": 60}, idempotency_key="k")

    first = worker()

    def at_step(n):
        training.refresh_from_db()
        return training.step >= n

    assert wait_for(lambda: at_step(3), 240), training.error
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert training.state == "running"
    worker()

    def done():
        tasks.housekeeping()  # what beat does
        training.refresh_from_db()
        return training.state not in ("queued", "running")

    assert wait_for(done, 300)
    assert (training.state, training.error) == ("done", "")
    assert training.token == 2
    assert ModelVersion.objects.count() == 2
    assert Label.objects.count() == labels == 9
