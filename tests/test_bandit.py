"""bandit finds nothing that docs/security.md does not explain, and the table there has no row that it no longer needs."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCANNED = ["webapp", "trainer", "workers", "client", "likestep", "launcher", "manage.py"]


def explained() -> list[tuple[str, str]]:
    """(rule, path) pairs of the table."""
    text = (ROOT / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| ((?:B\d{3}(?:, )?)+) \| (.+?) \| .+ \|$", text, re.M)
    return [
        (rule, path) for rules, paths in rows for rule in rules.split(", ") for path in re.findall("`(.+?)`", paths)
    ]


def test_every_finding_is_explained():
    command = [sys.executable, "-m", "bandit", "--quiet", "--recursive", *SCANNED, "--format", "json"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = json.loads(run.stdout)
    assert found["errors"] == []
    assert len(found["metrics"]) > 100, "it looked at too few files"
    used, unexplained = set(), []
    for one in found["results"]:
        where = one["filename"].removeprefix("./")
        rows = {(rule, path) for rule, path in explained() if rule == one["test_id"] and where.startswith(path)}
        used |= rows
        if not rows or one["issue_severity"] == "HIGH":
            unexplained.append(f"{one['test_id']} {where}:{one['line_number']}: {one['issue_text']}")
    assert unexplained == []
    assert set(explained()) - used == set(), "rows of docs/security.md without a finding"
