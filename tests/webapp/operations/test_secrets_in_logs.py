"""Passwords, tokens, keys and invitations are in no line of the log, whatever goes wrong with their request."""

import logging

import pytest
from django.test import Client

from webapp.api.models import Webhook
from webapp.api.services import create_token, create_webhook
from webapp.campaigns import people
from webapp.campaigns.membership import invite
from webapp.campaigns.models import Role
from webapp.lib import broker
from webapp.rounds import services as rounds
from webapp.webhooks import outbox


@pytest.fixture
def text(lines, caplog):
    """text(): everything that was logged so far, from DEBUG on."""
    caplog.set_level(logging.DEBUG)
    return lambda: "\n".join(str(line) for line in lines()) + caplog.text


def test_invitations_and_passwords(project, boss, text, monkeypatch):
    token, password = invite(project, Role.ANNOTATOR, boss), "pass-phrase-of-a-person"
    form = {"username": "new", "password1": password, "password2": password}
    client = Client(raise_request_exception=False)

    def broken(*_):
        raise RuntimeError("the invitation cannot be accepted")

    with monkeypatch.context() as patch:
        patch.setattr(people.campaign, "accept_invitation", broken)
        assert client.post(f"/join/{token}/", form).status_code == 500
    assert Client(enforce_csrf_checks=True).post(f"/join/{token}/", form).status_code == 403
    assert client.get(f"/join/{token}").status_code == 301
    assert client.get(f"/join/{token}/more").status_code == 404
    other = {**form, "username": "newer"}
    assert client.post(f"/join/{token}/", other).status_code == 302
    assert client.get(f"/join/{token}/").status_code == 410
    for given in (password, f"{password} or not"):
        Client().post("/login/", {"username": "newer", "password": given})
    said = text()
    assert "Internal Server Error: /join/<str:token>/" in said and "Gone: /join/<str:token>/" in said
    assert "Forbidden (CSRF cookie not set.): /join/<str:token>/" in said
    assert token not in said and password not in said
    assert client.session.session_key not in said


def test_django_s_own_lines_carry_the_request_s_id(project, lines):
    answer = Client().get("/join/unknown/", headers={"X-Request-ID": "abc-2"})
    assert answer.status_code == 410
    (line,) = [line for line in lines() if line["logger"] == "django.request"]
    assert (line["message"], line["request"]) == ("Gone: /join/<str:token>/", "abc-2")


def test_tokens_and_keys(project, boss, text, settings):
    _, token = create_token(project, boss, "mine", ["read"])
    settings.METRICS_TOKEN = "metrics-token-of-the-test"
    settings.LIKESTEP_WEBHOOK_NETWORKS = ["127.0.0.0/8"]
    create_webhook(project, "http://127.0.0.1:1/path-with-a-key", ["version.published"], boss)
    rounds.publish_version(project, project.active_version_id)
    for waiting in outbox.due():
        assert outbox.deliver(waiting) == "pending"
    api = Client(raise_request_exception=False)
    for bearer in (token, token + "x"):
        headers = {"Authorization": f"Bearer {bearer}"}
        assert api.get("/api/v1/projects/stars/", headers=headers).status_code in (200, 401)
        assert api.post("/api/v1/projects/stars/rounds/", headers=headers).status_code in (401, 403, 404, 422)
    assert api.get("/metrics", headers={"Authorization": "Bearer metrics-token-of-the-tesT"}).status_code == 403
    said = text()
    for secret in (token, settings.METRICS_TOKEN, Webhook.objects.get().secret, "path-with-a-key"):
        assert secret not in said


def test_passwords_of_services_that_are_away(client, project, text, settings):
    settings.REDIS_URL = "redis://:password-of-redis@127.0.0.1:1/0"
    broker.producer.cache_clear()
    try:
        assert client.get("/readyz").status_code == 503
        assert broker.send("generate_group", 1) is False
        assert broker.queue_lengths() is None
    finally:
        broker.producer.cache_clear()
    said = text()
    assert "not ready: redis" in said and "waits for housekeeping" in said
    assert "password-of-redis" not in said
