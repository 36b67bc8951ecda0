"""What the benches of many runs share: finished runs are lines of a file and are not made again."""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure

from common.files import append_line

START = "start"  # the line of the untrained student
# As in the paper's preset for GenEval, and shipped until both were compared; now the first two steps are rewarded.
EVERY_STEP = {"rl_cfg": 2.5, "trunc_steps": 4, "reward_share": 0.0}


def heading(column: str) -> str:
    """What a score is called in the results: GenEval's rule is the benchmark."""
    return "benchmark" if column == "geneval" else column


def read(file: Path) -> list[dict]:
    """The lines of finished runs."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def made_here() -> dict[str, str]:
    """What every line of a run says beside its settings and what came of it: the commit and the machine. Lines of before
    this was noted lack it; their pages say both."""
    run = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    return {"commit": run.stdout.strip(), "machine": machine}


def svg(figure: Figure) -> bytes:
    """The figure as SVG; the same figure gives the same bytes."""
    data = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "likestep", "svg.fonttype": "none"}):
        figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    # matplotlib ends lines of paths with a space
    return b"\n".join(line.rstrip() for line in data.getvalue().splitlines()) + b"\n"


def spread(values: list[float], sign: str = "+") -> str:
    """`+.107 ± .030`: mean and standard deviation. `sign` "-" is for values that are no gains."""
    text = f"{statistics.mean(values):{sign}.3f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.3f}"


def with_starts(lines: list[dict]) -> list[tuple[dict, dict]]:
    """Each run with the START line that its gain is over: the last one above it, since in later code the same student may
    round otherwise."""
    start, found = {}, []
    for line in lines:
        if line["row"] == START:
            start = line
        else:
            found.append((line, start))
    return found


class Parts:
    """Named parts of a bench, each a line of a file with what it came to and what the bench was told. Raises SystemExit on
    a file with parts of a bench that was told otherwise."""

    def __init__(self, file: Path, made_with: dict):
        file.parent.mkdir(parents=True, exist_ok=True)
        self.file, self.made_with, self.lines = file, made_with, {line["name"]: line for line in read(file)}
        for line in self.lines.values():
            if line["made_with"] != made_with:
                sys.exit(f"--work: {file} has parts made with {line['made_with']}, not {made_with}; use another folder")

    def once(self, name: str, make: Callable[[], dict]) -> None:
        """Make the part unless it is there, and tell on stderr what came of it."""
        if name not in self.lines:
            self.lines[name] = {"name": name, "made_with": self.made_with, **made_here(), **make()}
            append_line(self.file, self.lines[name])
            print(json.dumps(self.lines[name]), file=sys.stderr, flush=True)


def seeds_of(lines: Iterable[dict], row: str) -> list[dict]:
    """The lines of a part that was made once for each seed, named `row, seed N`."""
    return [line for line in lines if line["name"].startswith(f"{row}, seed ")]


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(
        [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *(f"| {' | '.join(r)} |" for r in rows)]
    )


def mean_row(lines: list[dict], columns: Iterable[str]) -> list[str]:
    """The cells `.745 ± .012` of each column over runs whose lines have `scores`."""
    return [spread([line["scores"][column] for line in lines], sign="-") for column in columns]


def parser_of_rows(description: str, rows: Iterable[str], work: Path) -> argparse.ArgumentParser:
    """The options of a table of rows over seeds."""
    rows = list(rows)
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=rows, default=rows, metavar="ROW", help=", ".join(rows))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--per-tag", type=int, default=96, help="images a tag of a test")
    parser.add_argument(
        "--settings", type=json.loads, default={}, help="JSON of settings; what a row itself sets stays"
    )
    parser.add_argument("--table", action="store_true", help="only print the table and draw the plot")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=work)
    return parser


def make_missing(
    parser: argparse.ArgumentParser,
    a: argparse.Namespace,
    made_with: Callable[[str], dict],
    make: Callable[[str, int], dict],
) -> list[dict]:
    """Every line of WORK/runs.jsonl after the missing rows and seeds were made. `make(row, seed)` gives a line's values,
    `made_with(row)` what it is made with; the first row is START, which nothing was trained for. Ends with the parser's
    error when the file has runs that were made with something else, also since defaults changed, or none."""
    torch.set_num_threads(a.threads)
    file = a.work / "runs.jsonl"
    plan = [] if a.table else [(START, 0), *((name, seed) for seed in a.seeds for name in a.rows)]
    for name, seed in plan:
        lines = read(file)
        for line in lines:
            wanted = made_with(line["row"])
            if differ := [key for key in wanted if line["made_with"].get(key) != wanted[key]]:
                what = " and ".join(differ).replace("_", "-")
                parser.error(f"--work: {file} has row {line['row']} of other {what}; use another folder")
        if any((line["row"], line["seed"]) == (name, seed) for line in lines):
            continue
        a.work.mkdir(parents=True, exist_ok=True)
        append_line(file, {"row": name, "seed": seed, "made_with": made_with(name), **made_here(), **make(name, seed)})
        print(file.read_text().splitlines()[-1], flush=True)
    lines = read(file)
    if not lines:
        parser.error(f"--table: {file} has no runs yet; run without --table first")
    return lines
