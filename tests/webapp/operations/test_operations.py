"""The system seen from outside: alive, ready, numbers, log lines, and the command that sets it up."""

import gzip
import http.server
import json
import logging
import os
import random
import subprocess
import sys
import threading
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from tests.webapp import acting
from webapp.accounts.models import User
from webapp.campaigns.models import Project
from webapp.labelling import generation, leases
from webapp.labelling.models import Group, Lease
from webapp.lib import logs
from webapp.operations.services import beat
from webapp.rounds.models import RoundMetric, TrainingRound


def test_alive_asks_nothing_else(client):
    assert client.get("/healthz").json() == {"status": "ok"}


@pytest.mark.django_db
def test_ready_when_everything_can_be_used(client):
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "ok", "database": "ok", "redis": "ok", "storage": "ok"},
    )


@pytest.mark.django_db
def test_not_ready_names_the_part_and_keeps_its_address(client, settings, tmp_path, caplog):
    settings.REDIS_URL = "redis://:a-secret@127.0.0.1:1/0"
    settings.LIKESTEP_DATA = tmp_path / "unmounted"
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"status": "failed", "database": "ok", "redis": "failed", "storage": "failed"}
    assert "not ready: redis: ConnectionError" in caplog.text
    assert "a-secret" not in caplog.text


