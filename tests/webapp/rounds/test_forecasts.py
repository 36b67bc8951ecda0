"""When the next round is worth it: forecast at its start, its outcome filled in once, by people, oracles or blind tests."""

import threading

import pytest
from django.db import connection
from django.utils import timezone

from tests.webapp.acting import submit
from webapp.campaigns.models import Project
from webapp.campaigns.services import create_project, update_project
from webapp.dashboard import queries
from webapp.labelling.models import Group
from webapp.quality import counts
from webapp.quality.models import Consensus
from webapp.rounds import forecasts, services
from webapp.rounds.models import Comparison, RoundForecast, TrainingRound
from workers import tasks

LIKED, MIXED, DISLIKED = [1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]
SCORES = {"reward": 0.5}


def liked(version, rewards, count, people=1, state="done"):
    """As if so many groups of the version had been labelled; they have signal."""
    project, now = version.project, timezone.now()
    prompt = project.prompts.first()
    groups = Group.objects.bulk_create(
        Group(project=project, prompt=prompt, version=version, state=state, first_seed=n, size=4) for n in range(count)
    )
    Consensus.objects.bulk_create(
        Consensus(group=g, project=project, rewards=rewards, signal=True, people=people, labelled_at=now)
        for g in groups
    )
    return groups


@pytest.fixture
def ended(project):
    """ended(**scores): a round that is done, and its draft version; the old version has 40 groups, half of it liked."""
    liked(project.active_version, MIXED, 40)

    def make(before=SCORES, after=SCORES):
        training = services.start_round(project, {}, idempotency_key=services.new_key())
        return end(training, before, after)

    return make


def end(training, before=SCORES, after=SCORES):
    token = services.claim_round(training.pk, "w").token
    result = {"sha256": "ab", "scores_before": before, "scores_after": after}
    version = services.finish_round(training.pk, token, result)
    return TrainingRound.objects.get(pk=training.pk), version


def publish(project, version):
    services.publish_version(project, version.pk)
    project.refresh_from_db()


def test_it_works(project, ended):
    assert forecasts.next_round(project) == forecasts.NextRound(needed=200, had=160, more=40, right=0, judged=0)
    training, version = ended()
    assert (training.forecast.needed, training.forecast.had, training.forecast.worth) == (200, 160, None)
    publish(project, version)
    liked(version, LIKED, forecasts.ENOUGH)
    assert forecasts.settle() == 1
    training.forecast.refresh_from_db()
    assert (training.forecast.worth, training.forecast.basis) == (True, "labels")
    assert training.forecast.chance > 0.99
    assert training.forecast.hit is False  # too few by the forecast, and worth it all the same
    assert forecasts.next_round(project) == forecasts.NextRound(needed=160, had=120, more=40, right=0, judged=1)
    assert forecasts.settle() == 0


def test_labels_since_a_round_that_made_nothing_still_count(project, ended):
    training = services.start_round(project, {}, idempotency_key="k")
    assert forecasts.next_round(project).had == 0
    services.cancel_round(training.pk)
    assert forecasts.next_round(project).had == 160
    ended()
    assert forecasts.next_round(project).had == 0


def test_a_worse_version_raises_the_number_and_is_a_miss_when_there_was_enough(project, ended):
    liked(project.active_version, MIXED, 20)
    _training, version = ended()
    publish(project, version)
    liked(version, DISLIKED, forecasts.ENOUGH)
    forecasts.settle()
    forecast = RoundForecast.objects.get()
    assert (forecast.had, forecast.worth, forecast.hit) == (240, False, False)
    assert forecasts.next_round(project).needed == 312


def test_it_waits_for_enough_groups_that_people_labelled(project, ended):
    _training, version = ended()
    assert forecasts.settle() == 0  # nobody has decided on the draft
    publish(project, version)
    liked(version, LIKED, forecasts.ENOUGH - 1)
    liked(version, LIKED, 20, people=0)  # an oracle's
    liked(version, LIKED, 20, state="flagged")
    assert forecasts.settle() == 0
    liked(version, LIKED, 1)
    assert forecasts.settle() == 1


