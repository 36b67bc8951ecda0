"""Queries that are compiled once answer as Django's do, with the values of each call and the rows of that moment."""

import pytest
from django.utils import timezone

from tests.webapp import acting
from webapp.campaigns.models import Membership
from webapp.labelling.models import Label, Tally
from webapp.lib.prepared import ask, ask_for, insert
from webapp.quality.models import Consensus


def members(user, slug):
    return Membership.objects.filter(user=user, project__slug=slug).select_related("project")


def test_each_call_has_its_own_values(project, person, django_assert_num_queries):
    ann, bob = person("ann"), person("bob")
    for user in (ann, bob, ann):
        with django_assert_num_queries(1):
            (found,) = ask("members", members, user=user.pk, slug="stars")
            assert (found.user_id, found.project) == (user.pk, project)
    assert ask("members", members, user=ann.pk, slug="moons") == []
    Membership.objects.filter(user=ann).update(role="admin")
    assert ask("members", members, user=ann.pk, slug="stars")[0].role == "admin"  # nothing is kept of the rows


def test_days_moments_and_lists(project, ann, ready):
    group, other = ready(2)
    acting.submit(ann, project, group, [1, 0, 0, 1])
    today = timezone.localdate()
    assert len(ask("tallies", lambda day: Tally.objects.filter(day=day), day=today)) == 1
    now = timezone.now()
    assert len(ask("labels", lambda now: Label.objects.filter(created_at__lt=now), now=now)) == 4
    for groups, n in (([group.pk], 4), ([other.pk], 0), ([other.pk, group.pk], 4)):
        assert len(ask_for("of", lambda ids: Label.objects.filter(generation__group__in=ids), groups)) == n


def test_a_value_that_the_query_does_not_ask_for_is_an_error(project):
    with pytest.raises(ValueError, match="slug"):
        ask("forgotten", lambda user, slug: Membership.objects.filter(user=user), user=1, slug="stars")


def test_rows_are_inserted_with_their_numbers_and_replaced(project, ann, ready):
    (group,) = ready()
    images = list(group.generations.all())
    labels = [Label(generation=image, annotator=ann, liked=True) for image in images]
    insert(labels)
    assert list(Label.objects.order_by("pk").values_list("pk", "generation")) == [
        (v.pk, v.generation_id) for v in labels
    ]
    for people in (1, 2):
        row = Consensus(
            group=group, project=project, rewards=[1], signal=False, people=people, labelled_at=timezone.now()
        )
        insert([row], over="group")
    assert Consensus.objects.get().people == 2
    insert([])
