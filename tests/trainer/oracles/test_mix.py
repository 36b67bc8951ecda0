"""Weighted mixes on a drawn word and on constructed parts."""

import pytest
from PIL import Image

from trainer.oracles import Verdict, get_oracle
from trainer.oracles.mix import MixOracle


class Fixed:
    def __init__(self, name, *verdicts):
        self.name, self.verdicts = name, list(verdicts)

    def score(self, images, prompts, metadata):
        return self.verdicts


@pytest.fixture
def mix(monkeypatch):
    parts = {
        "kind": Fixed("kind", Verdict(1.0, True, "fine", True), Verdict(1.0, True, "fine", True)),
        "harsh": Fixed("harsh", Verdict(0.2, False, "too dark", True), Verdict(1.0, True, "bright", True)),
    }
    monkeypatch.setattr("trainer.oracles.mix.get_oracle", parts.__getitem__)
    return MixOracle(kind=1.0, harsh=3.0)


def test_the_score_is_the_weighted_mean_and_the_reason_has_each_part(mix):
    first, second = mix.score([None, None], ["", ""], [{}, {}])
    assert first.score == pytest.approx(0.4)
    assert first.reason == "kind 1.00 (fine); harsh 0.20 (too dark)"
    assert second.score == 1.0


def test_one_dislike_is_a_dislike_and_correct_is_kept_apart(mix):
    first, second = mix.score([None, None], ["", ""], [{}, {}])
    assert (first.liked, first.correct) == (False, True)
    assert (second.liked, second.correct) == (True, True)


def test_a_mix_of_real_oracles_by_name():
    line = {"tag": "single_object", "include": [{"class": "star", "count": 1}]}
    oracle = get_oracle('mix:{"scenes": 3, "mix:demo=1": 1}')
    (verdict,) = oracle.score([Image.new("RGB", (64, 64), "white")], ["a star"], [line])
    expected = "expected 1 star, found 0"
    assert verdict == Verdict(0.0, False, f"scenes 0.00 ({expected}); mix 0.00 (demo 0.00 ({expected}))", False)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mix", r"mix: has no parts"),
        ("mix:scenes=0", r"mix\.scenes: the weight is 0; it must be above 0"),
        ("mix:scenes=much", r"mix\.scenes: 'much' is not a number"),
        ("mix:nothing=1", r"there is no oracle 'nothing'"),
    ],
)
def test_a_wrong_part_names_the_field(spec, message):
    with pytest.raises(ValueError, match=message):
        get_oracle(spec)
