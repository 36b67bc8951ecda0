"""Whatever file is given as prompts or labels, it is read or refused by line, never a failure of the server."""

import csv
import io
import json

from django.core.files.uploadedfile import SimpleUploadedFile
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from common import prompt_files
from common.prompt_files import decode, parse
from tests.common.prompt_files import GENEVAL, lines, parquet
from webapp.exports import imports

QUICK = settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from(["a.txt", "a.csv", "a.jsonl", "a.parquet", ""])
FIELDS = st.sampled_from(["prompt", "text", "split", "tag", "include", "exclude", "metadata", "group", "liked"])
LINES = st.lists(st.dictionaries(FIELDS, VALUES, max_size=5).map(json.dumps) | st.text(), max_size=6).map("\n".join)
BYTES = st.binary(max_size=400) | LINES.map(lambda text: text.encode("utf-8", "surrogatepass"))


@seed(1)
@QUICK
@given(BYTES, NAMES)
def test_any_prompt_file_is_read_or_refused_by_line(data, name):
    try:
        text = prompt_files.decode(data)
    except ValueError:  # it names the line
        return
    parsed = prompt_files.parse(text, name=name)
    for row in parsed.rows:
        assert 1 <= len(row.plain()["prompt"]) <= 1000
        json.dumps(row.plain())
    assert all(problem.line > 0 for problem in parsed.errors)


@seed(2)
@QUICK
@given(BYTES | st.binary(max_size=100).map(lambda data: b"PAR1" + data), NAMES)
def test_any_label_file_is_read_or_refused(data, name):
    rows, errors = imports.read_rows(data, name)
    assert all(isinstance(row, dict) and line > 0 for line, row in rows)
    assert rows or errors or not data.strip()


def _valid_files():
    table = io.StringIO()
    writer = csv.DictWriter(table, ["prompt", "split", "metadata"])
    writer.writeheader()
    for row in GENEVAL:
        writer.writerow({"prompt": row["prompt"], "split": "train", "metadata": json.dumps(row)})
    return {
        "p.txt": "\n".join(row["prompt"] for row in GENEVAL).encode(),
        "p.csv": table.getvalue().encode(),
        "p.jsonl": lines(*GENEVAL).encode(),
        "p.parquet": parquet(GENEVAL[:2]),
    }


FILES = _valid_files()


@st.composite
def damaged(draw):
    """(name, bytes): a good file with some bytes cut, changed or put in, or bytes of no file at all."""
    name = draw(st.sampled_from(sorted(FILES)))
    data = FILES[name]
    first, last = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
    bad = st.sampled_from([b"\n{", b"\0", b"\xff", b'"', b"\\ud800", b"1e999", b"NaN", b"[" * 2000, b"\n\n"])
    what = draw(st.sampled_from(["put in", "cut", "change", "all"]))
    if what == "all":
        return name, draw(st.binary(max_size=200))
    middle = b"" if what == "cut" else draw(st.one_of(bad, st.binary(max_size=8)))
    return name, data[:first] + middle + data[first if what == "put in" else last :]


def test_a_damaged_file_leaves_the_database_as_it_was_and_a_good_one_is_there_whole(project, boss, client):
    client.force_login(boss)

    def rows():
        return sorted(project.prompts.values_list("text", "split"))

    @settings(max_examples=80, deadline=None, derandomize=True, database=None)
    @given(damaged())
    def check(case):
        name, data = case
        before = rows()
        upload = SimpleUploadedFile(name, data)
        answer = client.post("/p/stars/prompts/", {"prompts_file": upload, "validation_share": 0, "action": "add"})
        if answer.status_code == 400:
            assert rows() == before
            return
        assert answer.status_code == 302
        parsed = parse(decode(data, name), name=name, validation=0)
        assert parsed.errors == [] and parsed.rows
        known = {text for text, _ in before}
        new = [(r.prompt, r.split) for r in parsed.rows if r.prompt not in known]
        assert rows() == sorted(before + new)

    check()
