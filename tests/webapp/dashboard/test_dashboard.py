"""The dashboard: pace, who is stuck, what keeps work from moving, and lines over time that stay cheap."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from tests.webapp import acting
from tests.webapp.acting import submit
from webapp.dashboard import queries
from webapp.labelling import decisions, generation, leases
from webapp.labelling.models import Group, GroupDecision, Label, Lease
from webapp.lib import options
from webapp.quality import counts
from webapp.quality import services as quality
from webapp.quality.counts import like_rates
from webapp.quality.models import Consensus, ProjectQuality, QuarterCount
from webapp.rounds.forecasts import groups_missing
from webapp.rounds.models import TrainingRound


def shift(group, moment):
    """As if the group had been labelled then."""
    GroupDecision.objects.filter(group=group).update(created_at=moment)
    Label.objects.filter(generation__group=group).update(created_at=moment)
    Consensus.objects.filter(group=group).update(labelled_at=moment)


@pytest.fixture
def rated(project, ready, ann):
    """rated(likes, moment): a group that ann rated then."""

    def rate(likes, moment=None):
        (group,) = ready()
        submit(ann, project, group, likes)
        if moment is not None:
            shift(group, moment)
        return group

    return rate


def test_quarters_of_an_hour_are_counted_and_only_new_ones_again(project, rated, ann):
    noon = datetime(2026, 3, 10, 12, tzinfo=UTC)
    rated([1, 0, 0, 0], noon + timedelta(minutes=1))
    rated([1, 1, 1, 1], noon + timedelta(minutes=14))
    rated([0, 0, 1, 1], noon + timedelta(days=3))
    assert counts.count_quarters(project) == 2
    rows = QuarterCount.objects.order_by("start").values_list("start", "groups", "signal", "labels", "likes")
    assert list(rows) == [(noon, 2, 1, 8, 5), (noon + timedelta(days=3), 1, 1, 4, 2)]
    QuarterCount.objects.filter(start=noon).update(labels=99)  # an old one is not counted again
    rated([1, 1, 0, 0], noon + timedelta(days=3, minutes=10))
    last = rated([1, 1, 0, 0], noon + timedelta(days=4))
    counts.count_quarters(project)
    assert list(QuarterCount.objects.order_by("start").values_list("labels", flat=True)) == [99, 8, 4]
    GroupDecision.objects.filter(group=last).update(created_at=timezone.now())  # else it is too old to undo
    decisions.undo(ann, project, str(GroupDecision.objects.get(group=last).idempotency_key))
    counts.count_quarters(project)
    assert list(QuarterCount.objects.order_by("start").values_list("labels", flat=True)) == [99, 8]


def test_a_day_is_the_readers_and_flagged_groups_are_not_in_it(client, boss, project, rated):
    today = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    evening = today - timedelta(days=4, hours=4)  # 20:00 UTC, the next day in Kathmandu (UTC+5:45)
    rated([1, 0, 0, 0], evening)
    rated([1, 1, 1, 1], evening + timedelta(hours=6))
    counts.count_quarters(project)
    client.force_login(boss)

    def days(zone):
        client.cookies["time_zone"] = zone
        return [
            (p["at"], p["groups"], p["labels"], p["like_rate"], p["signal_rate"])
            for p in client.get("/p/stars/series/").json()["points"]
        ]

    noon = today - timedelta(days=4, hours=12)
    one, other = noon.isoformat(), (noon + timedelta(days=1)).isoformat()
    assert days("UTC") == [(one, 1, 4, 0.25, 1.0), (other, 1, 4, 1.0, 0.0)]
    there = (noon + timedelta(days=1) - timedelta(hours=5, minutes=45)).isoformat()
    assert days("Asia/Kathmandu") == [(there, 2, 8, 0.625, 0.5)]
    flagged = Group.objects.get(consensus__signal=False)
    acting.flag_group(boss, project, flagged.pk, kind="broken", position=None, idempotency_key="f")
    assert days("Asia/Kathmandu") == [(there, 2, 8, 0.625, 0.5)]  # until a reviewer has looked
    decisions.resolve_flags(boss, project, flagged.pk, restore=False)
    assert days("Asia/Kathmandu") == [(there, 1, 4, 0.25, 1.0)]


def test_lines_take_four_queries_however_many_rows_there_are(project, django_assert_num_queries):
    noon = timezone.now().replace(hour=12, minute=0, second=0, microsecond=0)
    QuarterCount.objects.bulk_create(
        QuarterCount(
            project=project, start=noon - timedelta(days=n, minutes=15 * m), groups=5, signal=n % 6, labels=20, likes=10
        )
        for n in range(1, 901)
        for m in range(2)
    )
    QuarterCount.objects.create(project=project, start=noon)  # a day without labels
    ProjectQuality.objects.create(project=project, alpha=0.6, labels=1, shared=1, people=2)
    with django_assert_num_queries(4):
        points = queries.series(project)
    lines = [p for p in points if "labels" in p]
    assert len(lines) == 901
    assert [p["at"] for p in points] == sorted(p["at"] for p in points)
    assert lines[-1]["like_rate"] is None
    assert (lines[-2]["like_rate"], lines[-2]["labels"], lines[-2]["groups"]) == (0.5, 40, 10)
    assert [p["alpha"] for p in points if "alpha" in p] == [0.6]


def test_pace_and_the_next_round(project, rated):
    project.auto_start_after = 7
    project.save()
    now = timezone.now()
    for hours in (0, 1, 2):
        rated([1, 0, 0, 0], now - timedelta(hours=hours, minutes=1))
    rated([1, 1, 1, 1], now - timedelta(hours=30))
    found = queries.pace(project, groups_missing(project))
    assert (found["hour"], found["day"], found["signal_day"]) == (1, 3, 3)
    assert found["hours_to_round"] == pytest.approx(4 / 1.5, rel=0.05)
    project.auto_start_after = 0
    assert queries.pace(project, groups_missing(project))["hours_to_round"] is None


def test_a_person_with_work_on_screen_and_no_answer_is_stuck(project, ready, ann, person, rated):
    rated([1, 0, 0, 0])
    bob = person("bob")
    person("idle")
    ready(2)
    leases.lease_groups(ann, project)
    leases.lease_groups(bob, project)
    assert {p.name: p.stuck for p in queries.people(project)} == {"ann": False, "bob": False}
    Lease.objects.filter(user=bob).update(expires_at=timezone.now() + options.LEASE - timedelta(minutes=6))
    rows = queries.people(project)
    assert [(p.name, p.stuck, p.held, p.today) for p in rows] == [("bob", True, 1, 0), ("ann", False, 1, 1)]


def test_what_keeps_work_from_moving_is_said(project, ready, ann, rated):
    assert queries.warnings(project) == []
    project.overlap = 2
    project.save()
    (group,) = ready()
    submit(ann, project, group, [1, 0, 0, 0])
    shift(group, timezone.now() - timedelta(days=2))
    generation.top_up(project.pk)
    Group.objects.filter(state="queued").update(created_at=timezone.now() - timedelta(minutes=10))
    TrainingRound.objects.create(
        project=project, number=1, base_version=project.active_version, idempotency_key="k", state="queued"
    )
    TrainingRound.objects.update(created_at=timezone.now() - timedelta(hours=3))
    found = " ".join(queries.warnings(project))
    for part in (
        "asks for 2 people",
        "waited 10 minutes to be generated",
        "Round 1 has waited 3 hours",
        "1 groups have",
    ):
        assert part in found
    project.prompts.update(split="test")
    assert "no prompt for training" in " ".join(queries.warnings(project))


def test_without_redis_the_page_says_so(client, boss, project, settings):
    client.force_login(boss)
    assert "Tasks that wait: generate" in client.get("/p/stars/").content.decode()
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert "Redis does not answer" in client.get("/p/stars/").content.decode()


def test_the_charts_ask_for_their_points(client, boss, rated, project):
    rated([1, 0, 0, 0])
    quality.measure_project(project)
    client.force_login(boss)
    page = client.get("/p/stars/").content.decode()
    assert 'data-url="/p/stars/series/"' in page
    (point,) = client.get("/p/stars/series/").json()["points"]
    assert (point["labels"], point["like_rate"], point["signal_rate"]) == (4, 0.25, 1)


def test_like_rates_are_the_workers_count_and_what_came_since(project, rated, ann):
    assert like_rates(project) == []
    rated([1, 1, 0, 0])
    assert like_rates(project) == [{"version": 1, "labels": 4, "rate": 0.5}]
    counts.count_versions(project)
    group = rated([1, 1, 1, 1])
    assert like_rates(project) == [{"version": 1, "labels": 8, "rate": 0.75}]
    counts.count_versions(project)
    assert like_rates(project) == [{"version": 1, "labels": 8, "rate": 0.75}]
    decisions.undo(ann, project)
    disliked = dict.fromkeys(range(4), False)
    acting.submit_group(ann, project, group.pk, disliked, seconds=4, idempotency_key="again")
    counts.count_versions(project)
    assert like_rates(project) == [{"version": 1, "labels": 8, "rate": 0.25}]


def test_flagged_groups_are_not_in_the_like_rates(project, rated, ann, person):
    rated([1, 1, 1, 1])
    bad = rated([0, 0, 0, 0])
    counts.count_versions(project)
    acting.flag_group(person("bob"), project, bad.pk, kind="broken", position=None, idempotency_key="f")
    assert like_rates(project) == [{"version": 1, "labels": 8, "rate": 0.5}]  # until a reviewer has looked
    reviewer = person("rev", "reviewer")
    decisions.resolve_flags(reviewer, project, bad.pk, restore=False)
    assert like_rates(project) == [{"version": 1, "labels": 4, "rate": 1.0}]


def test_who_left_for_three_hours_does_not_move_the_forecast(project, ready, rated):
    project.overlap = 1
    project.save()
    for seconds in (30, 36, 10_802):
        GroupDecision.objects.filter(group=rated([1, 0, 0, 0])).update(seconds=seconds)
    ready(5)
    assert queries.forecast(project, None)[0].work == pytest.approx(5 * 36 / 3600)


def test_the_forecast_is_in_hours_and_in_money_once_prices_are_set(client, boss, project, ready, rated, ann):
    assert queries.forecast(project, groups_missing(project)) == []
    project.overlap, project.auto_start_after = 1, 10
    project.save()
    for likes in ([1, 0, 0, 0], [1, 1, 1, 1]):
        rated(likes)
    GroupDecision.objects.filter(user=ann).update(seconds=36)  # a hundredth of an hour
    counts.count_quarters(project)
    ready(5)
    waits, following = queries.forecast(project, groups_missing(project))
    assert (waits.work, waits.machine, waits.cost) == (pytest.approx(0.05), 0, None)
    # Nine groups with signal are missing, and one in two has signal. No round has shown how long one takes.
    assert (following.work, following.machine, following.cost) == (pytest.approx(0.18), None, None)
    TrainingRound.objects.create(
        project=project, number=1, base_version=project.active_version, idempotency_key="k", state="done",
        finished_at=timezone.now() + timedelta(hours=2),
    )  # fmt: skip
    project.work_hour_cost, project.machine_hour_cost = 20, 3
    project.save()
    waits, following = queries.forecast(project, groups_missing(project))
    assert waits.cost == pytest.approx(1.0)
    # The labels of before the round no longer count towards the next one: ten are missing.
    assert following.machine == pytest.approx(2, abs=0.01)
    assert following.cost == pytest.approx(20 * 0.2 + 3 * 2, abs=0.05)
    client.force_login(boss)
    assert "10.00" in client.get("/p/stars/").content.decode()
