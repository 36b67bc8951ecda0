"""Prompt files: what is read, and what is refused by line number."""

import json

import pytest

from webapp.campaigns import prompt_files
from webapp.campaigns.prompt_files import parse, split_of

GENEVAL = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
    {
        "tag": "counting",
        "include": [{"class": "clock", "count": 3}],
        "exclude": [{"class": "clock", "count": 4}],
        "prompt": "a photo of three clocks",
    },
    {
        "tag": "position",
        "include": [{"class": "cup", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 0]}],
        "prompt": "a photo of a dog left of a cup",
    },
]


def lines(*rows):
    return "\n".join(json.dumps(row) for row in rows)


def test_text_is_a_prompt_a_line():
    parsed = parse("a cat\n\n  a   dog \r\na cat\n")
    assert [(r.line, r.prompt) for r in parsed.rows] == [(1, "a cat"), (3, "a dog")]
    assert [str(d) for d in parsed.duplicates] == ["line 4: the same prompt as line 1; left out"]
    assert parsed.errors == []


def test_genevals_lines_are_their_own_metadata():
    parsed = parse(lines(*GENEVAL), name="evaluation_metadata.jsonl", validation=0)
    assert parsed.format == "jsonl"
    assert [r.metadata for r in parsed.rows] == GENEVAL
    assert parsed.splits() == {"train": 3, "validation": 0, "test": 0}


def test_csv_with_quoted_line_breaks_counts_the_files_lines():
    text = 'prompt,split,metadata\n"a cat,\nsitting",test,\na dog,somewhere,\na cow,train,"{""tag"": ""colors""}"\nx\n'
    parsed = parse(text, name="p.csv")
    assert [(r.line, r.prompt, r.split) for r in parsed.rows] == [(2, "a cat, sitting", "test"), (5, "a cow", "train")]
    assert parsed.rows[1].metadata == {"tag": "colors"}
    assert [str(e) for e in parsed.errors] == [
        "line 4: split: 'somewhere' is not one of train, validation, test",
        "line 6: 1 cells where the first line names 3 columns",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", "line 2: not JSON"),
        ("[1]", "line 2: not a JSON object"),
        ('{"prompt": 3}', "line 2: prompt: give a text"),
        ('{"prompt": "  "}', "line 2: prompt: give a text"),
        ('{"prompt": "x", "metadata": []}', "line 2: metadata: give a JSON object"),
        ('{"prompt": "x", "metadata": {"a": NaN}}', "line 2: not JSON"),
        ('{"prompt": "x\\u0000"}', "line 2: prompt: it holds a NUL"),
        ('{"prompt": "x", "include": [{"count": 1}]}', "line 2: include: every entry needs a `class`"),
        ('{"prompt": "x", "exclude": [{"class": "cat", "count": "2"}]}', "line 2: exclude: `count` of cat"),
        (json.dumps({"prompt": "x" * 1001}), "line 2: prompt: 1001 characters"),
        ("[" * 100_000, "line 2: not JSON"),
    ],
)
def test_a_malformed_line_is_named(line, message):
    parsed = parse(lines({"prompt": "fine"}) + "\n" + line, name="x.jsonl")
    assert [r.prompt for r in parsed.rows] == ["fine"]
    assert str(parsed.errors[0]).startswith(message)


def test_a_csv_without_a_prompt_column_is_refused():
    assert "no column is called prompt" in str(parse("text,split\na,train\n", name="x.csv").errors[0])


def test_formats_are_told_by_name_or_by_content():
    assert prompt_files.guess_format("x.JSONL", "") == "jsonl"
    assert prompt_files.guess_format("", '\n {"prompt": "x"}') == "jsonl"
    assert prompt_files.guess_format("", "split,prompt\n") == "csv"
    assert prompt_files.guess_format("", "a prompt, with a comma") == "text"


def test_splits_follow_the_hash_and_nothing_else():
    prompts = [f"prompt {n}" for n in range(4000)]
    once = {p: split_of(p, 0.1, 0.2) for p in prompts}
    parsed = parse("\n".join(reversed(prompts)), validation=0.1, test=0.2)
    assert {r.prompt: r.split for r in parsed.rows} == once
    counts = parsed.splits()
    assert 300 < counts["validation"] < 500 and 650 < counts["test"] < 950


def test_other_encodings_are_refused_by_line():
    with pytest.raises(ValueError, match="line 2 is not UTF-8"):
        prompt_files.decode("fine\nä".encode("latin-1"))
    assert prompt_files.decode("\ufeffa cat".encode()) == "a cat"
