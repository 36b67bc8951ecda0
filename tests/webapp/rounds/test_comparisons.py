"""Blind tests: the person cannot know, a pair is on one screen, a vote counts once, and the test ends by itself."""

import json
import random
import threading
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from tests.webapp.acting import make_pairs
from webapp.accounts.models import User
from webapp.campaigns.models import Membership
from webapp.campaigns.services import create_project
from webapp.lib import options
from webapp.rounds import comparisons
from webapp.rounds import pairs as blind
from webapp.rounds.lineage import draw
from webapp.rounds.models import ModelVersion, Pair, TrainingRound
from webapp.rounds.queries import scores


@pytest.fixture
def versions(project):
    return [
        project.active_version,
        ModelVersion.objects.create(project=project, number=2, parent=project.active_version, path="versions/x"),
    ]


@pytest.fixture
def open_test(project, versions, boss):
    """open_test(): a comparison of 1 and 2 with its first pairs ready."""

    def start(**values):
        made = comparisons.start(project, [1, 2], boss, **values)
        make_pairs(made)
        return made

    return start


def run(comparison, user, prefers_b):
    """Vote until there is nothing to vote on."""
    while pairs := comparisons.lease_pairs(user, comparison, 1):
        (pair,) = pairs
        b_wins = prefers_b(pair)
        order = [[0, 1]] if b_wins is None else [[pair.sides.index("b" if b_wins else "a")]]
        comparisons.vote(user, comparison, pair.pk, order, seconds=1)
        comparison.refresh_from_db()
        make_pairs(comparison)


def test_it_runs_to_a_verdict(open_test, ann):
    comparison, rng = open_test(), random.Random(1)
    run(comparison, ann, lambda pair: rng.random() < 0.8)
    assert (comparison.state, comparison.verdict) == ("decided", "b")
    assert comparison.wins_b + comparison.wins_a < 60
    done = comparison.pairs.filter(state="done")
    assert done.count() == comparison.wins_a + comparison.wins_b
    assert Counter(done.values_list("outcome", flat=True))["b>a"] == comparison.wins_b
    assert 0.2 < done.filter(a_is_left=True).count() / done.count() < 0.8
    assert comparisons.lease_pairs(ann, comparison) == []


def test_equal_versions_end_when_the_votes_do(open_test, ann):
    comparison, rng = open_test(most_votes=20), random.Random(3)
    run(comparison, ann, lambda pair: None if rng.random() < 0.2 else pair.pk % 2 == 0)
    assert (comparison.state, comparison.verdict) == ("stopped", "")
    assert comparison.wins_a + comparison.wins_b + comparison.ties == 20
    assert comparison.ties > 0


def test_the_same_vote_again_counts_once_and_another_is_refused(open_test, ann, person):
    comparison = open_test()
    (pair,) = comparisons.lease_pairs(ann, comparison, 1)
    for _ in range(2):
        comparisons.vote(ann, comparison, pair.pk, [[0]])
    comparison.refresh_from_db()
    assert comparison.wins_a + comparison.wins_b == 1
    with pytest.raises(comparisons.ComparisonError, match="somebody decided"):
        comparisons.vote(ann, comparison, pair.pk, [[1]])
    with pytest.raises(comparisons.ComparisonError, match="not given to you"):
        comparisons.vote(person("bob"), comparison, comparisons.lease_pairs(ann, comparison, 1)[0].pk, [[0]])
    for order in ("a", None, [], [[]], [[0], [0]], [[0, 2]], [0], [[-1]], [["0"]], {"0": 1}, [[True]]):
        with pytest.raises(comparisons.ComparisonError, match="order: send lists of places from 0 to 1"):
            comparisons.vote(ann, comparison, pair.pk, order)


def test_an_abandoned_pair_goes_to_somebody_else(open_test, ann, person):
    comparison = open_test()
    held = {p.pk for p in comparisons.lease_pairs(ann, comparison, 8)}
    bob = person("bob")
    assert comparisons.lease_pairs(bob, comparison, 8) == []
    Pair.objects.update(leased_until=timezone.now() - timedelta(seconds=1))
    assert {p.pk for p in comparisons.lease_pairs(bob, comparison, 8)} == held


