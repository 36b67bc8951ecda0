"""GenEval's rules on constructed detections."""

import numpy as np
import pytest

from trainer.oracles.geneval import (
    Detection,
    by_class,
    is_correct,
    judge,
    partial_reward,
    relative_position,
    threshold_for,
)


def found(*detections, threshold=0.3):
    return by_class(detections, threshold=threshold)


def at(label, x, y, *, confidence=0.95, color=None, half=10):
    return Detection(label, confidence, (x - half, y - half, x + half, y + half), color)


COUNT_TWO = {
    "tag": "counting",
    "include": [{"class": "star", "count": 2}],
    "exclude": [{"class": "star", "count": 3}],
}
RED_STAR = {"tag": "colors", "include": [{"class": "star", "count": 1, "color": "red"}]}
HEART_LEFT = {
    "tag": "position",
    "include": [{"class": "star", "count": 1}, {"class": "heart", "count": 1, "position": ["left of", 0]}],
}


@pytest.mark.parametrize(
    ("dx", "dy", "relations"),
    [
        (-50, 0, {"left of"}),
        (50, 0, {"right of"}),
        (0, -50, {"above"}),
        (0, 50, {"below"}),
        (50, 50, {"right of", "below"}),
        (50, 20, {"right of"}),
        (3, 0, set()),  # shrunk by 0.1 · (20 + 20) = 4 to nothing
        (0, 0, set()),
    ],
)
def test_relative_position(dx, dy, relations):
    assert relative_position(at("a", 64 + dx, 64 + dy).box, at("b", 64, 64).box) == relations


def test_counting_needs_a_higher_confidence():
    assert threshold_for(COUNT_TWO) == 0.9
    assert threshold_for(RED_STAR) == 0.3
    sure, unsure = at("star", 20, 20), at("star", 80, 80, confidence=0.6)
    assert not is_correct(COUNT_TWO, found(sure, unsure, threshold=threshold_for(COUNT_TWO)))[0]
    assert is_correct(COUNT_TWO, found(sure, unsure, threshold=0.3))[0]


def test_a_confidence_on_the_threshold_is_not_above_it():
    assert found(at("star", 0, 0, confidence=0.3))["star"] == []


def test_at_most_sixteen_a_class_are_kept_most_confident_first():
    many = [at("star", i, 0, confidence=0.5 + i / 100) for i in range(20)]
    kept = found(*many)["star"]
    assert len(kept) == 16
    assert kept[0].confidence == max(d.confidence for d in many)


def test_include_keeps_the_most_confident_of_too_many():
    objects = found(at("star", 0, 0, confidence=0.5, color="blue"), at("star", 40, 0, confidence=0.9, color="red"))
    assert is_correct(RED_STAR, objects)[0]


def test_of_equally_confident_objects_the_last_found_is_kept():
    """As `np.argsort(confidences)[::-1]` of GenEval's evaluate_images.py has it."""
    red, blue = at("star", 0, 0, color="red"), at("star", 40, 0, color="blue")
    assert is_correct(RED_STAR, found(blue, red))[0]
    assert not is_correct(RED_STAR, found(red, blue))[0]
    confidences = [0.9, 0.5, 0.9, 0.7, 0.5, 0.9]
    some = [at("star", i, 0, confidence=c) for i, c in enumerate(confidences)]
    assert found(*some)["star"] == [some[i] for i in np.argsort(confidences, kind="stable")[::-1]]
    many = [at("star", i, 0) for i in range(20)]
    assert found(*many)["star"] == many[:3:-1]


def test_exclude_fails_at_its_count():
    two = [at("star", 0, 0), at("star", 40, 0)]
    assert is_correct(COUNT_TWO, found(*two))[0]
    correct, reason = is_correct(COUNT_TWO, found(*two, at("star", 80, 0)))
    assert not correct
    assert reason == "expected fewer than 3 star, found 3"


def test_nothing_found_is_wrong_and_says_so():
    assert is_correct(RED_STAR, found()) == (False, "expected 1 star, found 0")
    assert partial_reward(RED_STAR, found()) == 0


def test_a_wrong_color_is_half_of_the_reward():
    objects = found(at("star", 0, 0, color="blue"))
    assert not is_correct(RED_STAR, objects)[0]
    assert partial_reward(RED_STAR, objects) == 0.5


def test_a_wrong_position_earns_nothing_for_its_term():
    right = found(at("star", 80, 64), at("heart", 30, 64))
    wrong = found(at("star", 30, 64), at("heart", 80, 64))
    assert is_correct(HEART_LEFT, right)[0]
    assert partial_reward(HEART_LEFT, right) == 1
    assert not is_correct(HEART_LEFT, wrong)[0]
    assert partial_reward(HEART_LEFT, wrong) == pytest.approx(2 / 3)  # two counts of three terms


def test_every_pair_must_hold():
    objects = found(at("star", 80, 64), at("star", 40, 64), at("heart", 60, 64))
    line = {"include": [{"class": "star", "count": 2}, {"class": "heart", "count": 1, "position": ["left of", 0]}]}
    assert not is_correct(line, objects)[0]


def test_a_missing_target_fails_the_relation():
    correct, reason = is_correct(HEART_LEFT, found(at("heart", 30, 64)))
    assert not correct
    assert "expected 1 star" in reason and "target" in reason


def test_the_training_reward_counts_strictly():
    three = found(at("star", 0, 0), at("star", 40, 0), at("star", 80, 0))
    assert partial_reward({"include": [{"class": "star", "count": 2}]}, three) == 0.5
    assert partial_reward({"include": [{"class": "star", "count": 1}]}, three) == 0


def test_the_strict_verdict_and_the_benchmarks_stand_side_by_side():
    more = judge(RED_STAR, found(at("star", 0, 0, color="red"), at("star", 40, 0, confidence=0.5, color="red")))
    assert (more.score, more.liked, more.correct, more.reason) == (0, False, True, "more than was asked")
    right = judge(RED_STAR, found(at("star", 0, 0, color="red")))
    assert (right.score, right.liked, right.correct) == (1, True, True)
    nothing = judge(COUNT_TWO, found(threshold=0.9))
    assert (nothing.score, nothing.liked, nothing.correct) == (0, False, False)
