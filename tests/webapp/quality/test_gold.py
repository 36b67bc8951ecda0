"""Groups whose answer is known: given out silently at the set rate, never twice to one person."""

import random

import pytest

from tests.webapp import acting
from tests.webapp.acting import submit
from webapp.labelling import decisions, errors, leases, scoring
from webapp.quality import services
from webapp.quality.models import GoldAnswer, GoldGroup

ANSWER = {0: True, 1: False, 2: False, 3: True}


@pytest.fixture
def gold(project, ready, person):
    """gold(n): n gold groups that somebody else rated."""
    maker = person("maker")

    def make(count=1):
        groups = ready(count)
        for group in groups:
            submit(maker, project, group, [1, 0, 0, 1])
            group.refresh_from_db()
            services.make_gold(group, "review", ANSWER)
        return groups

    return make


def test_they_come_at_the_set_rate_and_look_like_any_other(project, gold, ready, ann):
    gold(20)
    ready(40)
    project.gold_rate = 0.3
    project.save()
    rng, given = random.Random(1), []
    for _ in range(40):
        (group,) = leases.lease_groups(ann, project, rng=rng)
        assert leases.lease_groups(ann, project, rng=rng) == [group]  # a reload shows the same
        submit(ann, project, group, [1, 0, 1, 1])
        given.append(group.pk)
    assert len(set(given)) == 40
    acting.an_hour_passes()
    assert services.compare_with_gold() == GoldAnswer.objects.count()
    golden = GoldAnswer.objects.filter(user=ann)
    assert 6 <= golden.count() <= 18
    assert {(a.right, a.total) for a in golden} == {(3, 4)}


def test_no_person_gets_one_again(project, gold, ready, ann, person):
    (group,) = gold()
    ready(5)
    project.gold_rate = 0.5
    project.save()
    always = random.Random(1)
    always.random = lambda: 0.0
    assert leases.lease_groups(ann, project, rng=always) == [group]
    acting.skip_group(ann, project, group.pk, reason="", idempotency_key="s")
    for _ in range(3):
        (other,) = leases.lease_groups(ann, project, rng=always)
        assert other != group
        submit(ann, project, other, [1, 1, 1, 1])
    assert leases.lease_groups(person("bob"), project, rng=always) == [group]


def test_with_nothing_else_to_do_nobody_is_fed_gold(project, gold, ann):
    gold(3)
    project.gold_rate = 0.5
    project.save()
    for _ in range(10):
        assert leases.lease_groups(ann, project) == []


def test_an_answer_is_compared_once_it_can_no_longer_be_undone(project, gold, ann):
    (group,) = gold()
    submit(ann, project, group, [1, 0, 1, 1])
    assert services.compare_with_gold() == 0
    decisions.undo(ann, project)
    group.refresh_from_db()
    assert group.state == "done"
    acting.submit_group(ann, project, group.pk, ANSWER, seconds=1, idempotency_key="again")
    acting.an_hour_passes()
    with pytest.raises(errors.LabellingError, match="undo: the answer is older than 60 minutes"):
        decisions.undo(ann, project)
    assert [services.compare_with_gold() for _ in range(2)] == [1, 0]  # not of those who made it gold
    assert GoldAnswer.objects.get().right == 4


def test_oracle_certain_groups_become_gold_and_obvious_ones_attention_checks(project, ready, ann):
    project.gold_rate = 0.1
    project.save()
    scores = {"certain": (0.95, 0.05, 0.5, 0.92), "obvious": (1, 0, 0, 1), "unsure": (0.6, 0.4, 0.5, 0.7)}
    for group, values in zip(ready(3), scores.values(), strict=True):
        verdicts = [{"score": v, "liked": v > 0.5, "reason": ""} for v in values]
        scoring.record_oracle_labels(group.pk, "scenes", verdicts)
        submit(ann, project, group, [1, 0, 0, 1])
    assert services.find_gold(project) == 2
    kinds = {g.kind: g.answer for g in GoldGroup.objects.all()}
    assert kinds == {
        "oracle": {"0": True, "1": False, "3": True},
        "attention": {"0": True, "1": False, "2": False, "3": True},
    }
    assert services.find_gold(project) == 0


def test_a_group_that_tells_nothing_is_refused(project, ready, gold):
    (group,) = ready()
    with pytest.raises(services.QualityError, match="only a labelled group"):
        services.make_gold(group, "review", ANSWER)
    (done,) = gold()
    with pytest.raises(services.QualityError, match="one to dislike"):
        services.make_gold(done, "review", {0: True, 1: True})
