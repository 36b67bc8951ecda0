"""A person changes their password; who forgot it gets a link that works once, from an admin or by mail."""

import re

import pytest
from django.core import mail
from django.core.cache import cache
from django.test import Client

from webapp.accounts.models import User
from webapp.api.services import create_token, find_token
from webapp.campaigns import passwords
from webapp.campaigns.models import Membership, Role
from webapp.campaigns.services import create_project

NEW = {"new_password1": "a brand new pass", "new_password2": "a brand new pass"}
CHANGE = {"action": "password", "old_password": "correct horse", **NEW}


@pytest.fixture
def elsewhere(ann):
    """Another browser where ann is logged in."""
    client = Client()
    client.force_login(ann)
    return client


@pytest.fixture
def mails(settings):
    """Mail is configured; what was sent."""
    settings.EMAIL_HOST = "mail.example.org"
    cache.clear()
    return mail.outbox


def logged_in(client) -> bool:
    return client.get("/account/").status_code == 200


def test_a_person_changes_it_and_other_sessions_and_tokens_end(client, ann, project, elsewhere):
    token = create_token(project, ann, "x", ["label"])[1]
    client.force_login(ann)
    assert client.post("/account/", {**CHANGE, "old_password": "wrong"}).status_code == 400
    assert logged_in(elsewhere) and find_token(token)
    assert client.post("/account/", CHANGE).status_code == 302
    assert logged_in(client) and not logged_in(elsewhere) and find_token(token) is None
    assert User.objects.get(pk=ann.pk).check_password("a brand new pass")


def hand_out(client, user) -> str:
    """The path of the link that the people page shows."""
    page = client.post("/p/stars/people/", {"action": "password", "id": user.pk}).content.decode()
    return re.search(r"http://testserver(/reset/[^<]+)<", page)[1]


def test_an_admin_hands_out_a_link_that_works_once(client, boss, ann, project, elsewhere):
    token = create_token(project, ann, "x", ["label"])[1]
    client.force_login(boss)
    link = hand_out(client, ann)
    stranger = Client()
    answer = stranger.get(link)
    assert answer.status_code == 200 and "no-store" in answer["Cache-Control"]
    assert stranger.post(link, {**NEW, "new_password2": "another"}).status_code == 200
    assert stranger.post(link, NEW).url == "/login/"
    assert not logged_in(elsewhere) and find_token(token) is None
    assert User.objects.get(pk=ann.pk).check_password("a brand new pass")
    assert stranger.get(link).status_code == stranger.post(link, NEW).status_code == 410
    assert project.audit_entries.get(action="password link made").detail == {"username": "ann"}


@pytest.mark.parametrize("end", ["removed", "deactivated", "log-in", "a day"])
def test_a_link_ends(client, boss, ann, person, settings, end):
    person("other", Role.ADMIN)
    client.force_login(boss)
    link = hand_out(client, ann)
    if end == "removed":
        Membership.objects.filter(user=boss).delete()
    elif end == "deactivated":
        User.objects.filter(pk=boss.pk).update(is_active=False)
    elif end == "log-in":
        Client().post("/login/", {"username": "ann", "password": "correct horse"})
    else:
        settings.PASSWORD_RESET_TIMEOUT = -1
    assert Client().get(link).status_code == 410


def test_an_admin_of_one_project_cannot_take_over_who_is_more_elsewhere(client, boss, ann, person, project):
    other = create_project("o", "O", model_dir="x", student_dir="x", prompts=[{"prompt": "x"}], by=ann)
    root = User.objects.create_superuser("root")
    Membership.objects.create(user=root, project=project, role=Role.ANNOTATOR)
    outsider = person("outsider", None)
    client.force_login(boss)
    for user in (ann, root, outsider):
        page = client.post("/p/stars/people/", {"action": "password", "id": user.pk}, follow=True).content.decode()
        assert "ask a superuser" in page and "/reset/" not in page
        assert not passwords.may_reset(boss, user)
    Membership.objects.create(user=boss, project=other, role=Role.ADMIN)
    assert passwords.may_reset(boss, ann)
    link = hand_out(client, ann)
    Membership.objects.filter(user=boss, project=other).delete()
    assert Client().get(link).status_code == 410


def test_a_link_is_for_one_person_and_of_one_maker(client, boss, ann, person):
    bob = person("bob")
    client.force_login(boss)
    link = hand_out(client, ann)
    for other in (
        link.replace(f"/{ann.pk}/{boss.pk}/", f"/{bob.pk}/{boss.pk}/"),
        link.replace(f"/{ann.pk}/{boss.pk}/", f"/{ann.pk}/{ann.pk}/"),
        link.replace(f"/{ann.pk}/", f"/{'9' * 40}/"),
    ):
        assert Client().get(other).status_code == 410


def test_with_mail_a_link_is_sent_to_the_address_and_nobody_learns_whose_it_is(client, ann, mails, settings):
    client.force_login(ann)
    body = {"action": "address", "email": "ann@example.org", "password": "wrong"}
    assert client.post("/account/", body).status_code == 400
    assert client.post("/account/", {**body, "password": "correct horse"}).status_code == 302
    client.logout()
    answers = [client.post("/forgot/", {"email": e}) for e in ("ann@example.org", "nobody@example.org")]
    assert answers[0].content == answers[1].content and [m.to for m in mails] == [["ann@example.org"]]
    client.post("/forgot/", {"email": "ann@example.org"})
    assert len(mails) == 1  # not again within minutes
    link = re.search(r"http://testserver(/reset/\S+)", mails[0].body)[1]
    assert client.post(link, NEW).url == "/login/"
    assert client.get(link).status_code == 410


def test_an_admins_link_is_mailed_too(client, boss, ann, mails):
    User.objects.filter(pk=ann.pk).update(email="ann@example.org")
    client.force_login(boss)
    link = hand_out(client, ann)
    assert link in mails[0].body


def test_without_mail_it_says_whom_to_ask(client, ann):
    page = client.get("/forgot/").content.decode()
    assert "An admin of your project can hand you a link" in page and "<form" not in page
    assert client.post("/forgot/", {"email": "a@example.org"}).status_code == 200
    client.force_login(ann)
    assert "Mail address" not in client.get("/account/").content.decode()
