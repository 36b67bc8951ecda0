"""What a round says of before and after: each change with its error."""

import json
import random
from pathlib import Path

import pytest
from PIL import Image

from trainer.rounds import run_round
from trainer.rounds.comparison import changes, pairs


def verdict(liked, score=None):
    return {"score": float(liked) if score is None else score, "liked": liked, "correct": liked}


def test_changes_by_hand():
    lines = [{"prompt": "a star", "tag": "counting"}] * 2 + [{"prompt": "two", "tag": "colors"}] * 2
    before = [verdict(False), verdict(True), verdict(False), verdict(False)]
    after = [verdict(True), verdict(True), verdict(True), verdict(False)]
    found = {row["name"]: row for row in changes(lines, before, after)}
    assert list(found) == ["reward", "geneval", "strict", "colors", "counting"]
    assert found["reward"]["change"] == 0.5 and found["reward"]["images"] == 4
    assert found["reward"]["error"] == pytest.approx((1 / 3) ** 0.5 / 2)  # of 1, 0, 1, 0
    assert found["counting"]["before"] == 0.5 and found["counting"]["after"] == 1
    error = (2.75 / 3) ** 0.5 / 2  # of 1, 0 and one of each kind, 1, -1
    assert found["counting"]["error"] == pytest.approx(error)
    assert found["geneval"]["error"] == pytest.approx((2 * error**2) ** 0.5 / 2)


def test_a_single_image_proves_nothing():
    for row in changes([{"prompt": "a star", "tag": "colors"}], [verdict(False)], [verdict(True)]):
        assert row["change"] == 1 and row["change"] < 1.96 * row["error"], row["name"]


def test_an_error_of_pairs_is_small_where_both_move_alike():
    rng = random.Random(0)
    scores = [rng.random() for _ in range(50)]
    lines = [{"prompt": "x", "tag": "mine"}] * 50
    (reward, mine) = changes(lines, [verdict(False, s) for s in scores], [verdict(False, s + 0.1) for s in scores])
    assert reward["change"] == pytest.approx(0.1) and reward["error"] < 1e-9 and mine["name"] == "mine"


def test_without_verdicts_of_both_there_are_no_changes():
    assert changes([{"prompt": "x"}], [], []) == changes([{"prompt": "x"}], [verdict(True)], []) == []


def test_pairs_have_the_verdicts_that_there_are():
    found = pairs([{"prompt": "x", "tag": "t"}, {"prompt": "y"}], [verdict(True)], [verdict(False)])
    assert [(row["prompt"], row["tag"]) for row in found] == [("x", "t"), ("y", "")]
    assert found[0]["before"]["liked"] and not found[0]["after"]["liked"]
    assert found[1]["before"] is found[1]["after"] is found[0]["opinion"] is None
    found = pairs([{"prompt": "x"}, {"prompt": "y"}], [], [], [0.25])
    assert [row["opinion"] for row in found] == [0.25, None]


def test_a_round_leaves_it_beside_its_pictures(make_spec, reddish):
    spec = make_spec()
    result = run_round(spec)
    folder = Path(spec.work_dir) / "grid"
    values = json.loads((folder / "comparison.json").read_text())
    change = values["changes"][0]
    assert change["name"] == "reward"
    assert change["before"] == pytest.approx(result.scores_before["reward"])
    assert change["after"] == pytest.approx(result.scores_after["reward"])
    with Image.open(folder / "after.webp") as sheet:
        rows = -(-len(values["pairs"]) // values["columns"])
        columns = min(len(values["pairs"]), values["columns"])
        assert sheet.size[1] == rows * (values["size"][1] + 2) - 2 and sheet.size[0] >= columns * values["size"][0]
    assert values["pairs"][0]["before"] is not None
    assert all(isinstance(pair["opinion"], float) for pair in values["pairs"][: spec.settings["validation_images"]])
