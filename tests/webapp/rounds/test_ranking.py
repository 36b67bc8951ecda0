"""Versions by strength: the fit, intervals that hold the truth, and questions that end sooner where they are chosen."""

from itertools import combinations, cycle

import numpy as np
import pytest
from scipy.optimize import minimize

from webapp.rounds.ranking import PRIOR, Order, choose, order_of, rank, read_order
from webapp.rounds.sequential import standing


def asked(rng, strengths, of, ties=0.0):
    """What a simulated person says of the versions `of`: an order by Plackett-Luce, or that all are the same."""
    if rng.random() < ties:
        return order_of([of], of)
    heard = strengths[of] + rng.gumbel(size=len(of))
    return order_of([[of[k]] for k in np.argsort(-heard)], of)


def counted(orders):
    found = {}
    for order in orders:
        found[order] = found.get(order, 0) + 1
    return list(found.items())


def run(rng, strengths, next_one, *, most, look=10, ties=0.0):
    """A test to its end: answers so far, and the last ranking."""
    orders, ranking = [], rank([], len(strengths))
    while len(orders) < most and not ranking.finished:
        orders += [asked(rng, strengths, next_one(ranking), ties) for _ in range(look)]
        ranking = rank(counted(orders), len(strengths))
    return len(orders), ranking


# ---------------------------------------------------------------- orders


@pytest.mark.parametrize("text", ["a>b", "b>a", "a=b", "c>a=d>b", "c>a=d>b,e", "a>b,c", "a=b=c"])
def test_an_order_is_stored_and_read(text):
    assert str(read_order(text)) == text


def test_what_is_left_out_comes_last_and_in_no_order():
    assert order_of([[2]], [0, 1, 2]) == Order(((2,),), (0, 1))
    assert order_of([[1]], [0, 1]) == Order(((1,), (0,)))  # a single one has its place
    for tiers in ([], [[]], [[0], [0]], [[3]], [[0], []]):
        with pytest.raises(ValueError, match="at most once"):
            order_of(tiers, [0, 1, 2])


# ---------------------------------------------------------------- the fit


def test_the_fit_is_the_most_likely():
    """Against scipy's minimum of the likelihood written out, order by order."""
    orders = [(read_order(text), n) for text, n in (("a>c>b", 5), ("b>a>c", 3), ("c>a,b", 4), ("b>c", 6), ("a>b", 9))]

    def unlikely(s):
        e = np.exp(s)
        named = [
            (5, e[0] / e.sum() * e[2] / (e[1] + e[2])),
            (3, e[1] / e.sum() * e[0] / (e[0] + e[2])),
            (4, e[2] / e.sum()),
            (6, e[1] / (e[1] + e[2])),
            (9, e[0] / (e[0] + e[1])),
        ]
        return s @ s / (2 * PRIOR) - sum(n * np.log(p) for n, p in named)

    best = minimize(unlikely, np.zeros(3), tol=1e-10).x
    assert rank(orders, 3).strengths == pytest.approx(best - best.mean(), abs=1e-4)


def test_the_same_is_half_a_win_each():
    tied, split = rank([(read_order("a=b"), 20)], 2), rank([(read_order("a>b"), 10), (read_order("b>a"), 10)], 2)
    assert tied.strengths == pytest.approx([0, 0]) and split.strengths == pytest.approx([0, 0])
    assert tied.wins.tolist() == split.wins.tolist() == [[0, 10], [10, 0]]
    assert tied.high[0] < split.high[0]  # many ties show that they are close, not that people disagree
    three = rank([(read_order("c>a=b"), 9)], 3)
    assert three.strengths[0] == pytest.approx(three.strengths[1]) and three.order[0] == 2


def test_one_that_always_wins_has_a_finite_score():
    ranking = rank([(read_order("b>a"), 50)], 2)
    assert 2 < ranking.strengths[1] - ranking.strengths[0] < 8
    assert ranking.verdicts[1][0] == "better" and ranking.best == 1


