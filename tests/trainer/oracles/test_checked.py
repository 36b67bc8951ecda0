"""What is no answer of an oracle stops the work, by name; nothing of it becomes a reward."""

import math

import numpy as np
import pytest
from PIL import Image

from trainer.oracles import OracleError, Verdict
from trainer.oracles.checked import CheckedOracle

IMAGES, PROMPTS = [Image.new("RGB", (8, 8))] * 2, ["a star", "a cat"]
GOOD = Verdict(0.5, True, "nice", True)


class Answers:
    name = "mine"

    def __init__(self, answer):
        self.answer = answer

    def score(self, images, prompts, metadata):
        return self.answer


def ask(answer):
    return CheckedOracle(Answers(answer)).score(IMAGES, PROMPTS, [{}, {}])


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 37.5, -0.1, None, "0.5", True])
def test_a_score_that_is_none_is_refused(score):
    with pytest.raises(
        OracleError, match=r"oracle mine: image 2 of 2 \('a cat'\) has the score .* not a number in 0\.\.1"
    ):
        ask([GOOD, Verdict(score, True, "", True)])


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [(None, "answered None"), ([GOOD], "gave 1 verdicts for 2 images"), ([GOOD] * 3, "gave 3 verdicts for 2 images"),
     ([GOOD, None], "image 2 of 2 .* has None, not a Verdict"), ([GOOD, 0.5], "not a Verdict"),
     ([Verdict(0.5, 1, "", True), GOOD], "image 1 of 2 .* liked 1, which is not true or false"),
     ([Verdict(0.5, True, "", None), GOOD], "correct None"), ([Verdict(0.5, True, None, True), GOOD], "reason None")],
)  # fmt: skip
def test_an_answer_that_is_none_is_refused(answer, sentence):
    with pytest.raises(OracleError, match=f"oracle mine: .*{sentence}"):
        ask(answer)


def test_numbers_of_numpy_are_numbers():
    verdicts = ask([Verdict(np.float32(0.5), np.bool_(True), "nice", np.True_), GOOD])
    assert verdicts == [GOOD, GOOD]
    assert type(verdicts[0].score) is float and type(verdicts[0].liked) is bool


def test_an_oracle_without_a_check_judges_any_prompt():
    CheckedOracle(Answers([])).check("x", {})
