"""Settings that change take with them what was derived of the old ones."""

import pytest

from tests.webapp import acting
from webapp.campaigns.services import update_project
from webapp.labelling import following, scoring
from webapp.labelling.errors import LabellingError
from webapp.labelling.models import Label, Scoring
from webapp.quality.services import settle

LIKES = [1, 0, 0, 0]


def states(project):
    return list(project.groups.order_by("pk").values_list("state", flat=True))


def change(project, **settings):
    update_project(project, None, **settings)
    project.refresh_from_db()


@pytest.fixture
def rated_twice(project, ready, person):
    """Three groups that ask for three people: two answered the first, one the second, none the third."""
    project.overlap = 3
    project.save()
    groups, one, two = ready(3), person("one"), person("two")
    acting.submit(one, project, groups[0], LIKES)
    acting.submit(two, project, groups[0], LIKES)
    acting.submit(one, project, groups[1], LIKES)
    return groups


def test_a_lower_overlap_finishes_what_has_enough_answers(project, rated_twice):
    assert following.finish_answered(project.pk) == 0
    change(project, overlap=2)
    assert following.finish_answered(project.pk) == 1
    assert states(project) == ["done", "ready", "ready"]
    change(project, overlap=1)
    assert following.finish_answered(project.pk) == 1
    change(project, overlap=5)
    assert following.finish_answered(project.pk) == 0
    assert states(project) == ["done", "done", "ready"]


def test_who_are_evenly_split_wait_for_one_more_while_ties_are_broken(project, ready, person):
    change(project, overlap=3, tie_break=True)
    (group,) = ready()
    for name, likes in (("one", LIKES), ("two", [0, 0, 0, 1])):
        acting.submit(person(name), project, group, likes)
    change(project, overlap=2)
    for _ in range(2):  # found to be a tie, and then known for one
        assert following.finish_answered(project.pk) == 0
    group.refresh_from_db()
    assert group.consensus.tie
    change(project, tie_break=False)
    assert following.finish_answered(project.pk) == 1


def test_a_new_oracle_judges_when_asked_and_then_counts_alone(project, ready, client, boss, settings):
    settings.LIKESTEP_ORACLES = {"old": "demo", "new": "demo"}
    change(project, oracle="old", label_source="oracle")
    (group,) = ready()
    Scoring.objects.all().delete()
    verdict = {"liked": True, "score": 0.9, "reason": ""}
    scoring.record_oracle_labels(group.pk, "old", [verdict] * 4)
    change(project, oracle="new")
    group.refresh_from_db()
    assert settle(group).rewards == [0.9] * 4  # until the new one has spoken
    client.force_login(boss)
    assert "1 group was not judged by the oracle" in client.get("/p/stars/settings/").content.decode()
    page = client.post("/p/stars/ask-oracle/", follow=True).content.decode()
    assert "1 group is with the oracle now" in page and "was not judged" not in page
    assert scoring.scorings_due() == [group.pk]
    scoring.record_oracle_labels(group.pk, "new", [{**verdict, "liked": False, "score": 0.2}] * 4)
    group.refresh_from_db()
    assert group.consensus.rewards == [0.2] * 4
    assert Label.objects.count() == 8 and not Scoring.objects.exists()
    assert following.ask_oracle_again(project, boss) == 0


def test_where_people_alone_label_it_judges_what_they_did(project, ready, ann, boss, settings):
    settings.LIKESTEP_ORACLES = {"new": "demo"}
    with pytest.raises(LabellingError, match="oracle: choose one"):
        following.ask_oracle_again(project, boss)
    rated, _waiting = ready(2)
    acting.submit(ann, project, rated, LIKES)
    change(project, oracle="new")
    assert following.ask_oracle_again(project, boss) == 1
    scoring.record_oracle_labels(rated.pk, "new", [{"liked": True, "score": 1.0, "reason": ""}] * 4)
    rated.refresh_from_db()
    assert rated.consensus.rewards == [1, 0, 0, 0]  # people's word wins


def test_an_oracle_that_labels_alone_finishes_what_it_has_judged(project, ready, settings):
    settings.LIKESTEP_ORACLES = {"old": "demo"}
    change(project, oracle="old", label_source="both")
    ready(2)
    scoring.record_oracle_labels(project.groups.first().pk, "old", [{"liked": True, "score": 1.0, "reason": ""}] * 4)
    assert following.finish_answered(project.pk) == 0
    change(project, label_source="oracle")
    assert following.finish_answered(project.pk) == 1