def test_a_version_that_gets_no_more_labels_is_compared_with_what_it_has(project, ended):
    first, version = ended()
    publish(project, version)
    liked(version, LIKED, forecasts.FEWEST)
    assert forecasts.settle() == 0
    publish(project, project.versions.get(number=1))
    assert forecasts.settle() == 1
    first.forecast.refresh_from_db()
    assert (first.forecast.worth, first.forecast.basis) == (True, "labels")
    _second, version = ended()
    publish(project, version)
    liked(version, LIKED, forecasts.FEWEST - 1)
    publish(project, project.versions.get(number=1))
    assert forecasts.settle() == 1
    forecast = RoundForecast.objects.latest("round_id")
    assert (forecast.worth, forecast.hit, forecast.basis) == (None, None, "too few")
    assert forecast.known_at is not None
    assert forecasts.settle() == 0
    assert forecasts.next_round(project).judged == 1


def test_a_version_that_an_admin_keeps_out_was_not_worth_it(project, ended):
    training, version = ended()
    services.keep_old_version(project, version.pk)
    forecasts.settle()
    training.forecast.refresh_from_db()
    assert (training.forecast.worth, training.forecast.hit, training.forecast.basis) == (False, True, "kept out")


@pytest.mark.parametrize(
    ("swapped", "verdict", "worth"), [(False, "b", True), (False, "same", False), (True, "b", False)]
)
def test_a_blind_test_that_ended_decides(project, ended, swapped, verdict, worth):
    training, version = ended()
    pair = [project.active_version, version]
    a, b = reversed(pair) if swapped else pair
    test = Comparison.objects.create(project=project, number=1, version_a=a, version_b=b)
    assert forecasts.settle() == 0
    Comparison.objects.filter(pk=test.pk).update(state="decided", verdict=verdict)
    assert forecasts.settle() == 1
    training.forecast.refresh_from_db()
    assert (training.forecast.worth, training.forecast.basis) == (worth, "comparison")


@pytest.mark.parametrize(("after", "worth"), [(0.62, True), (0.52, False)])
def test_an_oracle_that_labels_decides_by_its_scores(project, ended, after, worth):
    Project.objects.filter(pk=project.pk).update(label_source="oracle", oracle="scenes")
    project.refresh_from_db()
    training, _version = ended(after={"reward": after})
    forecasts.settle()
    training.forecast.refresh_from_db()
    assert (training.forecast.worth, training.forecast.basis) == (worth, "scores")
    assert 0.5 < training.forecast.chance < 0.99


def test_people_are_not_overruled_by_an_oracles_scores(project, ended):
    ended(after={"reward": 0.9})
    assert forecasts.settle() == 0


@pytest.mark.django_db(transaction=True)
def test_two_passes_at_once_fill_a_row_once(tmp_path, monkeypatch):
    project = create_project(
        "stars", "Stars", model_dir=str(tmp_path), student_dir=str(tmp_path), prompts=[{"prompt": "x"}], group_size=4
    )
    liked(project.active_version, MIXED, 40)
    _training, version = end(services.start_round(project, {}, idempotency_key="k"))
    publish(project, version)
    liked(version, LIKED, forecasts.ENOUGH)
    told = []
    monkeypatch.setattr("webapp.lib.events.publish", lambda *args, **values: told.append(args))
    together, counts, errors = threading.Barrier(4), [], []
    look = forecasts.outcome

    def look_together(training):
        found = look(training)
        together.wait(20)  # all have found the row open
        return found

    monkeypatch.setattr(forecasts, "outcome", look_together)

    def work():
        try:
            counts.append(forecasts.settle())
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(counts) == [0, 0, 0, 1]
    assert len(told) == 1
    assert RoundForecast.objects.get().worth is True


