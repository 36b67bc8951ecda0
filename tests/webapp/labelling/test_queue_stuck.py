"""The queue never sticks: nobody is sent away while there is a group, or room for one, that they could rate."""

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from tests.webapp import acting
from tests.webapp.conftest import make_ready
from webapp.accounts.models import User
from webapp.campaigns.services import create_project
from webapp.labelling import generation, leases
from webapp.labelling.models import Group, Lease
from webapp.lib import options
from webapp.rounds.models import ModelVersion
from webapp.rounds.services import publish_version

ANSWER = {0: True, 1: False, 2: False, 3: False}


def submit(user, project, group):
    return acting.submit_group(user, project, group.pk, ANSWER, seconds=1, idempotency_key=str(group.pk))


def test_groups_that_someone_skipped_are_made_up_for(project, ready, ann):
    for group in ready(project.ready_target):
        acting.skip_group(ann, project, group.pk, reason="unclear", idempotency_key=f"s{group.pk}")
    assert leases.lease_groups(ann, project) == []
    assert len(generation.top_up(project.pk)) == project.ready_target


def test_groups_that_wait_for_a_second_person_are_made_up_for(project, ready, ann):
    groups = ready(3)
    project.overlap, project.ready_target = 2, 3
    project.save()
    for group in groups:
        submit(ann, project, group)
    assert len(generation.top_up(project.pk)) == 3


def test_groups_on_somebodys_screen_are_made_up_for(project, ready, ann):
    ready(3)
    project.refresh_from_db()
    leases.lease_groups(ann, project, 2)
    assert len(generation.top_up(project.pk)) == 2


def test_many_fully_leased_groups_do_not_hide_a_free_one(project, ready, person, ann):
    *taken, free = ready(32)
    project.overlap = 2
    project.save()
    until = timezone.now() + options.LEASE
    busy = [person("bob"), person("cat")]
    Lease.objects.bulk_create(
        Lease(group=g, user=u, task=acting.task(u, g), expires_at=until) for g in taken for u in busy
    )
    assert leases.lease_groups(ann, project) == [free]


def test_old_groups_that_were_on_a_screen_when_a_version_was_published_go_later(project, ready, ann):
    kept, dropped = ready(2)
    leases.lease_groups(ann, project, 1)
    version = ModelVersion.objects.create(project=project, number=2, path="versions/2")
    publish_version(project, version.pk)
    states = dict(Group.objects.values_list("pk", "state"))
    assert (states[kept.pk], states[dropped.pk]) == ("ready", "superseded")
    Lease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    generation.top_up(project.pk)
    kept.refresh_from_db()
    assert kept.state == "superseded"


def test_groups_generated_while_a_version_was_published_go_too(project, ready):
    group = generation.top_up(project.pk)[0]
    claimed = generation.claim_group_for_generation(group.pk, "w")
    version = ModelVersion.objects.create(project=project, number=2, path="versions/2")
    publish_version(project, version.pk)
    assert generation.complete_group(group.pk, claimed.token, [(1, 1)] * 4)
    generation.top_up(project.pk)
    group.refresh_from_db()
    assert group.state == "superseded"


@pytest.mark.django_db(transaction=True)
def test_people_who_click_at_the_same_moment_all_get_a_group(tmp_path):
    folder = str(tmp_path)
    project = create_project(
        "same", "Same", model_dir=folder, student_dir=folder, prompts=[{"prompt": "a star"}], group_size=2
    )
    make_ready(project, 12)
    people = [User.objects.create_user(f"p{i}") for i in range(12)]
    for _ in range(3):
        given, errors, start = {}, [], threading.Barrier(len(people))

        def ask(user, given=given, errors=errors, start=start):
            try:
                start.wait()
                given[user.pk] = [g.pk for g in leases.lease_groups(user, project)]
            except Exception as error:
                errors.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=ask, args=(u,)) for u in people]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert errors == []
        assert sorted(len(groups) for groups in given.values()) == [1] * len(people)
        assert len({groups[0] for groups in given.values()}) == len(people)
        Lease.objects.all().delete()
