"""What labels come to: posteriors by hand, ties, signal, and a reviewer's last word."""

import random

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from common.signal import has_signal
from tests.webapp.acting import submit
from webapp.campaigns.models import Role
from webapp.labelling import decisions, leases, scoring
from webapp.labelling.models import Group, Label, LabelEvent
from webapp.quality import services
from webapp.quality.consensus import Reliability, Vote, certainty, posterior, reward
from webapp.quality.counts import groups_with_signal_since
from webapp.quality.models import Consensus, PersonQuality, ProjectQuality
from webapp.quality.signal import GROUP_HAS_SIGNAL, HAS_SIGNAL

GOOD, COIN = Reliability(0.9, 0.8), Reliability(0.5, 0.5)


def test_the_posterior_is_bayes_rule():
    # P(like|good)=.9, P(like|bad)=.2 for one; the other is a coin.
    assert posterior([Vote(True, GOOD), Vote(False, COIN)]) == pytest.approx(0.9 / (0.9 + 0.2))
    assert posterior([Vote(False, GOOD)], prior=0.3) == pytest.approx(0.3 * 0.1 / (0.3 * 0.1 + 0.7 * 0.8))


def test_without_measured_people_it_is_the_share():
    assert posterior([Vote(True), Vote(False), Vote(True), Vote(True)]) == 0.75


def test_certainty_is_the_expected_share_of_right_labels():
    both, split = [Vote(True), Vote(True)], [Vote(True), Vote(False)]
    assert certainty([(None, [Vote(True)]), (None, [Vote(False)])]) == pytest.approx(0.75)  # newcomers
    assert certainty([(None, both), (None, split)]) == pytest.approx((0.9 + 0.5) / 2)
    assert certainty([(None, [Vote(True, GOOD)]), (None, [Vote(True, COIN)])]) == pytest.approx((0.9 / 1.1 + 0.5) / 2)
    assert certainty([(False, split), (None, [])]) == pytest.approx(
        0.75
    )  # a reviewer's word is certain, none says nothing
    assert certainty([(None, [Vote(True)])], prior=0.9) == pytest.approx(0.9 * 0.75 / (0.9 * 0.75 + 0.1 * 0.25))
    assert certainty([]) == 0


def test_the_order_of_votes_changes_no_bit():
    votes = [Vote(bool(i % 2), Reliability(0.55 + i / 30, 0.9 - i / 40)) for i in range(9)]
    values = set()
    for seed in range(20):
        random.Random(seed).shuffle(votes)
        values.add(posterior(votes))
    assert len(values) == 1


def test_people_win_over_oracles_and_reviewers_over_people():
    assert reward(scores=[0.2, 0.4]) == pytest.approx(0.3)
    assert reward(votes=[Vote(True)], scores=[0.0]) == 1
    assert reward(overruled=False, votes=[Vote(True)]) == 0
    assert reward() is None


def test_the_queries_say_what_the_rule_says(project, ready):
    rows = [[0.2, None, 0.9], [0.5, 0.505], [0.5, 0.51], [0.5, 0.5101], [None, 1.0], [None, None], [1, 1], [0, 1]]
    groups = ready(len(rows))
    for group, rewards in zip(groups, rows, strict=True):
        values = {"signal": has_signal(rewards), "people": 1, "labelled_at": timezone.now()}
        Consensus.objects.create(group=group, project=project, rewards=rewards, **values)
    told = [has_signal(rewards) for rewards in rows]
    assert told == [True, False, False, True, False, False, False, True]
    settled = set(Consensus.objects.filter(HAS_SIGNAL).values_list("group", flat=True))
    assert [g.pk in settled for g in groups] == told
    assert set(Group.objects.filter(GROUP_HAS_SIGNAL).values_list("pk", flat=True)) == settled


def test_each_label_settles_its_group(project, ready, ann):
    (group,) = ready()
    submit(ann, project, group, [1, 1, 0, 1])
    found = Consensus.objects.get()
    assert (found.rewards, found.signal, found.people) == ([1, 1, 0, 1], True, 1)
    assert groups_with_signal_since(project, None) == 1
    assert groups_with_signal_since(project, found.labelled_at) == 0
    decisions.undo(ann, project)
    assert Consensus.objects.count() == groups_with_signal_since(project, None) == 0