def test_nothing_is_known_before_the_first_answer():
    ranking = rank([], 3)
    assert (ranking.finished, ranking.best, ranking.strengths.tolist()) == (False, None, [0, 0, 0])
    assert all(ranking.low < 0) and all(ranking.high > 0)


@pytest.mark.parametrize(("a", "b"), [(10, 40), (22, 28), (3, 17), (60, 40), (400, 400), (0, 20)])
def test_two_versions_stand_as_in_the_exact_test(a, b):
    said = {"a": "better", "b": "worse"}.get(standing(a, b).verdict, standing(a, b).verdict)
    assert rank([(read_order("a>b"), a), (read_order("b>a"), b)], 2).verdicts[0][1] == said


# ---------------------------------------------------------------- simulated people


@pytest.mark.parametrize("shown", [2, 3])
def test_intervals_hold_the_truth_in_95_of_100_cases(shown):
    strengths, rng, held, runs = np.array([0.0, 0.4, 0.8, 1.6]), np.random.default_rng(5), 0, 120
    sets = [list(of) for of in combinations(range(4), shown)]
    truth = strengths - strengths.mean()
    for _ in range(runs):
        ranking = rank(counted(asked(rng, strengths, of) for of in sets for _ in range(40)), 4)
        held += sum((ranking.low < truth) & (truth < ranking.high))
    assert 0.925 <= held / (4 * runs) <= 0.975


def test_chosen_questions_end_sooner_and_are_as_sure():
    strengths, votes, wrong, held = np.array([0.0, 0.7, 1.4, 3.0, 4.0]), {"chosen": [], "in turn": []}, 0, 0
    for seed in range(3):
        for how in votes:
            rng, turns = np.random.default_rng(seed), cycle([list(of) for of in combinations(range(5), 2)])
            ask = (lambda r: choose(r, 2, noise=1e-9 * rng.random(10))) if how == "chosen" else lambda _: next(turns)  # noqa: B023
            n, ranking = run(rng, strengths, ask, most=2000, look=20)
            votes[how].append(n)
            wrong += ranking.order != [4, 3, 2, 1, 0]
            truth = strengths - strengths.mean()
            held += sum((ranking.low < truth) & (truth < ranking.high))
    assert wrong == 0
    assert held >= 0.85 * 30
    assert np.mean(votes["chosen"]) < 0.6 * np.mean(votes["in turn"])


def test_equal_versions_are_seldom_told_apart_though_one_looks_all_the_time():
    strengths, claimed = np.zeros(3), 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        _n, ranking = run(rng, strengths, lambda r: choose(r, 2), most=200, look=20)
        claimed += any("better" in row for row in ranking.verdicts)
    assert claimed <= 2


def test_many_ties_end_a_test_of_equal_versions():
    rng = np.random.default_rng(1)
    n, ranking = run(rng, np.zeros(3), lambda r: choose(r, 2), most=1000, look=20, ties=0.7)
    assert ranking.all_same and n < 500


# ---------------------------------------------------------------- what is asked next


def test_what_is_close_is_asked_about_and_what_waits_counts_as_asked():
    known = [(read_order(t), n) for t, n in (("a>c", 40), ("b>c", 40), ("a>b", 4), ("b>a", 3))]
    ranking = rank(known, 3)
    assert ranking.verdicts[0][2] == ranking.verdicts[1][2] == "better" and not ranking.verdicts[0][1]
    assert choose(ranking, 2) == [0, 1]
    fresh, asked_for = rank([], 4), []
    for _ in range(6):
        asked_for.append(tuple(choose(fresh, 2, asked_for)))
    assert len(set(asked_for)) == 6  # each pair once
    assert choose(fresh, 3, [(0, 1, 2), (0, 1, 2)])[-1] == 3 and choose(fresh, 4) == [0, 1, 2, 3]
