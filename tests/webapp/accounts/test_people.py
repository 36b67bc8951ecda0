"""Invitations and leaving: a link is worth no more than its maker, works once, and says what it would change."""

import threading

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from tests.webapp import acting
from webapp.accounts.models import User
from webapp.campaigns import membership as people
from webapp.campaigns.models import Invitation, Membership, Role
from webapp.campaigns.queries import Activity
from webapp.campaigns.services import CampaignError, create_project
from webapp.quality.models import Consensus

FORM = {"username": "new", "password1": "long enough pass", "password2": "long enough pass"}


@pytest.fixture
def other(person):
    """A second admin, so that the first may go."""
    return person("other", Role.ADMIN)


def test_it_works_once(project, boss, client):
    token = people.invite(project, Role.ANNOTATOR, boss)
    answer = client.get(f"/join/{token}/")
    assert answer.status_code == 200 and "no-store" in answer["Cache-Control"]
    assert client.post(f"/join/{token}/", FORM).url == "/p/stars/annotate/"
    assert client.get("/p/stars/annotate/").status_code == 200
    assert client.get(f"/join/{token}/").status_code == 410
    with pytest.raises(CampaignError, match="invitation: the link was used already"):
        people.accept_invitation(token, boss)


def test_only_its_hash_is_kept(project, boss):
    token = people.invite(project, Role.ANNOTATOR, boss)
    assert token not in str(list(Invitation.objects.values()))


@pytest.mark.parametrize("how", ["removed", "demoted", "deactivated"])
def test_it_ends_with_its_makers_rights(project, boss, other, client, how):
    token = people.invite(project, Role.ADMIN, boss)
    if how == "removed":
        people.remove_member(project, boss.pk, other)
    elif how == "demoted":
        Membership.objects.filter(user=boss).update(role=Role.REVIEWER)
    else:
        User.objects.filter(pk=boss.pk).update(is_active=False)
    assert client.get(f"/join/{token}/").status_code == 410
    assert client.post(f"/join/{token}/", FORM).status_code == 410
    assert not User.objects.filter(username="new").exists()
    assert list(people.open_invitations(project)) == []


def test_an_admin_lists_and_revokes_them(project, boss, client):
    token = people.invite(project, Role.REVIEWER, boss)
    invitation = Invitation.objects.get()
    client.force_login(boss)
    assert f'data-invitation="{invitation.pk}"' in client.get("/p/stars/people/").content.decode()
    elsewhere = create_project("o", "O", model_dir="x", student_dir="x", prompts=[{"prompt": "x"}], by=boss)
    people.revoke_invitation(elsewhere, invitation.pk, boss)
    assert people.find_invitation(token) == invitation
    assert client.post("/p/stars/people/", {"action": "revoke", "id": invitation.pk}).status_code == 302
    assert people.find_invitation(token) is None
    assert "data-invitation" not in client.get("/p/stars/people/").content.decode()
    assert project.audit_entries.filter(action="invitation revoked").exists()


def test_a_member_is_told_what_a_link_changes_and_one_that_changes_nothing_is_not_used(project, boss, ann, client):
    client.force_login(ann)
    same = people.invite(project, Role.ANNOTATOR, boss)
    assert "The link would change nothing" in client.get(f"/join/{same}/").content.decode()
    answer = client.post(f"/join/{same}/")
    assert answer.status_code == 410 and "the link was not used" in answer.content.decode()
    assert people.find_invitation(same)
    more = people.invite(project, Role.REVIEWER, boss)
    assert "Your role will change" in client.get(f"/join/{more}/").content.decode()
    assert client.post(f"/join/{more}/").status_code == 302
    assert Membership.objects.get(user=ann).role == Role.REVIEWER
    assert people.find_invitation(more) is None


def test_a_link_lowers_nobody(project, boss, other):
    token = people.invite(project, Role.ANNOTATOR, boss)
    with pytest.raises(CampaignError, match="with this role already"):
        people.accept_invitation(token, other)
    assert Membership.objects.get(user=other).role == Role.ADMIN


