"""Blind tests of more than two versions: asked where it tells most, ranked, and ended when the order is sure."""

import random
from itertools import combinations

import pytest

from tests.webapp.acting import make_pairs
from webapp.api.services import create_token
from webapp.rounds import comparisons, standings
from webapp.rounds import pairs as blind
from webapp.rounds.models import ModelVersion, Pair


@pytest.fixture
def versions(project):
    """Versions 1 to 4."""
    more = [ModelVersion(project=project, number=n, parent=project.active_version, path="x") for n in (2, 3, 4)]
    return [project.active_version, *ModelVersion.objects.bulk_create(more)]


@pytest.fixture
def open_test(project, versions, boss):
    """open_test([1, 2, 3]): a test with its first images ready."""

    def start(numbers=(1, 2, 3), **values):
        made = comparisons.start(project, list(numbers), boss, **values)
        make_pairs(made)
        return made

    return start


def run(comparison, user, order):
    """Answer by `order(letters from left to right)` until there is nothing to answer."""
    while pairs := comparisons.lease_pairs(user, comparison, 1):
        (pair,) = pairs
        comparisons.vote(user, comparison, pair.pk, order(pair.sides), seconds=1)
        comparison.refresh_from_db()
        make_pairs(comparison)


def by_letter(rng, sure=0.95):
    """The later letter is better, mostly."""

    def order(sides):
        found = sorted(range(len(sides)), key=lambda at: sides[at], reverse=rng.random() < sure)
        return [[at] for at in found]

    return order


def test_three_versions_are_ranked_and_it_ends_by_itself(open_test, ann):
    comparison = open_test(most_votes=300)
    run(comparison, ann, by_letter(random.Random(1)))
    assert (comparison.state, comparison.verdict, comparison.winner.number) == ("decided", "c", 3)
    assert comparison.votes == comparison.orders < 150
    table = standings.table(comparison)
    assert [row.version.number for row in table.rows] == [3, 2, 1]
    assert table.open == 0 and [row.next and row.next.verdict for row in table.rows] == ["better", "better", None]
    top = table.rows[0]
    assert top.low < top.score < top.high and abs(sum(row.score for row in table.rows)) < 1e-6
    assert top.cells[0] is None and top.cells[1].rate > 0.8 and top.cells[1].of + top.cells[2].of == top.answers
    shown = comparison.pairs.filter(state="done")
    assert set(shown.values_list("letters", flat=True)) <= {"ab", "ac", "bc"}
    assert len(set(shown.values_list("layout", flat=True))) > 3  # either side


def test_people_put_more_images_in_order(open_test, ann):
    comparison = open_test([1, 2, 3, 4], shown=3, most_votes=200)
    assert {len(p.sides) for p in comparison.pairs.all()} == {3}
    run(comparison, ann, by_letter(random.Random(2)))
    assert (comparison.state, comparison.winner.number) == ("decided", 4)
    assert [row.version.number for row in standings.table(comparison).rows] == [4, 3, 2, 1]


def test_all_versions_at_once_may_be_left_half_in_order(open_test, ann):
    comparison = open_test(shown=3, most_votes=10)
    (pair,) = comparisons.lease_pairs(ann, comparison, 1)
    best = pair.sides.index("c")
    comparisons.vote(ann, comparison, pair.pk, [[best]])
    comparisons.vote(ann, comparison, pair.pk, [[best]])  # sent twice
    pair.refresh_from_db()
    assert pair.outcome == "c>a,b"
    (pair,) = comparisons.lease_pairs(ann, comparison, 1)
    comparisons.vote(ann, comparison, pair.pk, [[0, 1, 2]])
    comparison.refresh_from_db()
    first, *_ = standings.table(comparison).rows
    assert (first.version.number, first.answers) == (3, 2)
    assert [(c.won, c.of) for c in first.cells if c] == [(1.5, 2.0)] * 2
    run(comparison, ann, lambda sides: [[0, 1, 2]])
    assert (comparison.state, comparison.verdict, comparison.votes) == ("stopped", "", 10)


def test_a_stranger_order_is_refused(open_test, ann):
    comparison = open_test(shown=3)
    (pair,) = comparisons.lease_pairs(ann, comparison, 1)
    for order in ([[3]], [[0], [0]], [], [[0, 1], []]):
        with pytest.raises(comparisons.ComparisonError, match="places from 0 to 2"):
            comparisons.vote(ann, comparison, pair.pk, order)


def test_a_prompt_comes_again_when_each_was_shown_with_these_versions(open_test, ann, person, project):
    comparison = open_test([1, 2], most_votes=20)
    assert len(set(comparison.pairs.values_list("prompt", flat=True))) == blind.AHEAD == project.prompts.count()
    seen = set()
    for _ in range(8):
        (pair,) = comparisons.lease_pairs(ann, comparison, 1)
        assert pair.prompt_id not in seen
        seen.add(pair.prompt_id)
        comparisons.vote(ann, comparison, pair.pk, [[0, 1]])
        make_pairs(comparison)
    (pair,) = comparisons.lease_pairs(ann, comparison, 1)
    assert pair.prompt_id in seen  # none is left that she has not judged
    assert Pair.objects.filter(voter=ann).values("prompt", "seed").distinct().count() == 8


