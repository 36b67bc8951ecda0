"""A run is one line that says what made it; finished ones are not made again."""

import argparse
import json
import re
from pathlib import Path

import pytest

from bench.harness import ALWAYS, Run, Runs, keep, make_missing, parser_of_rows, read, runs_of, title, told
from bench.pages import RESULTS

BENCH = Path(__file__).resolve().parents[2] / "bench"


def test_a_line_says_row_seed_settings_commit_and_machine(tmp_path):
    made = keep(tmp_path, Run.made_here("plain", 3, {"updates": 4}, {"score": 0.5}))
    assert read(tmp_path / "runs.jsonl") == [made]
    assert set(made) == {*ALWAYS, "score"} and title(made) == "plain, seed 3"
    assert re.search(r"\d+ cores", made["machine"])


def test_a_finished_run_is_not_made_again(tmp_path):
    made = []
    for _ in range(2):
        runs = Runs(tmp_path, lambda row: {"updates": 4})
        for seed in (0, 1):
            runs.once("plain", seed, lambda s=seed: made.append(s) or {"score": s})
    assert made == [0, 1] and [line["score"] for line in runs_of(runs.lines, "plain")] == [0, 1]


def test_runs_of_other_settings_are_named(tmp_path):
    keep(tmp_path, Run.made_here("plain", 0, {"updates": 4, "per_tag": 8}, {}))
    with pytest.raises(SystemExit, match="row plain of other per-tag; use another folder"):
        Runs(tmp_path, lambda row: {"updates": 4, "per_tag": 9})


def test_a_table_is_of_runs_of_any_settings(tmp_path):
    keep(tmp_path, Run.made_here("plain", 0, {"updates": 4}, {}))
    parser = parser_of_rows("", ["plain"], tmp_path)
    lines = make_missing(parser, parser.parse_args(["--table"]), lambda row: {"updates": 5}, lambda row, seed: 1 / 0)
    assert [title(line) for line in lines] == ["plain, seed 0"]
    with pytest.raises(SystemExit):
        make_missing(parser, parser.parse_args(["--table", "--work", str(tmp_path / "none")]), dict, dict)


def test_options_are_settings_but_for_the_folder():
    a = argparse.Namespace(seed=1, model=Path("models/demo"), threads=2, work=Path("runs"))
    assert told(a, "threads") == {"seed": 1, "model": "models/demo"}


def test_a_line_without_what_every_run_has_is_named(tmp_path):
    (tmp_path / "runs.jsonl").write_text(json.dumps({"row": "plain", "seed": 0}) + "\n")
    with pytest.raises(ValueError, match="line 1 has no settings, commit, machine"):
        read(tmp_path / "runs.jsonl")


def test_every_bench_keeps_its_runs():
    commands = [
        f for f in BENCH.rglob("*.py") if 'if __name__ == "__main__":' in f.read_text() and f.name != "pages.py"
    ]
    assert len(commands) >= 20
    kept = ("made_here(", "Runs(", "make_missing(")
    assert [str(f.relative_to(BENCH)) for f in commands if not any(call in f.read_text() for call in kept)] == []


def test_every_committed_run_has_a_page():
    elsewhere = {"cards"}  # the table of docs/memory.md
    assert all(f"runs/{name}" in (RESULTS.parent / "memory.md").read_text() for name in elsewhere)
    pages = {f.stem for f in RESULTS.glob("*.md")} | elsewhere
    assert {f.parent.name for f in RESULTS.glob("runs/*/runs.jsonl")} <= pages


def test_pages_without_runs_say_so():
    """Or show what their command printed, and at which commit."""
    for page in RESULTS.glob("*.md"):
        text = page.read_text()
        printed = re.match(r"# .*\n\n`python -m bench\.\S+`, commit [0-9a-f]{7}\.", text) and "```\n" in text
        if not (RESULTS / "runs" / page.stem / "runs.jsonl").exists():
            assert printed or "before runs were kept" in text or "**Nothing of Likestep has run" in text, page.name
