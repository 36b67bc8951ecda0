"""Every command that a document tells people to type exists, with all its options."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

from common import __version__
from launcher import main as launcher
from trainer.cli import build_parser

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    [*(ROOT / name for name in ("README.md", "models/README.md", "bench/README.md")), *(ROOT / "docs").rglob("*.md")]
)
BENCHES = sorted((ROOT / "bench").rglob("*.py"))


def code_lines(path):
    """(line number, command) of a document's code blocks; a trailing backslash joins lines."""
    inside, waiting = False, ""
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if line.lstrip().startswith("```"):
            inside = not inside
        elif inside and line.rstrip().endswith("\\"):
            waiting += line.rstrip()[:-1] + " "
        elif inside:
            yield number, (waiting + line).strip()
            waiting = ""


def commands(path, marker):
    """(line number, words after the marker) of the commands that have it."""
    for number, line in code_lines(path):
        if re.search(rf"(^|[ /]){re.escape(marker)} ", line):
            words = shlex.split(line.split(marker, 1)[1], comments=True)
            if words and not words[0].isupper() and "…" not in words:
                yield number, words


def named():
    """Every trainer and manage.py command of the documents, as test cases."""
    for path in DOCUMENTS:
        for marker in ("-m trainer", "manage.py"):
            for number, words in commands(path, marker):
                where = f"{path.relative_to(ROOT)}:{number}"
                yield pytest.param(marker, words, id=f"{where} {words[0]}")


def trainer_commands():
    actions = build_parser()._subparsers._group_actions
    return {name: parser for action in actions for name, parser in action.choices.items()}


def options_of(parser):
    return {option for action in parser._actions for option in action.option_strings}


@pytest.mark.parametrize(("marker", "words"), list(named()))
def test_a_documents_command_is_understood(marker, words, capsys):
    if marker == "-m trainer":
        if words[0] == "--help":
            return
        parser = build_parser()
    else:
        name = words[0]
        assert name in get_commands(), name
        parser, words = load_command_class(get_commands()[name], name).create_parser("manage.py", name), words[1:]
    try:
        parser.parse_args(words)
    except (SystemExit, Exception) as error:
        pytest.fail(f"{' '.join(words)}: {error} {capsys.readouterr().err[-300:]}")


def test_the_run_book_has_the_whole_way():
    """Every model, and each from plan to export."""
    words = [w for _, w in commands(ROOT / "docs" / "run-a-real-model.md", "-m trainer")]
    for model, first in (("models/sd35", "generate"), ("models/zimage", "distill"), ("models/klein", "distill")):
        mine = [w[0] for w in words if model in w]
        assert [mine.count(c) > 0 for c in ("plan", first, "evaluate", "train", "export")] == [True] * 5


def test_the_run_book_names_every_rung_of_a_12_gb_card():
    """By itself, and each that makes a larger model fit, by hand."""
    words = [w for _, w in commands(ROOT / "docs" / "run-a-real-model.md", "-m trainer")]
    trained = [w for w in words if w[0] == "train"]
    assert any("--auto" in w for w in trained)
    for option, value in (("--weights", "int8"), ("--weights", "nf4"), ("--streamed", "2")):
        assert any(option in w and w[w.index(option) + 1] == value for w in words), (option, value)
    assert sum("12GB" in w for w in words if w[0] == "plan") >= 3


def test_every_setting_that_the_run_book_turns_exists():
    text = (ROOT / "docs" / "run-a-real-model.md").read_text().split("## 6.")[1]
    named = {word for code in re.findall(r"`([^`]*)`", text) for word in re.findall(r"--[a-z][a-z-]*", code)}
    known = options_of(trainer_commands()["train"])
    assert len(named) > 15 and named <= known, named - known


def test_documents_link_to_files_that_exist():
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text()):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.relative_to(ROOT)}: {target}"


def test_documents_name_files_that_exist():
    rooms = "tests|trainer|webapp|workers|common|bench|launcher|static|templates|deploy|configs|client|packaging"
    for path in DOCUMENTS:
        for file in re.findall(rf"`((?:{rooms})/[\w./-]+)`", path.read_text()):
            assert (ROOT / file).exists(), f"{path.relative_to(ROOT)}: {file}"


def test_a_usual_change_needs_at_most_three_files():
    table = (ROOT / "docs" / "architecture.md").read_text().split("## Usual changes")[1]
    rows = re.findall(r"^\| ([^|]+) \| (.+) \|$", table, re.M)[1:]
    assert len(rows) == 10
    for change, needs in rows:
        files = [file for file in re.findall(r"`([\w./-]+)`", needs) if "/" in file or file.endswith(".md")]
        files = [file for file in files if not file.startswith("tests/")]
        either = len(re.findall(r"\([^)]*`[^)]*, [^)]*`[^)]*\)", needs))  # of which a change needs one
        assert 1 <= len(files) - either <= 3, (change, files)
        assert all((ROOT / file).exists() for file in files), (change, files)


def module_of(file):
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("file", BENCHES, ids=module_of)
def test_a_bench_finds_what_it_imports(file):
    importlib.import_module(module_of(file))


def test_documented_benches_exist():
    """As the modules that they are run as, and as files."""
    modules, seen = {module_of(file) for file in BENCHES}, 0
    for path in [*DOCUMENTS, *BENCHES]:
        text = path.read_text()
        for name in re.findall(r"python -m (bench[\w.]*\w)", text):
            assert name in modules, f"{path.relative_to(ROOT)}: python -m {name}"
            seen += 1
        for name in re.findall(r"(?<!tests/)\bbench/[\w/]+\.py", text):
            assert (ROOT / name).exists(), f"{path.relative_to(ROOT)}: {name}"
        assert not re.search(r"python bench/\w", text), f"{path.relative_to(ROOT)}: benches are modules, run with -m"
    assert seen > 40


def test_documented_commands_of_likestep_exist():
    known = {*launcher.COMMANDS, *launcher.MANAGED, *launcher.trainer_commands(), "test", "help"}
    seen = 0
    for path in DOCUMENTS:
        for name in re.findall(r"(?:^|`|\./|uvx )likestep ([a-z][a-z-]*)", path.read_text(), re.M):
            assert name in known, f"{path.relative_to(ROOT)}: likestep {name}"
            seen += 1
    assert seen > 5


def test_the_changelog_has_this_version():
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == "Unreleased"
    assert headings[1] == __version__


def test_every_decision_has_a_date_and_a_status_newest_first():
    text = (ROOT / "docs" / "decisions.md").read_text()
    _, *entries = re.split(r"^## ", text, flags=re.M)
    lines = [re.match(r".+\n\n\*(\d{4}-\d\d-\d\d) · (in force|overturned)\b[^\n]*\*\n\n\S", entry) for entry in entries]
    wrong = [entry.splitlines()[0] for entry, line in zip(entries, lines, strict=True) if not line]
    assert not wrong and len(entries) > 100
    dates = [line[1] for line in lines]
    assert dates == sorted(dates, reverse=True)
    assert not re.search(r"^- \*\*", text, re.M), "a decision is a heading with its date and status, not a list's item"
    anchors = {re.sub(r"[^\w\- ]", "", entry.splitlines()[0].lower()).replace(" ", "-") for entry in entries}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors
