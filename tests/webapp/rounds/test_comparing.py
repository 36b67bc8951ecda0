"""The round's page says whether the new version is better, where, and by how much."""

import json
from datetime import timedelta

import pytest

from webapp.lib import paths, storage
from webapp.rounds import queries
from webapp.rounds.comparing import comparison
from webapp.rounds.models import ModelVersion, RoundMetric, TrainingRound
from webapp.rounds.services import check_settings

RIGHT, WRONG = ({"score": float(liked), "liked": liked, "correct": liked} for liked in (True, False))


def change(name, value, error):
    return {"name": name, "before": 0.4, "after": 0.4 + value, "change": value, "error": error, "images": 112}


def values(*changes):
    rows = [
        ("a red star", RIGHT, WRONG),
        ("<b>two</b> hearts", WRONG, RIGHT),
        ("a moon", RIGHT, RIGHT),
        ("x", None, None),
    ]
    pairs = [{"prompt": p, "tag": "colors", "before": b, "after": a} for p, b, a in [*rows, ("last", RIGHT, RIGHT)]]
    return {"columns": 4, "size": [128, 64], "pairs": pairs, "changes": list(changes)}


@pytest.fixture
def training(project):
    version = ModelVersion.objects.create(project=project, number=2, path="x", parent=project.active_version)
    return TrainingRound.objects.create(
        project=project, number=1, base_version=project.active_version, idempotency_key="k", state="done",
        result_version=version, scores_before={"reward": 0.4}, scores_after={"reward": 0.6}, step=4, total=4,
    )  # fmt: skip


@pytest.fixture
def read(client, boss, project):
    client.force_login(boss)
    return lambda: client.get(f"/p/{project.slug}/rounds/1/")


def keep(training, given):
    storage.store().write(
        paths.comparison(training.pk), given if isinstance(given, bytes) else json.dumps(given).encode()
    )


@pytest.mark.parametrize(
    ("value", "error", "verdict", "said"),
    [
        (0.2, 0.05, "better", "<b>Yes:</b>"),
        (-0.2, 0.05, "worse", "<b>No:</b>"),
        (0.05, 0.05, "unsure", "<b>Nobody can tell:</b>"),
    ],
)
def test_the_first_sentence_answers(read, training, value, error, verdict, said):
    keep(training, values(change("reward", value, error)))
    assert comparison(training).main.verdict == verdict
    page = read().content.decode()
    assert said in page and f'class="answer {verdict}"' in page
    assert f"{value - 1.96 * error:.2f} to {value + 1.96 * error:.2f}" in page


def test_each_pair_is_cut_out_of_both_pictures(read, training):
    keep(training, values(change("reward", 0.2, 0.05)))
    seen = comparison(training)
    assert [(p.x, p.y) for p in seen.pairs] == [(0, 0), (130, 0), (260, 0), (390, 0), (0, 66)]
    assert seen.sheet == (518, 130)
    assert [p.changed for p in seen.pairs] == [True, True, False, False, False]
    page = read().content.decode()
    assert 'viewBox="130 0 128 64"' in page and page.count("data-changed") == 2
    assert "&lt;b&gt;two&lt;/b&gt; hearts" in page


@pytest.mark.parametrize(
    "given",
    [
        b"{",
        b"[]",
        {"columns": 0, "size": [1, 1], "pairs": [], "changes": []},
        {"columns": 4, "size": [1]},
        {"columns": 4},
    ],
)
def test_one_that_cannot_be_read_leaves_the_pictures(read, training, given):
    keep(training, given)
    assert comparison(training) is None
    page = read()
    assert page.status_code == 200 and b"Images of the old version" in page.content


def test_a_round_without_one_shows_its_pictures(read, training):
    assert comparison(training) is None
    assert b"Images of the old version" in read().content


def test_the_surrogates_opinion_is_a_mark_where_it_is_known(read, training):
    given = values(change("reward", 0.2, 0.05))
    given["pairs"][0]["opinion"], given["pairs"][1]["opinion"] = -0.1, 0.2
    keep(training, given)
    page = read().content.decode()
    assert page.count("The surrogate prefers the old one.") == page.count("The surrogate prefers the new one.") == 1


def test_what_a_round_was_made_from_and_what_it_cost(read, training):
    training.made_from = {"labels": {"people": 12, "scenes": 8}, "people": 1}
    training.settings = {**check_settings({"updates": 4}), "student_batch": 10}
    training.finished_at = training.created_at + timedelta(minutes=30)
    training.save()
    for step, minutes in ((1, 5), (4, 25)):
        metric = RoundMetric.objects.create(round=training, step=step, values={})
        RoundMetric.objects.filter(pk=metric.pk).update(created_at=training.created_at + timedelta(minutes=minutes))
    found = queries.made(training)
    assert [round(seconds) for _name, seconds in found.stages] == [300, 1200, 300]
    assert {name: (value, default) for _label, name, value, default in found.settings} == {
        "updates": (4, 60),
        "student_batch": (10, 48),
    }
    page = read().content.decode()
    for part in ("12 labels of 1 person", "8 labels of the oracle scenes", "30 minutes from start to end", "40 images"):
        assert part in page