def test_a_double_click_logs_one_forecast_and_a_refused_round_none(project, ended):
    for key in ("a", "a"):
        services.start_round(project, {}, idempotency_key=key)
    with pytest.raises(services.RoundError):
        services.start_round(project, {}, idempotency_key="b")
    assert RoundForecast.objects.count() == 1


def test_the_labels_to_give_count_silent_groups_and_everybody_who_is_asked(project, ready, ann):
    for rewards in ([1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0]):
        (group,) = ready()
        submit(ann, project, group, rewards)
    counts.count_quarters(project)
    found = forecasts.next_round(project)
    assert (found.had, found.more) == (8, 390)  # 192 are missing, and half of the groups teach: 384
    project.overlap = 3
    assert forecasts.next_round(project).more == 1200  # 1,152


@pytest.mark.parametrize(("labels", "said"), [(0, 0), (3, 3), (40, 40), (99.5, 100), (101, 110), (1234, 1300)])
def test_a_forecast_has_two_digits(labels, said):
    assert forecasts.rounded(labels) == said


def test_rounds_start_by_the_forecast_where_that_is_wanted(project):
    liked(project.active_version, MIXED, 49)
    assert services.start_due_rounds() == []
    update_project(project, None, auto_start_by_forecast=True)
    assert forecasts.groups_missing(Project.objects.get()) == 1
    assert services.start_due_rounds() == []
    liked(project.active_version, MIXED, 1)
    (training,) = services.start_due_rounds()
    assert (training.forecast.needed, training.forecast.had) == (200, 200)
    assert services.start_due_rounds() == []


def test_a_round_that_failed_is_not_started_again_by_the_forecast(project):
    liked(project.active_version, MIXED, 50)
    update_project(project, None, auto_start_by_forecast=True)
    (training,) = services.start_due_rounds()
    services.fail_round(training.pk, services.claim_round(training.pk, "w").token, "no disk")
    assert services.start_due_rounds() == []
    liked(project.active_version, MIXED, 50)
    (again,) = services.start_due_rounds()
    assert again.forecast.had == 400  # those of the failed one are as new as ever


def test_the_smaller_threshold_of_two_starts_it(project):
    liked(project.active_version, MIXED, 5)
    project.auto_start_after, project.auto_start_by_forecast = 5, False
    assert forecasts.groups_missing(project) == 0
    project.auto_start_after, project.auto_start_by_forecast = 80, True
    assert forecasts.groups_missing(project) == 45
    project.auto_start_after, project.auto_start_by_forecast = 0, False
    assert forecasts.groups_missing(project) is None
    assert queries.pace(project, forecasts.groups_missing(project))["hours_to_round"] is None


def test_housekeeping_fills_rows_in(project, ended, monkeypatch):
    monkeypatch.setattr("webapp.lib.broker.send", lambda kind, row: None)
    _training, version = ended()
    publish(project, version)
    liked(version, LIKED, forecasts.ENOUGH)
    for _ in range(2):
        tasks.housekeeping()
    assert RoundForecast.objects.get().worth is True


def test_pages_say_how_many_labels_are_missing_and_how_it_went(client, boss, project, ended):
    client.force_login(boss)

    def page(path=""):
        return client.get(f"/p/stars/{path}").content.decode()

    assert "About 40 more labels until the next round is worth it." in page()
    assert "of the last" not in page()  # no forecast can be judged yet
    _training, version = ended()
    assert "160 / 200" in page()
    assert "known once enough groups" in page("rounds/1/")
    services.keep_old_version(project, version.pk)
    forecasts.settle()
    assert "right 1 of the last 1 times" in page()
    assert "as forecast" in page()
    assert "an admin kept the version out" in page("rounds/1/")
    liked(project.active_version, MIXED, 80)
    assert "The next round is worth starting." in page()


def test_a_round_from_before_forecasts_has_none(client, boss, project):
    TrainingRound.objects.create(project=project, number=1, base_version=project.active_version, idempotency_key="k")
    client.force_login(boss)
    for path in ("", "rounds/1/"):
        assert client.get(f"/p/stars/{path}").status_code == 200
