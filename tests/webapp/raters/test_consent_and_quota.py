"""Consent before the first group, and how many groups a person may rate."""

from datetime import timedelta

import pytest
from django.db.models import F

from tests.webapp.acting import submit
from webapp.api.services import create_token
from webapp.campaigns.services import update_project
from webapp.labelling import decisions, errors, leases
from webapp.labelling.models import GroupDecision
from webapp.raters import gate
from webapp.raters.models import Agreement, Terms
from webapp.rounds import comparisons
from webapp.rounds.models import ModelVersion


def test_a_person_agrees_once_a_version(client, project, ready, ann, boss):
    ready()
    update_project(project, boss, consent="You take part in **research**.")
    client.force_login(ann)
    assert client.get("/p/stars/annotate/").url == "/p/stars/agree/"
    assert "<strong>research</strong>" in client.get("/p/stars/agree/").content.decode()
    assert client.get("/p/stars/groups/next/").json()["groups"] == []
    client.post("/p/stars/agree/", {"version": "1"})
    client.post("/p/stars/agree/", {"version": "1"})
    assert client.get("/p/stars/groups/next/").json()["groups"]
    (kept,) = Agreement.objects.all()
    assert (kept.user, kept.terms.number, kept.terms.text) == (ann, 1, "You take part in **research**.")
    update_project(project, boss, consent="You take part in other research.")
    assert client.get("/p/stars/annotate/").url == "/p/stars/agree/"
    answer = client.post("/p/stars/agree/", {"version": "1"}, follow=True)  # a page from before
    assert "has changed meanwhile" in answer.content.decode()
    client.post("/p/stars/agree/", {"version": "2"})
    assert client.get("/p/stars/annotate/").status_code == 200
    assert list(Terms.objects.values_list("number", flat=True)) == [2, 1]  # the old one stays as it was shown


def test_without_it_no_blind_test_and_nothing_by_the_api(client, project, ready, ann, boss):
    ready()
    project.consent = "Read me."
    project.save()
    other = ModelVersion.objects.create(project=project, number=2, path="x")
    comparisons.start(project, [1, other.number], None)
    client.force_login(ann)
    assert client.get("/p/stars/compare/").url == "/p/stars/agree/"
    assert client.get("/p/stars/comparisons/1/next/").json()["pairs"] == []
    _, token = create_token(project, ann, "mine", ["label"])
    answer = client.post("/api/v1/projects/stars/tasks", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 403 and "agree" in answer.json()["detail"]


def test_a_quota_a_day_and_in_all(client, project, ready, ann):
    ready(6)
    project.quota_day, project.quota_all = 2, 3
    project.save()
    client.force_login(ann)
    assert len(client.get("/p/stars/groups/next/").json()["groups"]) == 2  # never more than what is left
    for group in leases.lease_groups(ann, project, 3):
        submit(ann, project, group, [1, 0, 0, 1])
    told = client.get("/p/stars/groups/next/").json()
    assert told["groups"] == [] and told["go"] == "/p/stars/annotate/"
    page = client.get(told["go"], follow=True).content.decode()
    assert "You have rated 2 groups" in page and "There are new ones from" in page
    GroupDecision.objects.update(created_at=F("created_at") - timedelta(days=1))
    (last,) = leases.lease_groups(ann, project, 3)
    submit(ann, project, last, [1, 0, 0, 1])
    GroupDecision.objects.update(created_at=F("created_at") - timedelta(days=1))
    page = client.get("/p/stars/annotate/", follow=True).content.decode()
    assert "You have rated 3 groups" in page and "new ones from" not in page


def test_an_undo_gives_a_place_back_and_a_skip_takes_none(project, ready, ann):
    ready(3)
    project.quota_all = 1
    project.save()
    (group,) = leases.lease_groups(ann, project, 3)
    decisions.skip_group(ann, project, group.pk, reason="", idempotency_key="s")
    (group,) = leases.lease_groups(ann, project, 3)
    submit(ann, project, group, [1, 0, 0, 1])
    with pytest.raises(errors.Stopped):
        leases.lease_groups(ann, project)
    decisions.undo(ann, project)
    assert leases.lease_groups(ann, project) == [group]


def test_a_quota_binds_annotators_only_and_each_alone(project, ready, ann, boss, person):
    ready(3)
    project.overlap, project.quota_all = 3, 1
    project.save()
    for user in (ann, person("bob")):
        (group,) = leases.lease_groups(user, project)
        submit(user, project, group, [1, 0, 0, 1])
    assert gate.left(boss, project) == gate.WITHOUT_END
    assert len(leases.lease_groups(boss, project, 3)) == 3


def test_all_of_it_is_off_by_default_and_then_costs_no_query(project, ann, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert gate.find_stop(ann, project) is None
        assert gate.room(ann, project) == gate.WITHOUT_END