def test_nothing_that_the_page_gets_tells_the_version(client, open_test, ann):
    comparison = open_test()
    client.force_login(ann)
    page = client.get("/p/stars/compare/").content.decode()
    assert "version" not in page.lower().replace("conversion", "")
    answer = client.get("/p/stars/comparisons/1/next/").json()
    pair = answer["pairs"][0]
    assert set(pair) == {"pair", "prompt", "images", "size"}
    row = Pair.objects.get(pk=pair["pair"])
    for letter, address in zip(row.sides, pair["images"], strict=True):
        image = client.get(address)
        assert image.content == b"RIFF version " + letter.encode()
        assert "webp" not in image.get("Content-Disposition", "")
    body = json.dumps({"pair": pair["pair"], "order": [[0]], "seconds": 2})
    assert client.post("/p/stars/comparisons/1/vote/", body, "application/json").json() == {"saved": pair["pair"]}
    assert client.post("/p/stars/comparisons/1/vote/", "[]", "application/json").status_code == 400
    foreign = comparison.pairs.exclude(leased_to=ann).first()
    assert client.get(f"/p/stars/pairs/{foreign.pk}/0.webp").status_code == 404


def test_a_lost_worker_is_replaced_and_a_poison_pair_stops(open_test, project, versions, boss):
    comparison = comparisons.start(project, [1, 2], boss)
    old = blind.claim_pairs(comparison.pk)
    assert blind.claim_pairs(comparison.pk) == []
    Pair.objects.update(heartbeat_at=timezone.now() - timedelta(hours=1))
    assert blind.waiting() == [comparison.pk]
    new = []
    while pairs := blind.claim_pairs(comparison.pk):
        new += pairs
    assert len(new) == len(old)
    assert blind.complete_pairs(old) == 0
    assert blind.complete_pairs(new[:-1]) == len(new) - 1
    blind.fail_pairs(new[-1:], "no such folder")
    while pairs := blind.claim_pairs(comparison.pk):
        blind.fail_pairs(pairs, "no such folder")
    assert Pair.objects.get(state="failed").error == "no such folder"


@pytest.mark.parametrize("how", ["killed", "failed"])
def test_a_pair_that_is_its_workers_end_takes_no_neighbour_with_it(project, versions, boss, how):
    comparison = comparisons.start(project, [1, 2], boss)
    poison = comparison.pairs.order_by("pk")[3]
    while pairs := blind.claim_pairs(comparison.pk):
        if poison not in pairs:
            blind.complete_pairs(pairs)
        elif how == "failed":
            blind.fail_pairs(pairs, "a prompt of 10,000 words")
        else:
            Pair.objects.filter(pk__in=[p.pk for p in pairs]).update(heartbeat_at=timezone.now() - timedelta(hours=1))
    poison.refresh_from_db()
    assert (poison.state, comparison.pairs.filter(state="ready").count()) == ("failed", blind.BATCH - 1)
    lost = f"the worker was lost {options.LOST_WORKERS} times over it; see its log"
    assert poison.error == {"failed": "a prompt of 10,000 words", "killed": lost}[how]


@pytest.mark.django_db(transaction=True)
def test_many_people_at_once_never_share_a_pair(tmp_path):
    prompts = [{"prompt": "a star"}, {"prompt": "a moon"}]
    project = create_project("race", "Race", model_dir="x", student_dir="x", prompts=prompts)
    ModelVersion.objects.create(project=project, number=2, path="x")
    comparison = comparisons.start(project, [1, 2], None, most_votes=100)
    make_pairs(comparison)
    people = [User.objects.create_user(f"p{i}") for i in range(8)]
    Membership.objects.bulk_create(Membership(user=u, project=project, role="annotator") for u in people)
    start, given, errors = threading.Barrier(8), [], []

    def work(user):
        try:
            start.wait()
            for _ in range(3):
                for pair in comparisons.lease_pairs(user, comparison, 1):
                    given.append(pair.pk)
                    comparisons.vote(user, comparison, pair.pk, [[0, 1]])
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(u,)) for u in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(given) == len(set(given)) >= 8
    comparison.refresh_from_db()
    assert comparison.ties == len(given)


