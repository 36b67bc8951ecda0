"""Whatever file is given as prompts or labels, it is read or refused by line, never a failure of the server."""

import json

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from webapp.campaigns import prompt_files
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
