"""The queue: who is given which group, under any number of people at once."""

import threading
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from tests.webapp import acting
from tests.webapp.conftest import make_ready
from webapp.accounts.models import User
from webapp.campaigns.models import Membership
from webapp.campaigns.services import create_project
from webapp.labelling import generation, leases
from webapp.labelling.models import Group, Lease
from webapp.lib import options


def test_it_tops_up_with_different_prompts(project):
    groups = generation.top_up(project.pk)
    assert len(groups) == project.ready_target
    assert len({g.prompt_id for g in groups}) == len(groups)
    assert generation.top_up(project.pk) == []


def test_a_lease_stays_with_its_holder(project, ready, ann, person):
    ready(2)
    bob = person("bob")
    (mine,) = leases.lease_groups(ann, project)
    assert leases.lease_groups(ann, project) == [mine]
    (other,) = leases.lease_groups(bob, project)
    assert other != mine
    assert leases.lease_groups(person("cat"), project) == []


def test_an_abandoned_lease_comes_back(project, ready, ann, person):
    (group,) = ready()
    leases.lease_groups(ann, project)
    Lease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert leases.lease_groups(person("bob"), project) == [group]


def test_overlap_asks_as_many_people_and_no_more(project, ready, ann, person):
    project.overlap = 2
    project.save()
    (group,) = ready()
    answer = dict.fromkeys(range(4), True)
    for user in (ann, person("bob")):
        assert leases.lease_groups(user, project) == [group]
        acting.submit_group(user, project, group.pk, answer, seconds=1, idempotency_key="k")
        assert leases.lease_groups(user, project) == []
    assert leases.lease_groups(person("cat"), project) == []
    group.refresh_from_db()
    assert group.state == "done"


@pytest.mark.django_db(transaction=True)
def test_many_people_at_once_are_never_given_the_same_group(tmp_path):
    prompts = [{"prompt": "a star"}]
    project = create_project(
        "race", "Race", model_dir=str(tmp_path), student_dir=str(tmp_path), prompts=prompts, group_size=2
    )
    make_ready(project, 24)
    people = [User.objects.create_user(f"p{i}") for i in range(12)]
    Membership.objects.bulk_create(Membership(user=u, project=project, role="annotator") for u in people)
    given, errors, start = [], [], threading.Barrier(len(people))

    def rate(user):
        try:
            start.wait()
            for n in range(20):
                groups = leases.lease_groups(user, project)
                if not groups:
                    return
                given.append(groups[0].pk)
                acting.submit_group(
                    user, project, groups[0].pk, {0: True, 1: False}, seconds=0, idempotency_key=f"{user.pk}-{n}"
                )
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=rate, args=(u,)) for u in people]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert errors == []
    assert max(Counter(given).values()) == 1
    assert len(given) == 24
    assert set(Group.objects.values_list("decisions", flat=True)) == {1}


@pytest.mark.django_db(transaction=True)
def test_many_tabs_of_one_person_do_not_wait_for_each_other(project, ann, monkeypatch):
    monkeypatch.setattr(leases, "RENEWED", 2)  # each time
    make_ready(project, 4)
    errors, start = [], threading.Barrier(8)

    def ask():
        try:
            start.wait()
            for _ in range(25):
                leases.hold_groups(ann, project, 4)
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    tabs = [threading.Thread(target=ask) for _ in range(8)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert errors == []


def test_a_stale_job_is_taken_over_and_its_old_owner_refused(project):
    group = generation.top_up(project.pk)[0]
    old = generation.claim_group_for_generation(group.pk, "one")
    assert generation.claim_group_for_generation(group.pk, "two") is None
    Group.objects.filter(pk=group.pk).update(heartbeat_at=timezone.now() - timedelta(hours=1))
    new = generation.claim_group_for_generation(group.pk, "two")
    assert new.token > old.token
    assert not generation.complete_group(group.pk, old.token, [(1, 1)] * 4)
    assert generation.complete_group(group.pk, new.token, [(1, 1)] * 4)


def test_a_poison_group_stops_after_three_tries(project):
    group = generation.top_up(project.pk)[0]
    for _ in range(3):
        generation.fail_group(group.pk, generation.claim_group_for_generation(group.pk, "w").token, "no such folder")
    group.refresh_from_db()
    assert (group.state, group.error) == ("failed", "no such folder")
    assert generation.claim_group_for_generation(group.pk, "w") is None


def test_a_group_that_kills_its_workers_stops_too(project, client, boss):
    group = generation.top_up(project.pk)[0]
    for n in range(options.LOST_WORKERS):
        assert generation.claim_group_for_generation(group.pk, f"worker {n}")
        Group.objects.filter(pk=group.pk).update(heartbeat_at=timezone.now() - timedelta(hours=1))
    assert generation.claim_group_for_generation(group.pk, "one more") is None
    group.refresh_from_db()
    assert group.state == "failed"
    client.force_login(boss)
    page = client.get("/p/stars/").content.decode()
    assert f"Group {group.pk} failed: <bdi>the worker was lost 5 times over it; see its log" in page