@pytest.mark.parametrize(
    ("numbers", "values", "message"),
    [
        ([1, 1], {}, "choose different"),
        ([1], {}, "versions: send a whole number from 2 to 12"),
        ([1, 9], {}, "no version 9"),
        ([1, 2], {"most_votes": 1}, "from 10 to 10,000"),
        ([1, 2], {"shown": 3}, "shown: the test has only 2 versions"),
        ([1, 2], {"shown": 7}, "shown: send a whole number from 2 to 6"),
    ],
)
def test_what_cannot_be_compared_is_refused(project, versions, boss, numbers, values, message):
    with pytest.raises(comparisons.ComparisonError, match=message):
        comparisons.start(project, numbers, boss, **values)


def test_pages_show_the_standing_and_the_end(client, open_test, boss, ann):
    comparison = open_test()
    client.force_login(boss)
    assert "Not yet decided" in client.get("/p/stars/comparisons/1/").content.decode()
    run(comparison, ann, lambda pair: True)
    page = client.get("/p/stars/comparisons/1/").content.decode()
    assert "Version 2 is better" in page and "Publish version 2" in page
    assert client.post("/p/stars/comparisons/", {"versions": ["1", "x"], "most_votes": "5"}).url == "/p/stars/versions/"
    client.post("/p/stars/comparisons/", {"versions": ["2", "1"], "most_votes": "50"})
    client.post("/p/stars/comparisons/2/stop/")
    assert "Stopped without a verdict" in client.get("/p/stars/comparisons/2/").content.decode()


def test_lineage_puts_every_version_in_a_place_of_its_own():
    rows = [(1, None, "published"), (2, 1, "kept out"), (3, 1, "published"), (4, 3, "draft"), (5, 2, "draft")]
    drawing = draw(rows, active=3)
    assert len({(n.x, n.y) for n in drawing.nodes}) == 5 and len(drawing.lines) == 4
    at = {n.number: n for n in drawing.nodes}
    assert at[1].y == at[3].y == at[4].y  # the newest child goes on in the row
    assert at[2].y == at[5].y != at[1].y
    assert [n.number for n in drawing.nodes if n.active] == [3]
    assert draw([(7, 6, "draft")], None).nodes[0].x == draw([], None).width // 2  # a parent that is not shown
    assert len(draw([(n, n - 1 or None, "published") for n in range(1, 1001)], 1000).nodes) == 1000


def test_scores_have_intervals_and_the_first_version_its_childrens_start(project, versions, boss):
    TrainingRound.objects.create(
        project=project,
        number=1,
        base_version=versions[0],
        result_version=versions[1],
        idempotency_key="k",
        state="done",
        settings={"validation_images": 96},
        scores_before={"geneval": 0.25},
    )
    versions[1].scores = {"geneval": 0.5}
    versions[1].save()
    first, second = scores(project)
    assert first["scores"]["geneval"]["value"] == 0.25
    assert second["scores"]["geneval"]["low"] == pytest.approx(0.402, abs=0.002)
    assert second["scores"]["geneval"]["high"] == pytest.approx(0.598, abs=0.002)


def test_an_old_version_is_published_again(client, boss, project, versions):
    client.force_login(boss)
    client.post(f"/p/stars/versions/{versions[1].pk}/decide/", {"decision": "publish"})
    assert "Roll back to 1" in client.get("/p/stars/versions/").content.decode()
    client.post(f"/p/stars/versions/{versions[0].pk}/decide/", {"decision": "publish"})
    project.refresh_from_db()
    assert project.active_version == versions[0]
