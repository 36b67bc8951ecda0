"""Settings that change take with them what was derived of the old ones."""

import pytest

from tests.webapp import acting
from webapp.campaigns.services import CampaignError, update_project
from webapp.labelling import following, scoring
from webapp.labelling.errors import LabellingError
from webapp.labelling.models import Label, LabelEvent, Scoring
from webapp.quality import services as quality
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


SCORES = [0.9, 0.75, 0.6, 0.1]


@pytest.fixture
def calibrated(project, ready, boss, settings):
    """Six groups that the oracle likes as it has them, from .5 on, and a reviewer from .7 on; one that it alone judged."""
    settings.LIKESTEP_ORACLES = {"demo": "demo", "other": "demo"}
    change(project, oracle="demo", label_source="both")
    *known, alone = groups = ready(7)
    for group in groups:
        verdicts = [{"score": score, "liked": score >= 0.5, "reason": "so"} for score in SCORES]
        scoring.record_oracle_labels(group.pk, "demo", verdicts)
    for group in known:
        acting.submit(boss, project, group, [1, 1, 0, 0])
        group.refresh_from_db()
        quality.make_gold(group, "review", {0: True, 1: True, 2: False, 3: False}, by=boss)
    quality.measure_oracles(project)
    return alone


def liked(group):
    rows = Label.objects.filter(generation__group=group, annotator=None).order_by("generation__position")
    return list(rows.values_list("liked", flat=True))


def test_the_fitted_threshold_is_offered_used_and_followed(project, calibrated, boss, client, monkeypatch):
    sent = []
    monkeypatch.setattr("webapp.labelling.following.enqueue", lambda kind, row: sent.append(kind))
    client.force_login(boss)
    page = client.get("/p/stars/settings/").content.decode()
    assert "Use the fitted threshold, 0.68" in page and "says itself what it likes" in page
    page = client.post("/p/stars/oracle-threshold/", follow=True).content.decode()
    assert "gives a score of 0.68 or more is liked" in page and "Use the fitted threshold" not in page
    project.refresh_from_db()
    assert project.oracle_thresholds == {"demo": 0.675} and sent == ["measure_quality"]
    assert project.audit_entries.first().action == "settings changed"
    assert liked(calibrated) == [True, True, True, False]  # until a worker comes by
    rewards = settle(calibrated).rewards
    assert following.follow_threshold(project) == 7  # one of each group
    assert liked(calibrated) == [True, True, False, False] and following.follow_threshold(project) == 0
    assert settle(calibrated).rewards == rewards == SCORES
    event = LabelEvent.objects.order_by("pk").last()
    assert (event.oracle, event.liked, event.score) == ("demo", False, 0.6)
    form = client.get("/p/stars/settings/").context["form"]
    assert "oracle_thresholds" not in form.fields  # saving the settings leaves it
    assert project.oracle_qualities.get(tag="").agreement == 0.75
    quality.measure_oracles(project, again=True)
    assert project.oracle_qualities.get(tag="").agreement == 1


def test_what_is_judged_later_follows_the_threshold_of_its_own_oracle(project, calibrated, boss, ready):
    following.use_threshold(project, boss)
    project.refresh_from_db()
    (group,) = ready()
    verdicts = [{"score": 0.6, "liked": True, "reason": ""}] * 4
    for oracle, said in (("demo", False), ("other", True)):
        scoring.record_oracle_labels(group.pk, oracle, verdicts)
        assert set(Label.objects.filter(generation__group=group, oracle=oracle).values_list("liked", flat=True)) == {
            said
        }
    change(project, oracle="other")
    with pytest.raises(LabellingError, match="no threshold is fitted"):
        following.use_threshold(project, boss)
    assert following.drop_threshold(project, boss) == 0


def test_the_oracles_own_word_comes_back_when_it_is_asked_again(project, calibrated, boss, client):
    following.use_threshold(project, boss)
    project.refresh_from_db()
    following.follow_threshold(project)
    client.force_login(boss)
    page = client.post("/p/stars/oracle-threshold/", {"drop": "1"}, follow=True).content.decode()
    assert "judges 7 groups once more" in page and "says itself what it likes" in page
    project.refresh_from_db()
    assert project.oracle_thresholds == {} and len(scoring.scorings_due()) == 7
    verdicts = [{"score": score, "liked": score >= 0.5, "reason": "so"} for score in SCORES]
    scoring.record_oracle_labels(calibrated.pk, "demo", verdicts)
    assert liked(calibrated) == [True, True, True, False]


def test_flagged_groups_follow_and_stay_out(project, calibrated, boss):
    following.use_threshold(project, boss)
    project.refresh_from_db()
    acting.flag_group(boss, project, calibrated.pk, kind="broken", position=None, idempotency_key="f")
    following.follow_threshold(project)
    last = LabelEvent.objects.filter(generation__group=calibrated).order_by("pk").last()
    assert (last.change, last.liked) == ("left_out", None)


@pytest.mark.parametrize("wrong", [[0.5], {"demo": 2}, {"demo": "0.5"}, {"demo": True}, {"demo": float("nan")}])
def test_thresholds_are_shares(project, wrong):
    with pytest.raises(CampaignError, match="oracle_thresholds: "):
        change(project, oracle_thresholds=wrong)
