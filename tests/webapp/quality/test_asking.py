"""How many people a group is asked about: a fixed overlap, and a range that ends when the labels are sure enough."""

import itertools
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.webapp import acting
from webapp.campaigns.services import CampaignError, update_project
from webapp.labelling import decisions, following, leases
from webapp.labelling.leases import _counted
from webapp.labelling.models import Group, Lease
from webapp.quality import counts, services
from webapp.quality.asking import Asking
from webapp.quality.models import Consensus, PersonQuality, ProjectQuality
from webapp.quality.needing import more

LIKES = [1, 0, 1, 0]


@pytest.fixture
def ranged(project):
    """A project that asks one to three people, until .85 of the labels should be right."""
    update_project(project, None, overlap_most=3, sure=0.85)
    project.refresh_from_db()
    return project


@pytest.fixture
def people(person):
    return [person(name) for name in ("one", "two", "three", "four")]


def reliable(project, user, rate):
    """The last measurement found this of the person."""
    ProjectQuality.objects.create(project=project, prior=0.5, labels=0, shared=0, people=1)
    values = {"like_accuracy": rate, "dislike_accuracy": rate, "measured_at": timezone.now()}
    PersonQuality.objects.update_or_create(project=project, user=user, defaults=values)


def state(group):
    group.refresh_from_db()
    return group.state


def given(project, user):
    return leases.lease_groups(user, project)


def test_the_queries_say_what_the_rule_says(project, ready, people):
    """Every range over groups with all numbers of answers and leases, ties, and certainties about the limit."""
    kinds = list(itertools.product(range(4), range(3), (False, True), (None, 0.8999, 0.9, 1.0)))
    prompt, version, now = project.prompts.first(), project.active_version, timezone.now()
    groups = Group.objects.bulk_create(
        Group(project=project, prompt=prompt, version=version, state="ready", first_seed=0, size=4, decisions=answers)
        for answers, *_ in kinds
    )
    settled, held = [], []
    for group, (_answers, live, tie, certainty) in zip(groups, kinds, strict=True):
        if certainty is not None:
            values = {"rewards": [], "signal": False, "labelled_at": now, "tie": tie, "certainty": certainty}
            settled.append(Consensus(group=group, project=project, **values))
        held += [Lease(group=group, user=user, expires_at=now + timedelta(hours=1)) for user in people[:live]]
    Consensus.objects.bulk_create(settled)
    Lease.objects.bulk_create(held)
    live = Lease.objects.filter(expires_at__gt=now)
    for least, most, tie_break in itertools.product((1, 2), (1, 2, 3), (False, True)):
        asking = Asking(least, max(least, most), 0.9, tie_break)
        rows = Group.objects.annotate(taken=F("decisions") + _counted(live))
        found = set(rows.filter(more(asking)).values_list("pk", flat=True))
        for group, (answers, live_now, tie, certainty) in zip(groups, kinds, strict=True):
            known = () if certainty is None else (tie, certainty)
            assert (answers + live_now < asking.wanted(answers, *known)) == (group.pk in found), (
                asking,
                answers,
                known,
            )


def test_a_fixed_overlap_is_a_range_that_ends_where_it_begins():
    for least, answers, tie, certainty in itertools.product((1, 2, 5), range(7), (False, True), (0.0, 1.0)):
        asking = Asking(least, least, 0.9, tie_break=True)
        assert asking.wanted(answers, tie, certainty) == least + tie


def test_newcomers_are_asked_until_they_agree(ranged, ready, people):
    agreed, split = ready(2)
    one, two, three, four = people
    for group in (agreed, split):
        acting.submit(one, ranged, group, LIKES)
        assert state(group) == "ready"  # .75 of the labels should be right
    acting.submit(two, ranged, agreed, LIKES)
    assert (state(agreed), Consensus.objects.get(group=agreed).certainty) == ("done", 0.9)
    acting.submit(two, ranged, split, [0, 1, 1, 0])
    assert state(split) == "ready" and not Consensus.objects.get(group=split).tie
    assert given(ranged, three) == [split]
    acting.submit(three, ranged, split, [0, 1, 0, 1])
    assert state(split) == "done"  # unsure, and three were asked
    assert given(ranged, four) == []


def test_one_reliable_person_is_enough(ranged, ready, people):
    first, second = ready(2)
    one, two, *_ = people
    reliable(ranged, one, 0.95)
    acting.submit(one, ranged, first, LIKES)
    assert state(first) == "done"
    acting.submit(two, ranged, second, LIKES)
    assert state(second) == "ready"