def test_oracles_whose_scores_differ_give_signal_though_they_like_all(project, ready):
    (group,) = ready()
    verdicts = [{"score": s, "liked": True, "reason": ""} for s in (0.6, 0.7, 0.8, 0.9)]
    scoring.record_oracle_labels(group.pk, "scenes", verdicts)
    assert Consensus.objects.get().rewards == [0.6, 0.7, 0.8, 0.9]
    assert groups_with_signal_since(project, None) == 1


def test_a_reliable_person_outweighs_a_coin(project, ready, ann, person):
    project.overlap = 2
    project.save()
    bob = person("bob")
    (group,) = ready()
    now = group.created_at
    ProjectQuality.objects.create(project=project, prior=0.5, labels=0, shared=0, people=2)
    for user, rate in ((ann, 0.9), (bob, 0.5)):
        PersonQuality.objects.create(
            project=project, user=user, like_accuracy=rate, dislike_accuracy=rate, measured_at=now
        )
    submit(ann, project, group, [1, 0, 1, 0])
    submit(bob, project, group, [0, 1, 1, 0])
    assert Consensus.objects.get().rewards == [0.9, 0.1, 0.9, 0.1]


def test_a_tie_asks_one_person_more_and_only_one(project, ready, ann, person):
    project.overlap, project.tie_break = 2, True
    project.save()
    (group,) = ready()
    bob, cat, dan = person("bob"), person("cat"), person("dan")
    submit(ann, project, group, [1, 0, 1, 0])
    assert leases.lease_groups(bob, project) == [group]
    assert leases.lease_groups(cat, project) == []  # not yet a tie: bob has not answered
    submit(bob, project, group, [1, 1, 1, 0])
    group.refresh_from_db()
    assert group.state == "ready"
    assert leases.lease_groups(cat, project) == [group]
    assert leases.lease_groups(dan, project) == []
    submit(cat, project, group, [1, 1, 1, 0])
    group.refresh_from_db()
    assert group.state == "done"
    assert Consensus.objects.get().rewards == [1, 0.6667, 1, 0]
    decisions.undo(cat, project)
    group.refresh_from_db()
    assert group.state == "ready"


def test_a_reviewer_overrules_with_a_reason_and_history_is_kept(project, ready, ann, person):
    reviewer = person("rev", Role.REVIEWER)
    (group,) = ready()
    submit(ann, project, group, [1, 1, 1, 1])
    first = group.generations.first()
    with pytest.raises(services.QualityError, match="reason"):
        services.overrule(reviewer, project, {first.pk: False}, " ")
    services.overrule(reviewer, project, {first.pk: False}, "six points, not five")
    found = Consensus.objects.get()
    assert (found.rewards, found.signal) == ([0, 1, 1, 1], True)
    assert (
        Label.objects.filter(liked=True).count() == LabelEvent.objects.filter(cause="").count() == 4
    )  # as ann gave them
    services.overrule(reviewer, project, {first.pk: None}, "looked again")
    assert Consensus.objects.get().rewards == [1, 1, 1, 1]
    assert [w.reason for w in first.overrules.all()] == ["looked again", "six points, not five"]
    assert project.audit_entries.filter(action="labels overruled").count() == 2


def test_another_projects_image_cannot_be_overruled(project, ready, ann, person, tmp_path):
    from webapp.campaigns.services import create_project

    (group,) = ready()
    other = create_project("other", "Other", model_dir="x", student_dir="x", prompts=[{"prompt": "x"}])
    with pytest.raises(services.QualityError, match="images"):
        services.overrule(ann, other, {group.generations.first().pk: True}, "mine now")


@pytest.mark.django_db(transaction=True)
def test_labels_from_before_this_table_are_settled_by_the_migration(project, ready, ann):
    first, second = ready(2)
    submit(ann, project, first, [1, 0, 0, 1])
    submit(ann, project, second, [1, 1, 1, 1])
    before = list(Consensus.objects.order_by("pk").values_list("pk", "rewards", "signal", "people", "labelled_at"))
    Consensus.objects.all().delete()
    executor = MigrationExecutor(connection)
    executor.migrate([("quality", "0001_initial")])
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes())
    assert before == list(
        Consensus.objects.order_by("pk").values_list("pk", "rewards", "signal", "people", "labelled_at")
    )
