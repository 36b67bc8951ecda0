"""Prompt files: what is read, and what is refused by line number."""

import csv
import io
import json
import math

import pytest
from PIL import Image

from common import prompt_files
from common.prompt_files import decode, parse, split_of
from tests.common.prompt_files import GENEVAL, lines, parquet


def test_the_same_words_for_another_image_are_another_prompt():
    lines = [{"prompt": "make it red", "metadata": {"input_image": name}} for name in ("a", "b", "a")]
    parsed = parse("".join(json.dumps(line) + "\n" for line in lines))
    assert [row.metadata["input_image"] for row in parsed.rows] == ["a", "b"] and len(parsed.left_out) == 1


def test_text_is_a_prompt_a_line():
    parsed = parse("a cat\n\n  a   dog \r\na cat\n")
    assert [(r.line, r.prompt) for r in parsed.rows] == [(1, "a cat"), (3, "a dog")]
    assert [str(d) for d in parsed.left_out] == ["line 4: the same prompt as line 1; left out"]
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


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("x.JSON", '[{"prompt": "a"}]', "json"),
        ("", '["a", "b"]', "json"),
        ("x.txt", "[sketch] a cat\n[photo] a dog", "text"),
        ("", '{"red"|"blue"} cube', "text"),
        ("x.csv", '{"prompt": "a"}', "jsonl"),
        ("x.json", '{\n "prompt": "a"\n}', "json"),
        ("x.json", '{"prompt": "a"}\n{"prompt": "b"}', "jsonl"),
        ("", "prompt\na cat", "csv"),
        ("", "Prompt;split\na cat;train", "csv"),
    ],
)
def test_content_is_told_before_the_name(name, text, kind):
    assert prompt_files.guess_format(name, text) == kind
    assert parse(text, name=name).errors == []


def test_spreadsheets_own_csv_is_read():
    told = parse("sep=;\nprompt;split;\na cat, sitting;train;\na dog;test;\n", name="x.csv", validation=0)
    assert [(r.line, r.prompt, r.split) for r in told.rows] == [(3, "a cat, sitting", "train"), (4, "a dog", "test")]
    assert told.read_as() == "CSV separated by semicolons"
    other = parse("prompt\ttag\tinclude\na cat\tcounting\t\n", name="x.txt", validation=0)
    assert [(r.prompt, r.metadata) for r in other.rows] == [("a cat", {"prompt": "a cat", "tag": "counting"})]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "Prompt,split,PROMPT\na,train,b\n", "line 1: columns 1 and 3 are both called prompt; rename or remove"),
        ("x.csv", 'prompt,split\n"a cat,train\na dog,train\n', "line 2: a quote that opens here is not closed"),
        ("x.csv", 'prompt,split\n"a cat,train\na dog,train\n"x",train\n', "line 2: a quote that opens here"),
        ("x.jsonl", '{"prompt": "a", "prompt": "b"}', "line 1: not JSON: the key 'prompt' is there twice"),
        ("x.json", '[{"prompt": "a"},\n{"prompt": 1}]', "line 2: prompt: give a text"),
        ("x.json", '[{"prompt": "a"},\n{"prompt": ]', "line 2: not JSON"),
        ("x.json", "[1]", "line 1: not a JSON object"),
    ],
)  # fmt: skip
def test_what_could_be_misread_is_refused(name, text, message):
    assert str(parse(text, name=name).errors[0]).startswith(message)


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


def test_parquet_rows_are_read_as_genevals_lines():
    """Arrow's structs have every key in every row; those that say nothing are left out again."""
    told = GENEVAL[
        :2
    ]  # a position is a text and a number in one list, which Parquet has not: that needs JSON in a string
    rows = [row | {"image": b"\x89PNG", "shot": {"bytes": b"x", "path": "a.png"}} for row in told]
    for name in ("p.parquet", ""):
        parsed = parse(decode(parquet(rows), name), name=name, validation=0)
        assert [(r.line, r.metadata) for r in parsed.rows] == list(enumerate(told, start=1))
    written = parquet([{"prompt": row["prompt"], "metadata": json.dumps(row)} for row in GENEVAL])
    assert [r.metadata for r in parse(decode(written)).rows] == GENEVAL
    assert parse(decode(parquet(rows)), name="p.parquet").format == "parquet"


