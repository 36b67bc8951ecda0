"""Send the API and the pages thousands of requests, valid and not; none may end in a server error.

    python -m bench.faults.fuzz --requests 10000 --write docs/results/fuzz.md

It is the suite's tests with more examples: tests/webapp/api/test_fuzz.py says what the API is sent, made from its own
description, and tests/webapp/test_page_fuzz.py what the pages' forms are filled with.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

from bench.harness import Run, add_work, keep, told

ROOT = Path(__file__).resolve().parents[2]
API, PAGES = "tests/webapp/api/test_fuzz.py", "tests/webapp/test_page_fuzz.py"


def operations() -> int:
    """How many operations the API has, by asking pytest for the test's cases."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", API], cwd=ROOT, capture_output=True, text=True
    )
    return run.stdout.count("::test_it_never_fails[")


def asks(case: ET.Element) -> bool:
    """Whether a test's case sent requests, or failed before it could; others look at the requests that are made."""
    counted = any(p.get("name") == "statuses" for p in case.iter("property"))
    return counted or any(case.find(wrong) is not None for wrong in ("failure", "error"))


def main() -> int:
    """Run, print, and tell by the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000, help="the API gets at least as many")
    parser.add_argument("--write", type=Path, help="a Markdown file for the result")
    add_work(parser, "fuzz")
    a = parser.parse_args()
    # Some operations run out of different requests before the others; hence a quarter more.
    examples = -(-5 * a.requests // (4 * operations()))
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--timeout",
            "7200",
            "-o",
            "junit_family=xunit1",
            f"--junitxml={report}",
            API,
            PAGES,
        ]
        failed = subprocess.run(command, cwd=ROOT, env={**os.environ, "LIKESTEP_FUZZ": str(examples)}).returncode
        cases = [case for case in ET.parse(report).iter("testcase") if asks(case)]
    seconds, total, statuses, rows, asked = time.monotonic() - started, Counter(), Counter(), [], []
    for case in cases:
        values = {p.get("name"): p.get("value") for p in case.iter("property")}
        counts = {int(k): v for k, v in json.loads(values.get("statuses", "{}")).items()}
        statuses.update(counts)
        kind = "API" if case.get("name").startswith("test_it_never_fails") else "pages"
        total[kind] += sum(counts.values())
        name = case.get("name").partition("[")[2].removesuffix("]")
        shown = ", ".join(f"{status}: {n}" for status, n in sorted(counts.items())) or "failed"
        asked.append({"kind": kind, "name": name, "statuses": counts, "failed": not counts})
        rows.append(f"| {kind} | `{name}` | {sum(counts.values())} | {shown} |")
    ended = ", ".join(f"{n} with {status}" for status, n in sorted(statuses.items()))
    failures = sum(1 for case in cases if case.find("failure") is not None or case.find("error") is not None)
    run = Run.made_here("requests", None, told(a, "write"), {"seconds": seconds, "asked": asked, "failures": failures})
    keep(a.work, run)
    text = f"""# The API and the forms under random requests

`python -m bench.faults.fuzz --requests {a.requests}`, commit {run.commit}: {total["API"]} requests to the API and
{total["pages"]} to pages in {seconds:.0f} s; {failures} of {len(cases)} kinds of request met a server error. They ended
{ended}.

| | operation or form | requests | answers by status |
|---|---|---|---|
{chr(10).join(rows)}
"""
    print(text)
    if a.write:
        a.write.write_text(text)
    return 1 if failed or total["API"] < a.requests else 0


if __name__ == "__main__":
    sys.exit(main())
