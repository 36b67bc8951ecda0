"""Leaving takes effect at once: sockets, tokens and leases end with the session, the role, the account and the password."""

import asyncio
import json
import random

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from channels.layers import channel_layers
from django.conf import settings
from django.test import Client
from django.utils import timezone

from tests.webapp import acting
from webapp import asgi
from webapp.accounts.models import User
from webapp.api.services import ApiError, create_token, create_webhook, find_token
from webapp.campaigns import membership
from webapp.campaigns.models import Membership, Role
from webapp.campaigns.services import CampaignError, add_prompts, create_project, set_archived
from webapp.dashboard import consumers
from webapp.exports.imports import import_labels
from webapp.labelling import decisions, errors, generation, leases, scoring
from webapp.labelling.models import Lease
from webapp.rounds import comparisons, pairs
from webapp.rounds import services as rounds
from webapp.rounds.models import ModelVersion, TrainingRound

LIKES = {0: True, 1: False, 2: False, 3: True}


def log_out(user, client):
    client.post("/logout/")


def removed(user, client):
    membership.remove_member(Membership.objects.get(user=user).project, user.pk, None)


def demoted(user, client):
    membership = Membership.objects.get(user=user)
    membership.role = Role.ANNOTATOR
    membership.save()


def deactivated(user, client):
    user.is_active = False
    user.save()


def new_password(user, client):
    user.set_password("another long pass")
    user.save()


@pytest.fixture
def watcher(transactional_db):
    """watcher(change): what a reviewer's open socket is sent after `await change(reviewer, their client)`."""
    channel_layers.backends.clear()  # Redis' connections belong to an event loop
    boss = User.objects.create_user("boss")
    project = create_project("stars", "Stars", model_dir="x", student_dir="x", prompts=[{"prompt": "x"}], by=boss)
    user, client = User.objects.create_user("rev", password="correct horse"), Client()
    Membership.objects.create(user=user, project=project, role=Role.REVIEWER)
    client.force_login(user)
    cookie = f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"
    headers = [(b"origin", b"http://localhost"), (b"host", b"localhost"), (b"cookie", cookie.encode())]

    async def watch(change):
        scope = {"type": "websocket", "path": "/ws/projects/stars/", "headers": headers, "query_string": b""}
        socket = ApplicationCommunicator(asgi.application, scope)
        await socket.send_input({"type": "websocket.connect"})
        assert (await socket.receive_output(10))["type"] == "websocket.accept"
        await change(user, client)
        answer = await socket.receive_output(10)
        for _ in range(3):
            if others := asyncio.all_tasks() - {asyncio.current_task()}:
                for task in others:
                    task.cancel()
                await asyncio.wait(others, timeout=1)
        return answer["type"], answer.get("code")

    yield lambda change: asyncio.run(watch(change))
    channel_layers.backends.clear()


@pytest.mark.parametrize("leave", [log_out, removed, demoted, deactivated, new_password])
def test_a_socket_closes_at_once(leave, watcher):
    assert watcher(sync_to_async(leave)) == ("websocket.close", 4403)


def test_a_socket_that_nobody_tells_asks_by_itself(watcher, monkeypatch):
    monkeypatch.setattr(consumers, "CHECKED_EVERY", 0.2)

    async def demote(user, client):
        await Membership.objects.filter(user=user).aupdate(role=Role.ANNOTATOR)

    assert watcher(demote) == ("websocket.close", 4403)


@pytest.mark.parametrize("leave", [removed, deactivated, new_password])
def test_tokens_end_and_do_not_come_back(project, person, leave):
    user = person("rev", Role.REVIEWER)
    token = create_token(project, user, "x", ["read"])[1]
    assert find_token(token)
    leave(user, None)
    assert find_token(token) is None
    User.objects.filter(pk=user.pk).update(is_active=True)
    Membership.objects.get_or_create(user=user, project=project, defaults={"role": Role.REVIEWER})
    assert find_token(token) is None


def test_a_newer_hash_of_the_same_password_ends_nothing(project, person, settings):
    user = person("rev", Role.REVIEWER)
    token = create_token(project, user, "x", ["read"])[1]
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.ScryptPasswordHasher",
        "django.contrib.auth.hashers.MD5PasswordHasher",
    ]
    assert user.check_password("correct horse") and user.password.startswith("scrypt")
    assert find_token(token)


def test_the_groups_of_who_left_go_back_to_the_queue(project, ready, ann, person):
    (group,) = ready()
    assert leases.lease_groups(ann, project) == [group]
    bob = person("bob")
    assert leases.lease_groups(bob, project) == []
    removed(ann, None)
    assert leases.lease_groups(bob, project) == [group]
    assert Lease.objects.get(user=ann).expires_at <= timezone.now()


# ---------------------------------------------------------------- archived projects


def test_an_archived_project_takes_and_makes_nothing(project, ready, ann, boss, client):
    group, decided = ready(2)
    acting.give(ann, group.pk)
    acting.submit_group(ann, project, decided.pk, LIKES, seconds=1, idempotency_key="d")
    queued = generation.create_group(project, project.prompts.first().pk, random.Random(1))
    scoring.queue_scoring(group)
    other = ModelVersion.objects.create(project=project, number=2, path="x")
    test = comparisons.start(project, [1, 2], boss)
    training = TrainingRound.objects.create(
        project=project, number=1, base_version=project.active_version, idempotency_key="k", settings={}
    )
    set_archived(project, True, boss)
    project.refresh_from_db()
    with pytest.raises(errors.LabellingError, match="archived"):
        decisions.submit_group(ann, project, group.pk, LIKES, seconds=1, idempotency_key="a")
    with pytest.raises(errors.LabellingError, match="archived"):
        decisions.skip_group(ann, project, group.pk, reason="", idempotency_key="a")
    with pytest.raises(errors.LabellingError, match="archived"):
        decisions.flag_group(ann, project, group.pk, kind="unsafe", position=None, idempotency_key="a")
    with pytest.raises(errors.LabellingError, match="archived"):
        decisions.undo(ann, project)
    with pytest.raises(CampaignError, match="archived"):
        add_prompts(project, [{"prompt": "one more"}], by=boss)
    with pytest.raises(rounds.RoundError, match="archived"):
        rounds.publish_version(project, other.pk, by=boss)
    with pytest.raises(rounds.RoundError, match="archived"):
        rounds.start_round(project, {}, idempotency_key="r")
    with pytest.raises(comparisons.ComparisonError, match="archived"):
        comparisons.start(project, [1, 2], boss)
    with pytest.raises(comparisons.ComparisonError, match="archived"):
        comparisons.vote(ann, test, test.pairs.first().pk, [[0]])
    with pytest.raises(ApiError, match="archived"):
        create_webhook(project, "https://example.org/", ["round.finished"], boss)
    assert "archived" in import_labels(project, [(1, {})]).errors[0]
    assert generation.top_up(project.pk) == [] and leases.lease_groups(ann, project) == []
    assert generation.claim_group_for_generation(queued.pk, "w") is None
    assert scoring.scorings_due() == [] and scoring.claim_scoring(group.pk) is None
    assert pairs.claim_pairs(test.pk) == []
    assert rounds.claim_round(training.pk, "w") is None
    client.force_login(boss)
    body = json.dumps({"labels": {"0": True}, "key": "x"})
    address = f"/p/stars/groups/{acting.task(ann, group)}/submit/"
    assert client.post(address, body, content_type="application/json").status_code == 400
    set_archived(project, False, boss)
    assert generation.claim_group_for_generation(queued.pk, "w")
    assert rounds.claim_round(training.pk, "w")
