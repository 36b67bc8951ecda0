"""Passwords cannot be guessed fast, HTTPS is strict, and what cannot be kept is refused."""

import json
import os
import subprocess
import sys
from urllib.parse import urlencode

import pytest
from django.test import Client

from webapp.campaigns.membership import invite
from webapp.campaigns.models import Role
from webapp.campaigns.services import CampaignError, add_prompts


def attempt(client, password, name="ann", ip="10.0.0.1"):
    return client.post("/login/", {"username": name, "password": password}, REMOTE_ADDR=ip)


def test_guessing_is_locked_out_for_the_guesser_only(client, ann, boss, settings):
    for _ in range(settings.AXES_FAILURE_LIMIT - 1):
        assert attempt(client, "wrong").status_code == 200
    answer = attempt(client, "wrong")
    assert answer.status_code == 429
    assert "Too many tries" in answer.content.decode() and "15 minutes" in answer.content.decode()
    assert attempt(client, "correct horse").status_code == 429
    assert attempt(client, "correct horse", name="boss").status_code == 302
    assert attempt(Client(), "correct horse", ip="10.0.0.2").status_code == 302


def test_a_success_forgets_the_failures(client, ann, settings):
    for _ in range(2):
        for _ in range(settings.AXES_FAILURE_LIMIT - 1):
            attempt(client, "wrong")
        assert attempt(client, "correct horse").status_code == 302


def python(code, **environment):
    """Run code in a process with these settings; what it printed."""
    ours = {**os.environ, "DJANGO_SETTINGS_MODULE": "webapp.settings", **environment}
    run = subprocess.run([sys.executable, "-c", code], env=ours, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_https_is_strict():
    code = (
        "import django; django.setup(); from django.test import Client; c = Client();"
        "a = c.get('/login/', headers={'host': 'x.example'}); print(a.status_code, a['Location']);"
        "a = c.get('/login/', headers={'host': 'x.example', 'X-Forwarded-Proto': 'https'});"
        "print(a.status_code, a['Strict-Transport-Security'], bool(a.cookies['csrftoken']['secure']));"
        "from django.conf import settings as s; print(s.SESSION_COOKIE_SECURE, s.SESSION_COOKIE_HTTPONLY);"
        "print(c.get('/healthz', headers={'host': 'x.example'}).status_code)"
    )
    said = python(code, HTTPS="1", ALLOWED_HOSTS="x.example").split("\n")
    assert said[:4] == ["301 https://x.example/login/", "200 max-age=31536000 True", "True True", "200"]


def test_djangos_own_deployment_check_finds_nothing():
    production = {
        "DEBUG": "0",
        "HTTPS": "1",
        "ALLOWED_HOSTS": "x.example",
        "SECRET_KEY": "a long and random 0123456789 key of the test, 50 or more",
    }
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    run = subprocess.run(command, env={**os.environ, **production}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_nothing_inline_and_nothing_from_elsewhere(client, boss, project):
    client.force_login(boss)
    policy = client.get("/p/stars/")["Content-Security-Policy"]
    assert "unsafe" not in policy and "http" not in policy and "*" not in policy and "ws:" not in policy
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" in client.get("/admin/")["Content-Security-Policy"]  # superusers only; docs/security.md says why
    for path in ("/", "/p/stars/annotate/", "/login/", "/join/x/", "/adminx/"):
        assert "unsafe" not in client.get(path)["Content-Security-Policy"], path


def test_pages_are_kept_by_no_cache(client, boss, project):
    token = invite(project, Role.ANNOTATOR, boss)
    client.force_login(boss)
    for path in (f"/join/{token}/", "/", "/p/stars/", "/p/stars/annotate/", "/p/stars/people/", "/admin/", "/nowhere/"):
        said = client.get(path)["Cache-Control"]
        assert "private" in said and "no-store" in said, path
    assert "max-age" in client.get("/static/css/likestep.css")["Cache-Control"]


@pytest.mark.parametrize("bad", ["a\0b", "half \ud83d"])
def test_texts_that_no_database_takes_are_refused_everywhere(client, boss, project, bad):
    client.force_login(boss)
    sent = client.post("/p/stars/undo/", json.dumps({"key": bad}), content_type="application/json")
    assert (sent.status_code, "key: leave out null" in sent.json()["error"]) == (400, True)
    with pytest.raises(CampaignError, match="row 1: tag: leave out"):
        add_prompts(project, [{"prompt": "x", "metadata": {"tag": [bad]}}])
    with pytest.raises(CampaignError, match="finite"):
        add_prompts(project, [{"prompt": "x", "metadata": {"weight": float("nan")}}])
    assert client.get("/p/stars/audit/", {"page": "1\0"}).status_code == 400
    client.logout()
    refused = client.post("/login/", {"username": "a\0", "password": "x"})
    assert refused.status_code == 400 and refused.content.startswith(b"username: leave out")


def test_a_form_where_json_is_wanted_is_refused(client, ann, project):
    client.force_login(ann)
    for path in ("undo/", "groups/1/skip/"):
        answer = client.post(f"/p/stars/{path}", {"key": "a"})
        assert (answer.status_code, answer.json()["error"]) == (400, "body: send a JSON object")


def test_json_that_is_nested_too_deep_is_refused(client, ann, project):
    client.force_login(ann)
    sent = client.post("/p/stars/undo/", "[" * 100_000, content_type="application/json")
    assert sent.status_code == 400


@pytest.mark.parametrize(
    ("came_from", "goes_on"),
    [
        ("http://testserver/p/stars/versions/?page=2", "/p/stars/versions/?page=2"),
        ("http://elsewhere.example/p/stars/", "/"),
        ("//elsewhere.example/p/stars/", "/"),
        ("http://testserver", "/"),
        ("", "/"),
    ],
)
def test_who_sends_a_form_without_a_session_goes_on_at_its_page(client, project, came_from, goes_on):
    """The form's own address may take nothing but POST."""
    headers = {"referer": came_from} if came_from else {}
    answer = client.post("/p/stars/clone/", {"slug": "x"}, headers=headers)
    assert answer.headers["Location"] == f"/login/?{urlencode({'next': goes_on}, safe='/')}"
    assert client.get("/p/stars/versions/?page=2").headers["Location"] == "/login/?next=/p/stars/versions/%3Fpage%3D2"