def test_parquets_bad_rows_are_named_by_number():
    rows = [{"prompt": "a cat", "score": 1.0}, {"prompt": None, "score": 1.0}, {"prompt": "x", "score": math.nan}]
    parsed = parse(decode(parquet(rows)), name="p.parquet")
    assert [str(e) for e in parsed.errors] == ["line 2: prompt: give a text", "line 3: not JSON: NaN is not JSON"]


@pytest.mark.parametrize(
    "data", [b"PAR1", b"PAR1" * 9, parquet([{"prompt": "a"}])[:-9], parquet([{"prompt": "a"}])[9:]]
)
def test_damaged_parquet_is_refused_in_one_sentence(data):
    with pytest.raises(ValueError, match="prompts: not Parquet that can be read"):
        decode(data, "p.parquet")


def test_parquet_with_too_much_in_it_is_refused():
    with pytest.raises(ValueError, match="it has more than 20,000 rows"):
        decode(parquet([{"prompt": f"p{i}"} for i in range(20_001)]))
    bomb = parquet([{"prompt": "x" * 500_000}] * 200)  # a dictionary stores the text once
    assert len(bomb) < prompt_files.MOST_BYTES
    with pytest.raises(ValueError, match="its rows have more than 10,000,000 bytes"):
        decode(bomb)


def test_a_picture_is_no_list_of_prompts():
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    with pytest.raises(ValueError, match="content is PNG; send text, CSV, JSONL or Parquet"):
        decode(picture.getvalue(), "prompts.txt")


MAP = {"prompt": "Caption", "split": "subset", "metadata": "meta"}
MAPPED = [
    {"Caption": "a cat", "subset": "test", "meta": '{"tag": "colors"}', "prompt": "another"},
    {"Caption": "a dog", "subset": "train", "meta": "", "prompt": "another"},
]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_columns_may_have_other_names(kind):
    if kind == "parquet":
        data = parquet(MAPPED)
    elif kind == "jsonl":
        data = lines(*MAPPED).encode()
    else:
        out = io.StringIO()
        writer = csv.DictWriter(out, MAPPED[0], delimiter="\t" if kind == "tsv" else ",")
        writer.writeheader()
        writer.writerows(MAPPED)
        data = out.getvalue().encode()
    parsed = parse(decode(data, f"p.{kind}"), name=f"p.{kind}", columns=MAP)
    assert parsed.errors == []
    assert [r.plain() for r in parsed.rows] == [
        {"prompt": "a cat", "split": "test", "metadata": {"tag": "colors"}},
        {"prompt": "a dog", "split": "train", "metadata": {}},
    ]


def test_a_column_that_is_not_there_is_named():
    parsed = parse("caption,split\na,train\n", name="x.csv", columns={"prompt": "caption", "metadata": "meta"})
    assert str(parsed.errors[0]) == "line 1: no column is called meta; name the columns in the first line"
    assert "prompt: give a text" in str(parse('{"a": "b"}', name="x.jsonl", columns={"prompt": "text"}).errors[0])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "x\\ud800"}', "half a character"),
        ('{"prompt": "x", "metadata": {"a": 1e999}}', "a number is too large"),
        ('{"prompt": "x", "metadata": "{"}', "metadata: not JSON"),
        ('{"prompt": "x", "include": [{"class": "a", "count": true}]}', "not a whole number above 0"),
        ('{"prompt": "x", "include": [{"class": "a", "count": 1, "color": 3}]}', "`color` of a is not a text"),
        ('{"prompt": "x", "include": [{"class": "a", "count": 1, "position": ["left of", 0]}]}', "an earlier entry"),
    ],
)
def test_what_a_database_or_an_oracle_could_not_take_is_named(line, message):
    assert message in str(parse(line, name="x.jsonl").errors[0])