def test_somebody_is_given_what_they_have_not_judged_yet(open_test, ann, person, project):
    comparison, bob = open_test([1, 2], most_votes=40), person("bob")
    hers = comparisons.lease_pairs(ann, comparison, 4)
    for pair in hers:
        comparisons.vote(ann, comparison, pair.pk, [[0]])
        make_pairs(comparison)
    judged = {p.prompt_id for p in hers}
    again = comparisons.lease_pairs(ann, comparison, 4)
    assert {p.prompt_id for p in again}.isdisjoint(judged)
    for pair in comparisons.lease_pairs(bob, comparison, 4):
        comparisons.vote(bob, comparison, pair.pk, [[0]])


def test_the_page_of_more_versions_tells_nothing_of_them(client, open_test, ann):
    open_test([1, 2, 3, 4], shown=4)
    client.force_login(ann)
    page = client.get("/p/stars/compare/").content.decode()
    assert page.count('class="tile-image"') == 4 and "version" not in page.lower().replace("conversion", "")
    pair = client.get("/p/stars/comparisons/1/next/").json()["pairs"][0]
    assert set(pair) == {"pair", "prompt", "images", "size"} and len(pair["images"]) == 4
    row = Pair.objects.get(pk=pair["pair"])
    for letter, address in zip(row.sides, pair["images"], strict=True):
        assert client.get(address).content == f"RIFF version {letter}".encode()
    assert client.get(pair["images"][0].replace("/0.webp", "/4.webp")).status_code == 404


def test_pages_and_the_api_have_the_result(client, open_test, boss, ann):
    client.force_login(boss)
    answer = client.post("/p/stars/comparisons/", {"versions": ["3", "1", "2"], "shown": "2", "most_votes": "60"})
    assert answer.url == "/p/stars/comparisons/1/"
    assert "cannot be told yet" in client.get(answer.url).content.decode()
    comparison = comparisons.Comparison.objects.get()
    make_pairs(comparison)
    run(comparison, ann, by_letter(random.Random(3), sure=1))
    page = client.get(answer.url).content.decode()
    assert "Version 3 is the best" in page and "better, that is sure" in page and "Publish version 3" in page
    assert "1, 2, 3" in client.get("/p/stars/versions/").content.decode()

    _, secret = create_token(boss.memberships.get().project, boss, "all", ["read", "admin"])

    def call(method, path, **values):
        options = {"headers": {"Authorization": f"Bearer {secret}"}, "content_type": "application/json"}
        answer = getattr(client, method)(f"/api/v1/projects/stars/comparisons{path}", values, **options)
        return answer.status_code, answer.json()

    status, body = call("get", "/1")
    assert status == 200 and (body["winner"], body["state"], body["versions"]) == (3, "decided", [1, 2, 3])
    assert [row["version"] for row in body["ranking"]] == [3, 2, 1]
    assert [cell["verdict"] for cell in body["ranking"][0]["against"]] == ["better", "better"]
    status, body = call("get", "")
    assert [row["number"] for row in body["items"]] == [1] and "ranking" not in body["items"][0]
    status, body = call("post", "", versions=[4, 1], shown=3)
    assert status == 400 and "only 2 versions" in body["detail"]
    status, body = call("post", "", versions=[4, 1])
    assert (status, body["versions"], body["votes"]) == (200, [4, 1], 0)
    status, body = call("post", "/2/stop")
    assert (status, body["state"]) == (200, "stopped")


def test_a_ranking_says_whether_a_round_was_worth_it(open_test, versions, ann):
    old, new = versions[0], versions[2]
    assert standings.better(old, new) is None
    comparison = open_test(most_votes=300)
    run(comparison, ann, by_letter(random.Random(4)))
    assert standings.better(old, new) is True and standings.better(new, old) is False
    assert standings.better(old, versions[3]) is None


def test_what_was_voted_on_before_there_were_orders_counts(open_test, ann):
    comparison = open_test([1, 2])
    first, second, third = list(comparison.pairs.all())[:3]
    for pair, choice in ((first, "a"), (second, "b"), (third, "tie")):
        Pair.objects.filter(pk=pair.pk).update(state="done", choice=choice, layout="", letters="", voter=ann)
    assert sorted((str(order), n) for order, n in standings.answers(comparison)) == [("a=b", 1), ("a>b", 1), ("b>a", 1)]
    first.refresh_from_db()
    assert first.sides == ("ab" if first.a_is_left else "ba")
    comparisons.vote(ann, comparison, first.pk, [[first.sides.index("a")]])  # the same again


def test_pairs_ahead_differ(open_test):
    comparison = open_test([1, 2, 3, 4])
    assert {tuple(p.letters) for p in comparison.pairs.all()} == set(combinations("abcd", 2))
