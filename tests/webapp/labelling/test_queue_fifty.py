"""Fifty people at once, with an overlap, ties and gold: nobody twice, no group too often, nothing left over."""

import threading
from collections import Counter

import pytest
from django.db import connection

from tests.webapp import acting
from tests.webapp.conftest import make_ready
from webapp.accounts.models import User
from webapp.campaigns.models import Membership
from webapp.campaigns.services import create_project
from webapp.labelling import leases
from webapp.labelling.models import Group, GroupDecision, Label
from webapp.quality import services as quality
from webapp.quality.models import Consensus, GoldAnswer

PEOPLE, GROUPS = 50, 60


@pytest.mark.django_db(transaction=True)
def test_fifty_people_at_once(tmp_path):
    project = create_project(
        "race", "Race", model_dir="x", student_dir="x", prompts=[{"prompt": "a star"}], group_size=2, overlap=2
    )
    people = [User.objects.create_user(f"p{i}") for i in range(PEOPLE)]
    Membership.objects.bulk_create(Membership(user=u, project=project, role="annotator") for u in people)
    gold = make_ready(project, 3)
    makers = [User.objects.create_user(f"maker{i}") for i in range(2)]
    for group in gold:
        for maker in makers:
            acting.submit_group(maker, project, group.pk, {0: True, 1: False}, seconds=0, idempotency_key=f"{group}")
        quality.make_gold(Group.objects.get(pk=group.pk), "review", {0: True, 1: False})
    make_ready(project, GROUPS)
    project.tie_break, project.gold_rate = True, 0.2
    project.save()
    given, errors, start = [], [], threading.Barrier(PEOPLE)

    def rate(number, user):
        try:
            start.wait()
            while groups := leases.lease_groups(user, project, 2):
                for group in groups:
                    given.append((user.pk, group.pk))
                    # Half say like and dislike the other way round, so there are ties.
                    answer = {0: number % 2 == 0, 1: number % 2 == 1}
                    acting.submit_group(user, project, group.pk, answer, seconds=0, idempotency_key=f"k{group.pk}")
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=rate, args=(n, u)) for n, u in enumerate(people)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert max(Counter(given).values()) == 1
    known = {g.pk for g in gold}
    rated = Counter(group for _, group in given if group not in known)
    # Who still held a lease when the last tie came up may have left it: it waits for one more, and for nobody else.
    ties = set(Consensus.objects.filter(tie=True).values_list("group", flat=True))
    for group in Group.objects.exclude(pk__in=known):
        assert rated[group.pk] == group.decisions in ((2, 3) if group.pk not in ties else (2,)), group.pk
        assert group.state == ("ready" if group.pk in ties else "done")
    assert Counter(rated.values())[3] > 0
    assert Label.objects.filter(annotator__in=people).count() == 2 * len(given)
    acting.an_hour_passes()
    quality.compare_with_gold()
    golden = [(user, group) for user, group in given if group in known]
    assert GoldAnswer.objects.count() == len(golden) > 0
    assert GroupDecision.objects.filter(group__in=known).count() == len(golden) + 2 * len(known)