def test_beyond_the_overlap_one_is_asked_after_the_other(ranged, ready, people):
    (group,) = ready()
    one, two, three, _four = people
    acting.submit(one, ranged, group, LIKES)
    assert given(ranged, two) == [group]
    assert given(ranged, three) == []  # the second may make it sure
    Lease.objects.filter(user=two).update(expires_at=timezone.now())
    assert given(ranged, three) == [group]


def test_an_answer_costs_as_many_queries_as_with_a_fixed_overlap(ranged, ready, people):
    groups = ready(2)
    answer = dict.fromkeys(range(4), True)
    acting.submit(people[0], ranged, groups[0], LIKES)
    acting.give(people[0], groups[1].pk)
    asked = []
    for most in (3, None):
        update_project(ranged, None, overlap_most=most)
        ranged.refresh_from_db()
        with CaptureQueriesContext(connection) as found:
            decisions.submit_group(people[0], ranged, groups[1].pk, answer, seconds=1, idempotency_key=f"most {most}")
        asked.append(len(found))
        decisions.undo(people[0], ranged)
    assert asked[0] == asked[1]


def test_an_undone_answer_asks_again(ranged, ready, people):
    (group,) = ready()
    one, two, *_ = people
    acting.submit(one, ranged, group, LIKES)
    acting.submit(two, ranged, group, LIKES)
    assert state(group) == "done"
    decisions.undo(two, ranged)
    assert state(group) == "ready"
    decisions.undo(one, ranged)
    assert state(group) == "ready" and not Consensus.objects.exists()


def test_a_tie_is_one_when_the_range_has_ended(ranged, ready, people):
    update_project(ranged, None, overlap_most=2, tie_break=True)
    ranged.refresh_from_db()
    (group,) = ready()
    one, two, three, four = people
    acting.submit(one, ranged, group, LIKES)
    acting.submit(two, ranged, group, [0, 1, 1, 0])
    assert Consensus.objects.get().tie and state(group) == "ready"
    assert given(ranged, three) == [group] and given(ranged, four) == []
    acting.submit(three, ranged, group, LIKES)
    assert state(group) == "done"


def test_groups_follow_the_range(ranged, ready, people):
    first, second, third = ready(3)
    one, two, *_ = people
    for group in (first, second, third):
        acting.submit(one, ranged, group, LIKES)
    acting.submit(two, ranged, second, [0, 1, 1, 0])
    assert following.finish_answered(ranged.pk) == 0
    update_project(ranged, None, overlap_most=2)
    assert following.finish_answered(ranged.pk) == 1 and state(second) == "done"
    update_project(ranged, None, sure=0.75)
    assert following.finish_answered(ranged.pk) == 2 and state(first) == state(third) == "done"
    update_project(ranged, None, sure=0.95, overlap_most=9)
    assert following.finish_answered(ranged.pk) == 0
    assert state(first) == "done"  # as a higher overlap opens none again


def test_groups_follow_what_is_found_of_people(ranged, ready, people):
    (group,) = ready()
    acting.submit(people[0], ranged, group, LIKES)
    reliable(ranged, people[0], 0.95)
    services.settle_all(ranged, [people[0].pk])
    assert following.finish_answered(ranged.pk) == 1


def test_a_budget_that_has_ended_asks_for_the_overlap_only(ranged, ready, people):
    first, second, third = ready(3)
    one, two, *_ = people
    for group in (first, second):
        acting.submit(one, ranged, group, LIKES)
    update_project(ranged, None, answer_budget=3)
    assert following.finish_answered(ranged.pk) == 0
    acting.submit(two, ranged, first, LIKES)
    assert following.finish_answered(ranged.pk) == 1 and state(second) == "done"
    ranged.refresh_from_db()
    assert ranged.budget_spent
    acting.submit(one, ranged, third, LIKES)
    assert state(third) == "done"
    update_project(ranged, None, answer_budget=None)
    following.finish_answered(ranged.pk)
    ranged.refresh_from_db()
    assert not ranged.budget_spent


def test_answers_a_group_takes_are_counted(ranged, ready, people):
    assert counts.answers_a_group(ranged) == 2  # the middle, before any is done
    first, second = ready(2)
    for user, group in ((people[0], first), (people[1], first), (people[0], second)):
        acting.submit(user, ranged, group, LIKES)
    assert counts.answers_a_group(ranged) == 2
    update_project(ranged, None, sure=0.5)
    following.finish_answered(ranged.pk)
    assert counts.answers_a_group(ranged) == 1.5
    ranged.overlap_most = None
    assert counts.answers_a_group(ranged) == 1


def test_a_range_that_ends_before_it_begins_is_refused(project):
    with pytest.raises(CampaignError, match="overlap_most: give 3"):
        update_project(project, None, overlap=3, overlap_most=2)
    update_project(project, None, overlap_most=2)
    with pytest.raises(CampaignError, match="overlap_most"):
        update_project(project, None, overlap=3)