def numbers(text: str) -> dict[str, float]:
    return {k: float(v) for k, v in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")}


def test_metrics_count_what_happens(client, project, ready, ann):
    group = ready(3)[0]
    leases.lease_groups(ann, project, 2)
    Lease.objects.filter(group=group).update(expires_at=timezone.now() - timedelta(seconds=1))
    answer = {i: i % 2 == 0 for i in range(4)}
    acting.submit_group(ann, project, ready()[0].pk, answer, seconds=1, idempotency_key="k")
    waiting = generation.create_group(project, project.prompts.first().pk, random.Random(0))
    Group.objects.filter(pk=waiting.pk).update(created_at=timezone.now() - timedelta(seconds=90))
    training = TrainingRound.objects.create(
        project=project, number=1, base_version=project.active_version, state="running", step=4, total=8
    )
    TrainingRound.objects.update(heartbeat_at=timezone.now() - timedelta(seconds=20))
    for step in (2, 4):
        RoundMetric.objects.create(round=training, step=step, values={})
        RoundMetric.objects.filter(step=step).update(created_at=timezone.now() + timedelta(seconds=2 * step))
    beat("train@host", timezone.now())
    found = numbers(client.get("/metrics").content.decode())
    assert found['likestep_groups{project="stars",state="ready"}'] == 4
    assert found['likestep_groups{project="stars",state="done"}'] == 1
    assert found['likestep_queue_age_seconds{project="stars"}'] == pytest.approx(90, abs=5)
    assert found['likestep_leases{project="stars",state="live"}'] == 1
    assert found['likestep_leases{project="stars",state="expired"}'] == 1
    assert found['likestep_labels_per_minute{by="people",project="stars"}'] == pytest.approx(4 / 5)
    assert found['likestep_round_steps{kind="done",project="stars",round="1"}'] == 4
    assert found['likestep_round_steps_per_second{project="stars",round="1"}'] == pytest.approx(0.5, rel=0.1)
    assert found['likestep_round_silence_seconds{project="stars",round="1"}'] == pytest.approx(20, abs=5)
    assert found['likestep_worker_silence_seconds{worker="train@host"}'] < 5


@pytest.mark.django_db
def test_metrics_are_for_this_machine_or_the_bearer_of_the_token(client, settings):
    assert client.get("/metrics", REMOTE_ADDR="::1").status_code == 200
    assert client.get("/metrics", REMOTE_ADDR="10.0.0.9").status_code == 403
    assert client.get("/metrics", headers={"X-Forwarded-For": "10.0.0.9"}).status_code == 403
    settings.METRICS_TOKEN = "long random token"
    assert client.get("/metrics").status_code == 403
    assert client.get("/metrics", headers={"Authorization": "Bearer long random"}).status_code == 403
    bearer = {"Authorization": "Bearer long random token"}
    assert client.get("/metrics", REMOTE_ADDR="10.0.0.9", headers=bearer).status_code == 200


@pytest.mark.django_db
def test_the_silent_are_forgotten():
    beat("old@host", timezone.now())
    from webapp.operations.models import Heartbeat

    Heartbeat.objects.update(seen_at=timezone.now() - timedelta(days=2))
    beat("new@host", timezone.now())
    beat("new@host", timezone.now())
    assert list(Heartbeat.objects.values_list("name", flat=True)) == ["new@host"]


@pytest.mark.django_db
def test_a_request_is_named_in_every_line_and_its_secrets_in_none(client, lines):
    answer = client.get("/join/secret-token/", headers={"X-Request-ID": "abc-1"})
    assert answer.headers["X-Request-ID"] == "abc-1"
    (line,) = [found for found in lines() if found["logger"] == "webapp.lib.middleware"]
    assert line["level"] == "INFO" and line["request"] == "abc-1"
    assert line["message"].startswith("GET /join/<str:token>/ 410 in ")
    assert "secret-token" not in json.dumps(line)
    forged = client.get("/login/", headers={"X-Request-ID": 'x" injected="1'}).headers["X-Request-ID"]
    assert len(forged) == 32 and forged.isalnum()


def test_a_round_is_named_in_its_lines(lines):
    with logs.about(round=7), logs.about(request="r"):
        logging.getLogger("trainer").warning("slow")
    logging.getLogger("trainer").warning("elsewhere")
    first, second = lines()
    assert (first["round"], first["request"], first["message"]) == (7, "r", "slow")
    assert "round" not in second and "time" in second


def test_errors_go_to_sentry_when_it_is_set():
    received = []

    class Sentry(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sentry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code = (
            "from django.core.wsgi import get_wsgi_application; import logging, sentry_sdk, wsgiref.util\n"
            "app = get_wsgi_application(); logging.getLogger('x').error('the boat leaks')\n"
            "environ = {'PATH_INFO': '/join/secret-token/', 'HTTP_AUTHORIZATION': 'Bearer secret-token'}\n"
            "wsgiref.util.setup_testing_defaults(environ)\n"
            "environ['HTTP_HOST'] = 'localhost'\n"
            "app(environ, lambda *arguments: None)\n"  # there are no tables: it fails
            "sentry_sdk.flush(10)"
        )
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "webapp.settings",
            "SENTRY_DSN": f"http://key@127.0.0.1:{server.server_port}/1",
            "DATABASE_URL": "sqlite://:memory:",
        }
        subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
        server.shutdown()
    told = b"\n".join(received)
    assert b"the boat leaks" in told
    assert b"OperationalError" in told and b"/join/" in told  # which page failed, and how
    assert b"secret-token" not in told


@pytest.fixture
def passwords(monkeypatch):
    monkeypatch.setenv("LIKESTEP_ADMIN_PASSWORD", "first admin password")
    monkeypatch.delenv("LIKESTEP_ANNOTATOR_PASSWORD", raising=False)
    monkeypatch.setenv("LIKESTEP_ROUND_SETTINGS", '{"updates": 3}')


@pytest.mark.django_db
def test_setup_makes_the_first_admin_and_the_demo_project_once(passwords, monkeypatch):
    call_command("setup")
    monkeypatch.setenv("LIKESTEP_ADMIN_PASSWORD", "another password")
    call_command("setup")
    (admin,) = User.objects.all()  # no annotator without a password
    assert admin.is_superuser and admin.check_password("first admin password")
    assert Project.objects.get().round_settings == {"method": "task_vector", "surrogate_lr": 1e-3, "updates": 3}


@pytest.mark.django_db
def test_setup_without_a_password_says_which(passwords, monkeypatch):
    monkeypatch.setenv("LIKESTEP_ADMIN_PASSWORD", "short")
    with pytest.raises(CommandError, match="LIKESTEP_ADMIN_PASSWORD: set a password of at least 8"):
        call_command("setup")
    assert not User.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("wrong", ["[", "[]", "3", '"task_vector"'])
def test_the_demos_round_settings_are_an_object(passwords, wrong):
    with pytest.raises(CommandError, match="--round-settings: give a JSON object"):
        call_command("seed_demo", round_settings=wrong)
    assert not User.objects.exists()


@pytest.mark.django_db
def test_setup_without_the_demo(passwords, monkeypatch):
    monkeypatch.setenv("LIKESTEP_DEMO_PROJECT", "0")
    call_command("setup")
    assert User.objects.count() == 1 and not Project.objects.exists()


def test_the_label_rate_looks_back_just_far_enough(project, ready, ann, monkeypatch):
    from webapp.labelling.models import LabelEvent
    from webapp.operations import queries

    monkeypatch.setattr(queries, "RATE_ROWS", (4, 8, 12))
    for n, group in enumerate(ready(5)):
        answer = dict.fromkeys(range(4), True)
        acting.submit_group(ann, project, group.pk, answer, seconds=1, idempotency_key=f"r{n}")
    ids = list(LabelEvent.objects.order_by("id").values_list("id", flat=True))
    now = timezone.now()
    since = now - timedelta(minutes=5)
    for young, edge in ((4, ids[-5]), (3, ids[-5]), (6, ids[-9]), (20, ids[-13])):
        LabelEvent.objects.update(created_at=now - timedelta(hours=1))
        LabelEvent.objects.filter(id__in=ids[-young:]).update(created_at=now)
        assert queries._edge(ids[-1], since) == edge, young
