"""Who may import whom, and that the picture in docs/architecture.md shows it."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_imports_point_down():
    run = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:]


def test_the_picture_shows_the_layers():
    contracts = configparser.ConfigParser(allow_no_value=True)
    contracts.read(ROOT / ".importlinter")
    layers = contracts["importlinter:contract:apps"]["layers"].replace("webapp.", "").split("\n")[1:]
    page = (ROOT / "docs/architecture.md").read_text()
    picture = page.partition("└── webapp")[2].partition("```")[0]
    shown = [line.strip(" ├└─").split("   ")[0].strip() for line in picture.splitlines()[1:]]
    assert shown[: len(layers)] == [layer.replace(" | ", ", ") for layer in layers]


def test_no_test_imports_another():
    """What several tests need is in a conftest or in a module of helpers."""
    for folder in ("webapp", "workers", "e2e", "client"):
        for file in (ROOT / "tests" / folder).rglob("*.py"):
            assert not re.search(r"\btests\.[\w.]*\btest_", file.read_text()), file


def test_usual_changes_need_three_files_at_most():
    rows = (ROOT / "docs/architecture.md").read_text().partition("## Usual changes")[2].splitlines()
    rows = [row.strip("|").split("|") for row in rows if row.startswith("| ") and "---" not in row][1:]
    assert len(rows) >= 10
    for change, files in rows:
        named = re.findall(r"`((?:webapp|trainer|common|templates|static|docs)/[\w./]+|README\.md)`", files)
        assert 1 <= len(named) <= 3, change
        assert all((ROOT / name).exists() for name in named), (change, named)
