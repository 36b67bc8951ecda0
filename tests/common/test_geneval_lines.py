"""GenEval's lines are read right or refused by field, wherever prompts come from."""

import json

import pytest

from common.geneval_lines import LineError, checked_line
from common.prompt_files import read_prompts

STAR = {"class": "star", "count": 1}


@pytest.mark.parametrize(
    "extra",
    [{"exclude": None}, {"tag": None}, {"text": None}, {"include": [{**STAR, "color": None, "position": None}]}],
)
def test_null_is_as_if_absent(extra):
    assert checked_line({"prompt": "a star", "include": [STAR], **extra}) == {"prompt": "a star", "include": [STAR]}


@pytest.mark.parametrize("index", [5, 1, -1, True, 0.0, "0", None])
def test_a_position_out_of_range_is_refused(index):
    line = {"include": [STAR, {**STAR, "position": ["left of", index]}]}
    with pytest.raises(LineError, match="include: `position` of star is not"):
        checked_line(line)


@pytest.mark.parametrize("position", ["left of", ["left of"], ["near", 0], [0, "left of"], [["left of"], 0], {}])
def test_a_position_that_is_no_pair_is_refused(position):
    with pytest.raises(LineError, match="include: `position` of star is not"):
        checked_line({"include": [STAR, {**STAR, "position": position}]})


@pytest.mark.parametrize("count", [0, -1, "2", 2.0, True, None])
def test_a_count_that_is_no_number_of_things_is_refused(count):
    for name in ("include", "exclude"):
        with pytest.raises(LineError, match=f"{name}: `count` of star is not a whole number above 0"):
            checked_line({name: [{"class": "star", "count": count}]})


@pytest.mark.parametrize("term", [{"count": 1}, {"class": "", "count": 1}, {"class": 3, "count": 1}, "star", None])
def test_an_entry_without_a_class_is_refused(term):
    with pytest.raises(LineError, match="include: every entry needs a `class`"):
        checked_line({"include": [term]})


@pytest.mark.parametrize("value", [{}, "star", 3, False])
def test_lists_are_lists(value):
    with pytest.raises(LineError, match="exclude: give a list"):
        checked_line({"exclude": value})


def test_the_command_line_names_the_line(tmp_path):
    good, bad = {"prompt": "a star", "include": [STAR]}, {"prompt": "two", "include": [{"class": "star", "count": "2"}]}
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({**good, "exclude": None}) + "\n\n" + json.dumps(bad))
    with pytest.raises(ValueError, match=r"p\.jsonl, line 3: include: `count` of star"):
        read_prompts(file, split="train")
    file.write_text(json.dumps({**good, "exclude": None}))
    assert read_prompts(file, split="train") == [good]


def test_a_prompt_that_the_oracle_cannot_judge_is_named_by_line(tmp_path):
    def check(prompt, line):
        if "cat" in prompt:
            raise ValueError("prompt: no cats")

    (tmp_path / "p.txt").write_text("a dog\na cat\n")
    with pytest.raises(ValueError, match=r"p\.txt, line 2: prompt: no cats"):
        read_prompts(tmp_path / "p.txt", split="train", check=check)
