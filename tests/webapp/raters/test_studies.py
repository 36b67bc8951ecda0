"""People whom Prolific sends: an account of their own, its groups, the code at the end, and nothing else."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from tests.webapp.acting import submit
from tests.webapp.conftest import routes
from webapp.accounts.models import User
from webapp.accounts.permissions import OUTSIDE, may
from webapp.campaigns import membership, passwords
from webapp.campaigns.models import Membership, Role
from webapp.campaigns.services import CampaignError
from webapp.labelling import leases
from webapp.raters import practice, studies
from webapp.raters.models import Participant, Study


def test_from_the_link_to_the_code(client, project, ready, study, visit):
    ready(3)
    _, token = study()
    query = {"PROLIFIC_PID": "5f01", "STUDY_ID": "5e01", "SESSION_ID": "6a0000000000000000000001"}
    assert "You rate 2 groups" in client.get(f"/study/{token}/", query_params=query).content.decode()
    assert not Participant.objects.exists()  # looking at it makes no account
    client, answer = visit(token, "5f01")
    assert answer.url == "/p/stars/annotate/"
    (part,) = Participant.objects.all()
    assert part.user.outside and not part.user.has_usable_password()
    assert "5f01" not in part.user.username
    project.groups.update(state="superseded")
    assert "researcher on Prolific" in client.get("/p/stars/groups/next/").json()["waiting"]
    project.groups.update(state="ready")
    assert len(client.get("/p/stars/groups/next/").json()["groups"]) == 2
    for group in leases.lease_groups(part.user, project, 3):
        submit(part.user, project, group, [1, 0, 0, 1])
    page = client.get("/p/stars/annotate/", follow=True).content.decode()
    assert "DONE1" in page and 'href="https://app.prolific.com/submissions/complete?cc=DONE1"' in page
    part.refresh_from_db()
    assert part.ending == "completed"
    assert client.get("/p/stars/groups/next/").json()["groups"] == []


def test_who_fails_the_practice_gets_the_other_code(project, gold, study, visit):
    gold(2)
    project.practice_groups, project.practice_right, project.practice_wait = 2, 2, 0
    project.save()
    _, token = study(places=1)
    client, _ = visit(token)
    user = Participant.objects.get().user
    assert "DONE1" not in client.get("/p/stars/rated/", follow=True).content.decode()
    practice.begin(user, project)
    for turn in range(2):
        practice.answer(user, project, turn, dict.fromkeys(range(4), True))
    page = client.get("/p/stars/practice/", follow=True).content.decode()
    assert "OUT1" in page and "did not pass" in page and "DONE1" not in page
    with pytest.raises(practice.PracticeError):  # a participant has one try
        practice.begin(user, project)
    assert visit(token, "5f02")[1].status_code == 302  # and the place is free again


def test_without_a_code_for_it_the_submission_is_returned(project, gold, study, visit):
    gold(1)
    project.practice_groups = project.practice_right = 1
    project.save()
    client, _ = visit(study(screened_code="")[1])
    user = Participant.objects.get().user
    practice.begin(user, project)
    practice.answer(user, project, 0, dict.fromkeys(range(4), True))
    page = client.get("/p/stars/rated/").content.decode()
    assert "cc=" not in page and "Return your submission" in page


def test_they_come_back_with_their_session_and_nobody_else_does(project, study, visit):
    _, token = study()
    visit(token, "5f01", "6a0000000000000000000001")
    assert visit(token, "5f01", "6a0000000000000000000001")[1].status_code == 302
    client, answer = visit(token, "5f01", "6a0000000000000000000002")
    assert answer.status_code == 403 and "_auth_user_id" not in client.session
    _, other = study(name="second")
    assert visit(other, "5f01", "6a0000000000000000000001")[1].status_code == 403  # nobody rates a group twice
    assert Participant.objects.count() == 1
    assert "6a0000000000000000000001" not in str(Participant.objects.values())


def test_who_was_removed_or_put_away_does_not_come_back(project, study, visit, boss):
    _, token = study()
    for pid, leave in (("5f01", "remove"), ("5f02", "deactivate")):
        visit(token, pid)
        user = Participant.objects.get(pid=pid).user
        if leave == "remove":
            membership.remove_member(project, user.pk, boss)
        else:
            User.objects.filter(pk=user.pk).update(is_active=False)
        client, answer = visit(token, pid)
        assert answer.status_code == 403 and "_auth_user_id" not in client.session


@pytest.mark.parametrize(
    "query",
    [
        {"pid": ""},
        {"pid": "x" * 65},
        {"pid": "<b>"},
        {"session": "short"},
        {"STUDY_ID": ""},
        {"session": "a b c d e f g h i j"},
    ],
)
def test_what_prolific_does_not_send_is_refused(query, study, visit, project):
    assert visit(study()[1], **query)[1].status_code == 403
    assert not Participant.objects.exists()


def test_a_link_ends(project, study, visit, boss):
    found, token = study(places=2)
    assert visit(token, "5f01")[1].status_code == 302
    assert visit(token, "5f02")[1].status_code == 302
    assert visit(token, "5f03")[1].status_code == 403  # all places are taken
    Study.objects.update(places=9)
    studies.close(project, found.pk, boss)
    assert visit(token, "5f03")[1].status_code == 403
    query = {"PROLIFIC_PID": "5f03", "STUDY_ID": "5e01", "SESSION_ID": "6a0000000000000000000001"}
    page = Client().get(f"/study/{token}/", query_params=query).content.decode()
    assert "takes nobody new" in page and "Begin" not in page  # before anybody presses it
    assert visit(token, "5f01")[1].status_code == 302  # who has begun may end
    assert "Begin" in Client().get(f"/study/{token}/", query_params={**query, "PROLIFIC_PID": "5f01"}).content.decode()
    Study.objects.update(closed_at=None, expires_at=timezone.now() - timedelta(minutes=1))
    assert visit(token, "5f03")[1].status_code == 403
    Study.objects.update(expires_at=timezone.now() + timedelta(days=1))
    Membership.objects.filter(user=boss).update(role=Role.REVIEWER)
    assert visit(token, "5f03")[1].status_code == 403  # a link is worth no more than its maker
    Membership.objects.filter(user=boss).update(role=Role.ADMIN)
    assert visit(token, "5f03")[1].status_code == 302
    assert visit("unknown")[1].status_code == 410


def test_a_member_who_follows_it_stays_who_they_are(project, study, visit, ann):
    client = Client()
    client.force_login(ann)
    assert visit(study()[1], client=client)[1].status_code == 403
    assert client.session["_auth_user_id"] == str(ann.pk)
    assert not Participant.objects.exists()


def test_another_site_cannot_begin_for_somebody(project, study):
    _, token = study()
    query = {"PROLIFIC_PID": "5f01", "STUDY_ID": "5e01", "SESSION_ID": "6a0000000000000000000001"}
    strict = Client(enforce_csrf_checks=True)
    assert strict.post(f"/study/{token}/", query_params=query).status_code == 403
    assert not Participant.objects.exists()


ALLOWED = {
    *"annotate next-groups submit skip flag undo task-image app-manifest".split(),
    *"guidelines example-image me language agree practice practice-image rated".split(),
}


def test_somebody_from_outside_sees_the_rating_pages_and_nothing_else(address, ready, project, study, visit):
    client, _ = visit(study()[1])
    user = Participant.objects.get().user
    names = [n for n, p in routes() if "slug" in p.pattern.converters and not n.startswith(("admin:", "api:"))]
    for role in Role.values:  # whatever a row says
        Membership.objects.filter(user=user).update(role=role)
        for name in names:
            answers = {m: getattr(client, m)(address(name)).status_code for m in ("get", "post")}
            reached = [m for m, status in answers.items() if status not in (404, 405)]
            if name not in ALLOWED:
                assert reached == [], name
        assert {action for action in OUTSIDE if may(user, project, action)} == OUTSIDE
    page = client.get("/").content.decode()  # the fixture's blind test is open
    assert "/p/stars/annotate/" in page and "/compare/" not in page
    assert client.get("/projects/new/").status_code == 404
    assert client.get("/account/").status_code == 404
    assert client.get("/admin/").status_code == 302


def test_they_stay_annotators_without_a_password(project, study, visit, boss):
    visit(study()[1])
    user = Participant.objects.get().user
    with pytest.raises(CampaignError, match="came from outside"):
        membership.change_role(project, user.pk, Role.ADMIN, boss)
    token = membership.invite(project, Role.REVIEWER, boss)
    with pytest.raises(CampaignError, match="came from outside"):
        membership.accept_invitation(token, user)
    with pytest.raises(CampaignError):
        passwords.hand_out(project, user.pk, boss)
    assert not passwords.may_reset(User.objects.create_superuser("root"), user)


def test_an_admin_makes_a_link_sees_who_came_and_closes_it(client, project, boss, visit):
    client.force_login(boss)
    form = {"action": "make", "name": "Spring", "groups": 2, "places": 5, "completion_code": "C1", "days": 3}
    page = client.post("/p/stars/studies/", form).content.decode()
    assert "{{%PROLIFIC_PID%}}" in page
    token = page.partition("/study/")[2].partition("/")[0]
    assert visit(token)[1].status_code == 302
    page = client.get("/p/stars/studies/").content.decode()
    assert "5f0000000000000000000001" in page and "0 / 2" in page and token not in page
    client.post("/p/stars/studies/", {"action": "close", "id": Study.objects.get().pk})
    assert Study.objects.get().closed_at is not None
    actions = list(project.audit_entries.values_list("action", flat=True))
    assert actions[:3] == ["study closed", "joined by study", "study made"]
    assert client.post("/p/stars/studies/", {**form, "completion_code": "a b"}).status_code == 400
    assert client.post("/p/stars/studies/", {**form, "places": 0}).status_code == 400
