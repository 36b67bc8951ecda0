"""How far an oracle says what people say: by tag, with an interval, and a threshold fitted to what reviewers decided."""

import random

import pytest
from django.utils import timezone

from tests.webapp import acting
from webapp.campaigns.models import Prompt
from webapp.labelling.models import Label
from webapp.quality import services
from webapp.quality.calibration import Known, agreement, threshold
from webapp.quality.models import GoldGroup, GoldKind


def test_the_interval_counts_groups_not_images():
    alone = agreement({n: [n % 4 > 0] for n in range(400)})
    in_eights = agreement({n: [n % 4 > 0] * 8 for n in range(50)})
    assert alone.share == pytest.approx(0.75) and in_eights.images == alone.images == 400
    assert alone.low == pytest.approx(0.705, abs=0.01) and alone.high == pytest.approx(0.79, abs=0.01)
    assert in_eights.high - in_eights.low > 2 * (alone.high - alone.low)
    sure = agreement({n: [True] * 8 for n in range(10)})
    assert sure.share == sure.high == 1 and sure.low == pytest.approx(0.72, abs=0.01)
    assert agreement({0: [True, False]}).groups == 1


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, held = random.Random(1), 0
    for _ in range(300):
        shares = [rng.betavariate(6, 2) for _ in range(60)]
        found = agreement({n: [rng.random() < share for _ in range(8)] for n, share in enumerate(shares)})
        held += found.low <= 0.75 <= found.high
    assert 0.92 < held / 300 < 0.98


def test_the_threshold_parts_what_reviewers_liked_from_the_rest():
    known = [Known(n, 0.6 + 0.3 * liked + 0.001 * n, bool(liked)) for n in range(20) for liked in (0, 1)]
    found = threshold(known)
    assert 0.62 < found.value < 0.9 and found.right == 1 and found.images == 40
    assert threshold(known[:19]) is None and threshold([k for k in known if k.liked]) is None


def test_where_scores_say_nothing_groups_left_out_show_it():
    rng = random.Random(2)
    known = [Known(n // 8, rng.random(), rng.random() < 0.5) for n in range(160)]
    assert 0.35 < threshold(known).right < 0.65
    same = [Known(n, 0.7, n % 2 == 0) for n in range(40)]
    assert threshold(same).value == 0.5


@pytest.fixture
def judged(project, ready, ann, boss):
    """Four groups of two tags that people and the oracle `scenes` judged: it agrees on three images of four, and with the
    reviewer on all that they decided. One more that nobody rated."""
    *groups, unrated = ready(5)
    for n, group in enumerate(groups):
        Prompt.objects.filter(pk=group.prompt_id).update(metadata={"tag": "counting" if n < 2 else "colors"})
        acting.submit(ann, project, group, [1, 1, 0, 0])
        for image, liked, score in zip(group.generations.all(), [1, 0, 0, 0], [0.9, 0.4, 0.2, 0.1], strict=True):
            Label.objects.create(generation=image, oracle="scenes", liked=bool(liked), score=score)
    for image in unrated.generations.all():
        Label.objects.create(generation=image, oracle="scenes", liked=True, score=1)
    return list(project.groups.filter(pk__in=[g.pk for g in groups]).order_by("pk"))


def test_agreement_by_tag_is_measured_and_shown_where_an_oracle_is_chosen(project, judged, boss, client):
    assert services.measure_oracles(project)
    rows = {(q.oracle, q.tag): (q.agreement, q.images, q.groups) for q in project.oracle_qualities.all()}
    assert rows["scenes", ""] == (0.75, 16, 4) and {tag for _o, tag in rows} <= {"", "counting", "colors"}
    assert not services.measure_oracles(project)  # nothing is new
    client.force_login(boss)
    page = client.get("/p/stars/settings/").content.decode()
    assert "scenes: as people on 75% of images" in page and 'id="judges"' in page
    assert "Oracles beside people" in client.get("/p/stars/quality/").content.decode()


def test_a_reviewers_word_counts_before_the_majority(project, judged, boss):
    for group in judged:
        second = group.generations.get(position=1)
        services.overrule(boss, project, {second.pk: False}, "it has no tail")
    services.measure_oracles(project)
    assert project.oracle_qualities.get(tag="").agreement == 1


def test_the_threshold_is_fitted_to_reviewers_gold_and_not_to_the_oracles_own(project, judged, boss):
    answer = {0: True, 1: True, 2: False, 3: False}
    for group in judged:
        services.make_gold(group, GoldKind.ORACLE, answer)
    services.measure_oracles(project)
    assert project.oracle_qualities.get(tag="").threshold is None
    for group in judged:
        services.make_gold(group, GoldKind.REVIEW, answer, by=boss)
    assert project.gold_groups.filter(kind=GoldKind.REVIEW).count() == 4
    GoldGroup.objects.update(created_at=timezone.now())
    assert services.measure_oracles(project)
    assert project.oracle_qualities.get(tag="").known == 0  # 16 images are too few
