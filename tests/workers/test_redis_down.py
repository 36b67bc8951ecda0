"""Without Redis labels are kept and rounds are started; afterwards everything is dispatched from the database."""

import json
import time
from datetime import timedelta

import pytest
import redis
from channels.layers import channel_layers
from django.utils import timezone

from tests.servers import free_port, start_redis
from tests.workers.conftest import make_project
from webapp.accounts.models import User
from webapp.campaigns.models import Membership
from webapp.labelling import generation
from webapp.labelling.models import Group, Label
from webapp.lib import broker
from webapp.rounds.models import TrainingRound
from webapp.rounds.services import check_settings
from workers import tasks


@pytest.fixture
def port(settings):
    """The port of a Redis of this test's own, which is not running yet."""
    number = free_port()
    settings.REDIS_URL = f"redis://127.0.0.1:{number}/0"
    layer = settings.CHANNEL_LAYERS["default"]
    settings.CHANNEL_LAYERS = {"default": {**layer, "CONFIG": {"hosts": [{"address": settings.REDIS_URL}]}}}
    broker.producer.cache_clear()
    channel_layers.backends.clear()
    yield number
    broker.producer.cache_clear()
    channel_layers.backends.clear()


@pytest.mark.django_db(transaction=True)
def test_nothing_is_lost_while_redis_is_away(tiny, port, tmp_path, client):
    server, url = start_redis(tmp_path, port)
    try:
        project = make_project(tiny)
        ann = User.objects.create_user("ann")
        Membership.objects.create(user=ann, project=project, role="admin")
        client.force_login(ann)
        groups = generation.top_up(project.pk)
        for group in groups[:2]:
            tasks.generate_group(group.pk)
        assert redis.Redis.from_url(url).llen("generate") == 3
    finally:
        server.kill()
        server.wait()

    started = time.monotonic()
    leased = client.get("/p/tiny/groups/next/").json()["groups"]
    for group in leased:
        body = {"labels": {"0": True, "1": False, "2": False}, "seconds": 1, "key": group["group"]}
        answer = client.post(f"/p/tiny/groups/{group['group']}/submit/", json.dumps(body), "application/json")
        assert answer.status_code == 200
    form = {"key": "k", **{k: v for k, v in check_settings(project.round_settings).items() if v is not False}}
    assert client.post("/p/tiny/rounds/start/", form).status_code == 302
    assert time.monotonic() - started < 10  # nobody waits for a broker that is away
    assert Label.objects.count() == 6
    assert TrainingRound.objects.get().state == "queued"

    server, url = start_redis(tmp_path, port)  # it has forgotten everything
    try:
        before = timezone.now() - timedelta(minutes=2)
        Group.objects.filter(state="queued").update(created_at=before)
        TrainingRound.objects.update(created_at=before)
        tasks.housekeeping()
        waiting = redis.Redis.from_url(url)
        assert {name: waiting.llen(name) for name in ("generate", "train")} == {"generate": 3, "train": 1}
    finally:
        server.kill()
