"""The OCR oracle reads drawn words, and its score is the recipe's."""

import random

import onnxruntime
import pytest
from PIL import Image

from common.geneval_lines import quoted_text
from trainer.demo.scenes.draw import draw, sample_scene
from trainer.demo.scenes.prompts import WORD, prompts
from trainer.oracles import get_oracle
from trainer.oracles.ocr import edit_distance, normalise, text_score


def test_it_reads_drawn_words():
    rows = random.Random(0).sample(prompts("test", tags=(WORD,)), 12)
    images = [draw(sample_scene(r.metadata, random.Random(i))) for i, r in enumerate(rows)]
    verdicts = get_oracle("ocr").score(images, [r.prompt for r in rows], [r.metadata for r in rows])
    assert sum(v.correct for v in verdicts) >= 11
    other = get_oracle("ocr").score(images[:3], [r.prompt for r in rows[3:6]], [{}] * 3)
    assert not any(v.correct for v in other)


def test_reading_many_lines_at_once_reads_the_same():
    rows = random.Random(1).sample(prompts("test", tags=(WORD,)), 2)
    images = [draw(sample_scene(r.metadata, random.Random(i))) for i, r in enumerate(rows)]
    # Two words above each other: more lines than one.
    sheet = Image.new("RGB", (images[0].width, 2 * images[0].height))
    sheet.paste(images[0], (0, 0))
    sheet.paste(images[1], (0, images[0].height))
    found = [
        get_oracle(spec).score([*images, sheet], [r.prompt for r in (*rows, rows[1])], [{}] * 3)
        for spec in ("ocr:batch=1", "ocr")
    ]
    assert [v.reason for v in found[0]] == [v.reason for v in found[1]]
    assert found[1][2].score == 1.0  # the second word is within what was read


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("ocr:device=tpu", "ocr.device: 'tpu' is not auto, cpu, cuda"),
        ("ocr:device=cpu:1", "ocr.device: 'cpu:1' is not auto"),
        ("ocr:batch=0", "ocr.batch: is 0; it must be at least 1"),
        ("ocr:threads=-1", "ocr.threads: is -1"),
    ],
)
def test_a_wrong_option_is_named(spec, sentence):
    with pytest.raises(ValueError, match=sentence):
        get_oracle(spec)


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is CUDA")
def test_cuda_that_is_not_there_is_not_passed_over_in_silence():
    with pytest.raises(ValueError, match="pip install onnxruntime-gpu"):
        get_oracle("ocr:device=cuda")
    get_oracle("ocr:device=auto")


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
    assert quoted_text('a sign "NEW Yo" and "B"') == "NEW Yo"
    assert normalise("NEW  Yo\n") == "newyo"


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [("a star", "no text in double quotes"), ("the word “CAT”", "no text in double quotes"),
     ('the word ""', "nothing to read"), ('the word " "', "nothing to read")],
)  # fmt: skip
@pytest.mark.parametrize("spec", ["ocr", "demo", "mix:ocr=1"])
def test_a_prompt_without_text_is_refused_before_anything_is_drawn(prompt, sentence, spec):
    with pytest.raises(ValueError, match=sentence):
        get_oracle(spec).check(prompt, {"text": "CAT"})


def test_the_demo_oracle_sends_each_prompt_to_its_judge():
    rows = [prompts("test", tags=(WORD,))[0], prompts("test", tags=("colors",))[0]]
    images = [draw(sample_scene(r.metadata, random.Random(1))) for r in rows]
    verdicts = get_oracle("demo").score(images, [r.prompt for r in rows], [r.metadata for r in rows])
    assert [v.liked for v in verdicts] == [True, True]
    assert verdicts[0].reason.startswith("read")