@pytest.mark.django_db(transaction=True)
def test_joins_at_the_same_moment_leave_one_account(tmp_path):
    boss = User.objects.create_user("boss")
    project = create_project("stars", "Stars", model_dir="x", student_dir="x", prompts=[{"prompt": "x"}], by=boss)
    token, start, statuses = people.invite(project, Role.ANNOTATOR, boss), threading.Barrier(4), []

    def join(n):
        client = Client()
        start.wait()
        statuses.append(client.post(f"/join/{token}/", {**FORM, "username": f"new{n}"}).status_code)
        connection.close()

    threads = [threading.Thread(target=join, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [302, 410, 410, 410]
    assert User.objects.exclude(pk=boss.pk).count() == 1
    assert Membership.objects.filter(project=project).count() == 2


def test_the_last_admin_stays(project, boss, ann, client):
    client.force_login(boss)
    page = client.post("/p/stars/people/", {"action": "remove", "id": boss.pk}, follow=True).content.decode()
    assert "boss is the only admin" in page
    assert client.post("/p/stars/people/", {"action": "remove", "id": ann.pk}).status_code == 302
    assert list(project.memberships.values_list("user__username", flat=True)) == ["boss"]


def test_an_old_one_is_refused(project, boss, client):
    token = people.invite(project, Role.ANNOTATOR, boss)
    Invitation.objects.update(expires_at=timezone.now())
    assert client.get(f"/join/{token}/").status_code == 410


@pytest.mark.parametrize(
    "form", [{}, {"action": "x"}, {"action": "revoke", "id": "9" * 40}, {"action": "remove", "id": "²"}]
)
def test_other_requests_are_not_there(boss, client, form):
    client.force_login(boss)
    assert client.post("/p/stars/people/", form).status_code == 404


def test_a_role_is_changed_and_the_last_admin_keeps_it(project, boss, ann, client):
    client.force_login(boss)
    page = client.post("/p/stars/people/", {"action": "role", "id": ann.pk, "role": "reviewer"}, follow=True)
    assert "ann has this role now: Reviewer." in page.content.decode()
    assert Membership.objects.get(user=ann).role == Role.REVIEWER
    assert project.audit_entries.get(action="role changed").detail["role"] == ["annotator", "reviewer"]
    page = client.post("/p/stars/people/", {"action": "role", "id": boss.pk, "role": "annotator"}, follow=True)
    assert "boss is the only admin" in page.content.decode()
    page = client.post("/p/stars/people/", {"action": "role", "id": ann.pk, "role": "king"}, follow=True)
    assert "&#x27;king&#x27; is not one of" in page.content.decode()
    people.change_role(project, ann.pk, Role.ADMIN, boss)
    assert client.post("/p/stars/people/", {"action": "role", "id": boss.pk, "role": "annotator"}).url == "/"
    assert people.change_role(project, 999, Role.ADMIN, ann) is None


def test_the_page_shows_who_is_active_and_who_left(project, boss, ann, person, ready, client):
    old = person("old")
    groups = ready(3)
    acting.submit(ann, project, groups[0], [1, 0, 0, 0])
    acting.submit(old, project, groups[1], [1, 0, 0, 0])
    acting.give(boss, groups[2].pk)
    client.force_login(boss)
    page = client.post("/p/stars/people/", {"action": "remove", "id": old.pk}, follow=True)
    assert "Labels that they gave stay and count" in page.content.decode()
    rows = {m.user.username: m.done for m in page.context["rows"]}
    today = timezone.localdate()
    assert rows == {"ann": Activity(1, 1, today, False), "boss": Activity(now=True)}
    assert [(u.username, u.done.groups) for u in page.context["left"]] == [("old", 1)]
    assert Consensus.objects.filter(project=project).count() == 2
