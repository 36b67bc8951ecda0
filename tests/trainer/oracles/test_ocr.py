"""The OCR oracle reads drawn words, and its score is the recipe's."""

import random

import pytest

from trainer.oracles import get_oracle
from trainer.oracles.ocr import edit_distance, normalise, target_text, text_score
from trainer.scenes.draw import draw, sample_scene
from trainer.scenes.prompts import WORD, prompts


def test_it_reads_drawn_words():
    rows = random.Random(0).sample(prompts("test", tags=(WORD,)), 12)
    images = [draw(sample_scene(r.metadata, random.Random(i))) for i, r in enumerate(rows)]
    verdicts = get_oracle("ocr").score(images, [r.prompt for r in rows], [r.metadata for r in rows])
    assert sum(v.correct for v in verdicts) >= 11
    other = get_oracle("ocr").score(images[:3], [r.prompt for r in rows[3:6]], [{}] * 3)
    assert not any(v.correct for v in other)


@pytest.mark.parametrize(
    ("a", "b", "distance"), [("cat", "cat", 0), ("cat", "cut", 1), ("", "cat", 3), ("ab", "ba", 2)]
)
def test_edit_distance(a, b, distance):
    assert edit_distance(a, b) == distance


@pytest.mark.parametrize(
    ("target", "read", "score"),
    [("cat", "thecatsat", 1), ("cat", "cut", 2 / 3), ("cat", "", 0), ("cat", "xxxxxxxxxx", 0), ("", "cat", 0)],
)
def test_text_score(target, read, score):
    assert text_score(target, read) == pytest.approx(score)


def test_the_first_quoted_text_is_the_target():
    assert target_text('a sign "NEW Yo" and "B"') == "NEW Yo"
    assert normalise("NEW  Yo\n") == "newyo"


def test_a_prompt_without_quotes_is_refused():
    with pytest.raises(ValueError, match="double quotes"):
        target_text("a star")


def test_the_demo_oracle_sends_each_prompt_to_its_judge():
    rows = [prompts("test", tags=(WORD,))[0], prompts("test", tags=("colors",))[0]]
    images = [draw(sample_scene(r.metadata, random.Random(1))) for r in rows]
    verdicts = get_oracle("demo").score(images, [r.prompt for r in rows], [r.metadata for r in rows])
    assert [v.liked for v in verdicts] == [True, True]
    assert verdicts[0].reason.startswith("read")
