"""The alarm fires when opinions part, once or twice as clearly as needed, and never for noise or for honest change."""

import random

import pytest

from trainer.watch.alarm import Look, Reading, mean_of, parting, relative, suspicious

LIKED = Reading(0.1, 0.01)


def look(step, opinion=LIKED, held_out=(), trained=(), error=0.02, **falls):
    return Look(step, opinion, {name: Reading(-fall, error) for name, fall in falls.items()}, held_out, trained)


def test_it_works():
    looks = [look(10, contrast=0.05, score=-0.1), look(20, contrast=0.7, score=-0.2)]
    assert not suspicious(looks[:1]) and suspicious(looks)
    assert parting(looks[:1]) == ""
    assert parting(looks) == (
        "the surrogate likes the new images better than the parent's, but contrast fell by 70% (± 2%)"
    )


def test_a_smaller_fall_must_be_seen_twice_in_a_row_or_at_the_end():
    weak = look(10, diversity=0.5)
    assert suspicious([weak]) and parting([weak]) == ""
    assert "diversity fell by 50%" in parting([weak, look(20, diversity=0.5)])
    assert parting([weak, look(20, diversity=0.1)]) == "" and not suspicious([weak, look(20, diversity=0.1)])
    assert parting([weak, look(20, contrast=0.5)]) == ""
    assert "diversity" in parting([weak], last=True)


def test_what_images_look_like_may_change_more_than_what_they_show():
    looks = [look(10, contrast=0.3, recognition=0.3), look(20, contrast=0.3, recognition=0.3)]
    assert parting(looks).endswith("but how well the base model recognises the prompt in the image fell by 30% (± 2%)")
    assert "contrast" not in parting([look(10, contrast=0.45, score=0.45)])


def test_a_surrogate_without_opinion_does_not_hush_it():
    gone = look(20, opinion=Reading(0.0, 0.01), recognition=1.0)
    assert parting([gone]).startswith("the surrogate likes the new images no less than the parent's, but how well")


def test_images_that_show_nothing_any_more_end_it_whatever_the_surrogate_thinks():
    gone = look(20, opinion=Reading(-2.4, 0.07), score=1.0, contrast=0.25)  # a round that fell apart between two looks
    assert suspicious([gone])
    assert parting([gone]) == (
        "the surrogate likes the new images less than the parent's, too, and the validation oracle's score fell by "
        "100% (± 2%)"
    )


@pytest.mark.parametrize(
    "calm",
    [
        look(20, score=0.15, contrast=0.15, error=0.001),  # beyond noise, but small
        look(20, score=0.5, error=0.2),  # large, but noise
        look(20, opinion=Reading(-0.1, 0.01), score=0.5),  # the surrogate finds them worse, too, and will turn back
        look(20, score=-0.5),
        look(20),
    ],
)
def test_other_changes_leave_it_calm(calm):
    assert parting([calm, calm], last=True) == "" and not suspicious([calm, calm])


def test_noise_alone_never_fires():
    rng = random.Random(0)
    for _ in range(200):
        looks, easy = [], [rng.uniform(0.4, 1) for _ in range(8)]  # some groups are easier than others
        for step in range(10, 60, 10):
            parent = [rng.gauss(0.6, 0.4) for _ in range(48)]
            drift = {name: relative([v + rng.gauss(0, 0.3) for v in parent], parent) for name in ("score", "contrast")}
            accuracies = [[a + rng.gauss(0, 0.1) for a in easy] for _ in range(2)]
            looks.append(Look(step, LIKED, drift, *accuracies))
            assert parting(looks, last=step == 50) == ""


def test_held_out_groups_that_are_ranked_worse_while_the_others_are_not():
    best, seen = (0.8, 0.9, 0.7, 0.8), (0.8, 0.8, 0.8, 0.8)
    looks = [look(10, held_out=best, trained=seen)]
    looks.append(look(20, held_out=(0.5, 0.6, 0.45, 0.55), trained=(0.9,) * 4))
    assert parting(looks) == "" and suspicious(looks)
    assert parting(looks, last=True) == "" and not suspicious(
        looks, last=True
    )  # once may be luck, and nobody looks again
    looks.append(look(30, held_out=(0.5, 0.55, 0.45, 0.5), trained=(0.95,) * 4))
    assert parting(looks) == (
        "the surrogate ranks 50% of the pairs in held-out labelled groups right, 30 points fewer than at its best, "
        "and 95% in those it trains on"
    )
    looks[-1] = look(30, held_out=(0.5, 0.55, 0.45, 0.5), trained=(0.5,) * 4)  # it forgets everything alike
    assert parting(looks) == ""


def test_differences_are_paired_and_relative():
    reading = relative([0.5, 1.5], [1.0, 2.0])
    assert reading.change == pytest.approx(-1 / 3) and reading.error == pytest.approx(0)
    assert mean_of([1.0]).error == float("inf")


def test_looks_survive_json():
    seen = look(10, held_out=(0.5,), trained=(0.75,), contrast=0.5)
    again = Look.from_json(seen.to_json())
    assert again == seen
    assert again.metrics() == {
        "opinion": 0.1, "second_contrast": 0.5, "accuracy_held_out": 0.5, "accuracy_trained": 0.75,
    }  # fmt: skip
