"""The test that may be looked at after every vote: it errs no more often than it says, and it ends."""

import numpy as np
import pytest
from scipy.special import betaln

from webapp.rounds.sequential import WEIGHT, confidence, log_evidence, standing, wilson

ALPHA, VOTES, RUNS = 0.05, 600, 4000


def paths(p, seed):
    """log E after every vote of many simulated tests, and the wins so far."""
    wins = np.random.default_rng(seed).random((RUNS, VOTES)).__lt__(p).cumsum(axis=1)
    n = np.arange(1, VOTES + 1)
    return betaln(WEIGHT + wins, WEIGHT + n - wins) - betaln(WEIGHT, WEIGHT) + n * np.log(2), wins


def test_the_evidence_is_the_beta_mixture():
    for wins, losses in ((0, 0), (3, 9), (40, 31)):
        expected = betaln(WEIGHT + wins, WEIGHT + losses) - betaln(WEIGHT, WEIGHT) + (wins + losses) * np.log(2)
        assert log_evidence(wins, losses) == pytest.approx(expected)


def test_equal_versions_are_told_apart_no_more_often_than_alpha_though_one_looks_after_every_vote():
    evidence, _ = paths(0.5, 1)
    errors = (evidence.max(axis=1) >= np.log(1 / ALPHA)).mean()
    assert errors <= ALPHA
    assert errors > 0.005  # a test that never speaks would pass too


def test_a_test_looked_at_once_a_vote_by_z_score_would_err_far_more_often():
    _, wins = paths(0.5, 1)
    n = np.arange(1, VOTES + 1)
    z = np.abs(wins - n / 2) / np.sqrt(n / 4)
    assert (z[:, 20:].max(axis=1) > 1.96).mean() > 4 * ALPHA


@pytest.mark.parametrize(("p", "power", "votes"), [(0.65, 0.97, 160), (0.75, 1.0, 60), (0.35, 0.97, 160)])
def test_a_difference_is_found_and_soon(p, power, votes):
    evidence, _ = paths(p, 2)
    over = evidence >= np.log(1 / ALPHA)
    assert over.any(axis=1).mean() >= power
    assert np.median(over.argmax(axis=1)[over.any(axis=1)]) < votes


@pytest.mark.parametrize("p", [0.5, 0.6, 0.9])
def test_the_range_holds_the_truth_at_all_times_together(p):
    rng, missed = np.random.default_rng(3), 0
    for _ in range(200):
        wins = 0
        for n in range(1, 121):
            wins += rng.random() < p
            # In the range just when this p is not rejected.
            if log_evidence(wins, n - wins, p) >= np.log(1 / ALPHA):
                missed += 1
                break
    assert missed / 200 <= 2 * ALPHA
    low, high = confidence(int(60 * p), 60 - int(60 * p), ALPHA)
    for edge in (low, high):
        assert log_evidence(int(60 * p), 60 - int(60 * p), edge) == pytest.approx(np.log(1 / ALPHA), abs=1e-3)
    assert low < p < high


def test_verdicts():
    assert standing(0, 0).verdict == "" and standing(0, 0).rate is None
    assert (standing(0, 0).low, standing(0, 0).high) == (0, 1)
    assert standing(10, 40).verdict == "b" and standing(40, 10).verdict == "a"
    assert standing(22, 28).verdict == ""
    assert standing(400, 400).verdict == "same"
    won = standing(30, 70)
    assert won.low > 0.5 and won.rate == 0.7 and won.evidence > 20


def test_wilson_is_the_textbooks():
    low, high = wilson(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-3), pytest.approx(0.9433, abs=1e-3))
    assert wilson(0, 0) == (0, 1)
    assert (wilson(0, 20)[0], wilson(20, 20)[1]) == (pytest.approx(0), pytest.approx(1))
