"""How many labels the next round needs, from what earlier rounds came to."""

import random
from math import exp, log

import pytest

from webapp.rounds.staircase import (
    DOWN,
    FEWEST,
    MOST,
    START,
    TARGET,
    UP,
    Ended,
    chance_better,
    chance_of_scores,
    labels_needed,
)


def at(number, worth):
    return Ended(number, number, worth)


def test_it_starts_and_moves_by_outcomes():
    assert labels_needed([]) == START
    assert labels_needed([at(200, True)]) == 160
    assert labels_needed([at(200, False)]) == round(200 * UP) == 312
    assert labels_needed([at(200, True), at(160, False)]) == 250
    assert TARGET * log(DOWN) + (1 - TARGET) * log(UP) == pytest.approx(0)


def test_rounds_far_from_the_number_say_nothing_unless_they_surprise():
    assert labels_needed([Ended(200, 1000, True)]) == 200  # more than enough was enough
    assert labels_needed([Ended(200, 60, False)]) == 200  # too few were too few
    assert labels_needed([Ended(200, 60, True)]) == 160
    assert labels_needed([Ended(200, 1000, False)]) == 312


def test_it_stays_within_bounds():
    down, up = [at(FEWEST, True)] * 50, [at(MOST, False)] * 50
    assert labels_needed(down) == FEWEST
    assert labels_needed(up) == MOST
    assert labels_needed([*down, at(FEWEST, False)]) == round(FEWEST * UP)


@pytest.mark.parametrize("enough", [100, 400, 1500])
def test_it_settles_where_two_of_three_rounds_are_worth_it(enough):
    """Worth it with a chance that rises with the labels and is the target at `enough`."""
    rng, rounds, numbers = random.Random(enough), [], []
    for _ in range(400):
        number = labels_needed(rounds)
        odds = (number / enough) ** 2 * TARGET / (1 - TARGET)
        rounds.append(at(number, rng.random() < odds / (1 + odds)))
        numbers.append(number)
    settled = exp(sum(log(n) for n in numbers[100:]) / 300)
    assert settled == pytest.approx(enough, rel=0.25)
    assert sum(r.worth for r in rounds[100:]) / 300 == pytest.approx(TARGET, abs=0.06)


@pytest.mark.parametrize(
    ("needed", "had", "worth", "hit"),
    [(200, 200, True, True), (200, 199, True, False), (200, 250, False, False), (200, 10, False, True)],
)
def test_a_forecast_is_right_when_enough_labels_and_worth_it_agree(needed, had, worth, hit):
    assert Ended(needed, had, worth).hit is hit


def even(shares):
    return [(share, 1.0) for share in shares]


def test_the_chance_is_the_tests_on_groups():
    old, new = even([0.25, 0.5, 0.75] * 10), even([0.5, 0.75, 1.0] * 10)
    assert chance_better(old, old) == pytest.approx(0.5)
    assert chance_better(new, old) > 0.99
    assert chance_better(new, old) == pytest.approx(1 - chance_better(old, new))
    # The same likes gathered in all-or-nothing groups are weaker evidence.
    clumped = even([0.0, 1.0] * 15), even([0.0, 1.0, 1.0, 1.0] * 7)
    assert 0.5 < chance_better(clumped[1], clumped[0]) < chance_better(new, old)


def test_a_few_equal_groups_are_no_certainty():
    assert 0.8 < chance_better(even([0.5] * 8), even([0.25] * 8)) < 0.99


def test_prompts_that_were_chosen_more_often_count_no_more():
    """Two kinds of prompt, liked .9 and .5. The new version is asked about the second three times as often."""
    old, new = even([0.9, 0.5] * 40), [(0.9, 2.0)] * 20 + [(0.5, 2 / 3)] * 60
    assert chance_better(new, old) == pytest.approx(0.5)
    assert chance_better(even(share for share, _weight in new), old) < 0.1
    assert chance_better([(s, 7 * w) for s, w in new], old) == pytest.approx(0.5)  # only ratios of weights count


def test_a_gain_of_a_tenth_in_thirty_groups_is_found_in_about_two_of_three():
    """What TARGET rests on. Groups of eight whose chances of a like are spread as the demo's are."""
    rng = random.Random(0)

    def groups(count, gain):
        chances = [min(1, max(0, rng.gauss(0.55, 0.22) + gain)) for _ in range(count)]
        return even(sum(rng.random() < p for _ in range(8)) / 8 for p in chances)

    found = [chance_better(groups(30, 0.1), groups(60, 0)) >= 0.8 for _ in range(500)]
    nothing = [chance_better(groups(30, 0), groups(60, 0)) >= 0.8 for _ in range(500)]
    assert 0.6 < sum(found) / 500 < 0.85
    assert 0.1 < sum(nothing) / 500 < 0.25


def test_the_chance_of_scores_needs_images():
    assert chance_of_scores(0.6, 0.7, 112) == pytest.approx(0.946, abs=0.01)
    assert chance_of_scores(0.6, 0.7, 10) < 0.8
    assert chance_of_scores(0.7, 0.7, 100) == 0.5
    assert chance_of_scores(0.0, 0.0, 100) == 0.5
    assert chance_of_scores(1.0, 1.0, 100) == 0.5
