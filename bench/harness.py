"""What the benches share: a finished run is a line of a file, most are not made again, and tables come of such lines."""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from common.files import append_line

ROOT = Path(__file__).resolve().parents[1]
ALWAYS = ("row", "seed", "settings", "commit", "machine")  # what every line of a run has
START = "start"  # the line of the untrained student
# As in the paper's preset for GenEval, and shipped until both were compared; now the first two steps are rewarded.
EVERY_STEP = {"rl_cfg": 2.5, "trunc_steps": 4, "reward_share": 0.0}


def heading(column: str) -> str:
    """What a score is called in the results: GenEval's rule is the benchmark."""
    return "benchmark" if column == "geneval" else column


@dataclass(frozen=True)
class Run:
    """A finished run of a bench, a line of its file: the row of the table that it belongs to, its seed (None: it has none),
    what the bench was told, the commit and the machine, and what came of it. Where the last two are empty, the run is older
    than their being kept, and its page says both."""

    row: str
    seed: int | None
    settings: Mapping[str, Any] | None
    commit: str
    machine: str
    found: Mapping[str, Any]

    @classmethod
    def made_here(cls, row: str, seed: int | None, settings: Mapping[str, Any] | None, found: Mapping[str, Any]) -> Run:
        """One that was just made, in this checkout and on this machine."""
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        return cls(row, seed, settings, head.stdout.strip(), machine(), found)

    def to_json(self) -> dict:
        """Its line: plain values, `found` beside the others."""
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "found"}
        return {**named, **self.found}


def machine() -> str:
    """The processor and, where torch is in use, what it takes of it."""
    about = Path("/proc/cpuinfo")  # of Linux
    model = re.search(r"^model name\s*: (.*)$", about.read_text() if about.exists() else "", re.M)
    parts = [model[1] if model else platform.machine(), f"{os.cpu_count()} cores"]
    if torch := sys.modules.get("torch"):
        parts.append(torch.backends.cpu.get_cpu_capability())
        parts += [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join(parts)


def read(file: Path) -> list[dict]:
    """The lines of finished runs. Raises ValueError on one that lacks what every run has."""
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for number, line in enumerate(lines, 1):
        if missing := [name for name in ALWAYS if name not in line]:
            raise ValueError(f"{file}: line {number} has no {', '.join(missing)}")
    return lines


def title(line: dict) -> str:
    """The name of a run among others of its row."""
    return line["row"] if line["seed"] is None else f"{line['row']}, seed {line['seed']}"


def told(a: argparse.Namespace, *but: str) -> dict:
    """A bench's options as the settings of its runs, without those named in `but` and the folder of the runs."""
    kept = {name: value for name, value in vars(a).items() if name not in (*but, "work")}
    return {name: str(value) if isinstance(value, Path) else value for name, value in kept.items()}


def add_work(parser: argparse.ArgumentParser, name: str) -> None:
    """The option that says where a bench's runs are kept."""
    parser.add_argument("--work", type=Path, default=Path("runs") / name, help="the folder of runs.jsonl")


def keep(work: Path, run: Run) -> dict:
    """Add a run to WORK/runs.jsonl; returns its line."""
    work.mkdir(parents=True, exist_ok=True)
    append_line(work / "runs.jsonl", run.to_json())
    return run.to_json()


def svg(figure: Figure) -> bytes:
    """The figure as SVG; the same figure gives the same bytes on every machine."""
    data = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "likestep", "svg.fonttype": "none"}):
        figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    # matplotlib ends lines of paths with a space, and names what is clipped by a hash of its unrounded corners
    text = b"\n".join(line.rstrip() for line in data.getvalue().splitlines()) + b"\n"
    names = dict.fromkeys(re.findall(rb"url\(#(p[0-9a-f]{10})\)", text))
    for number, name in enumerate(names, 1):
        text = text.replace(name, b"clip%d" % number)
    return text


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


class Runs:
    """The runs of WORK/runs.jsonl, which are not made again. `settings(row)` is what a row's runs are made with now. Raises
    SystemExit on a file with runs that were made with something else, also since defaults changed."""

    def __init__(self, work: Path, settings: Callable[[str], Mapping[str, Any]]):
        self.work, self.settings, self.lines = work, settings, read(work / "runs.jsonl")
        for line in self.lines:
            now, then = settings(line["row"]), line["settings"] or {}
            if differ := [key for key in now if then.get(key) != now[key]]:
                what = " and ".join(differ).replace("_", "-")
                sys.exit(f"--work: {work} has row {line['row']} of other {what}; use another folder")

    def once(self, row: str, seed: int | None, make: Callable[[], Mapping[str, Any]]) -> dict:
        """The line of this row and seed; it is made, and told on stderr, unless it is there."""
        for line in self.lines:
            if (line["row"], line["seed"]) == (row, seed):
                return line
        self.lines.append(keep(self.work, Run.made_here(row, seed, self.settings(row), make())))
        print(json.dumps(self.lines[-1]), file=sys.stderr, flush=True)
        return self.lines[-1]


def runs_of(lines: Iterable[dict], row: str) -> list[dict]:
    """The lines of a row, one a seed."""
    return [line for line in lines if line["row"] == row]


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
    settings: Callable[[str], dict],
    make: Callable[[str, int], dict],
) -> list[dict]:
    """Every line of WORK/runs.jsonl after the missing rows and seeds were made. `make(row, seed)` gives what came of one,
    `settings(row)` what it is made with; the first row is START, which nothing was trained for. Ends as `Runs` does, and
    with the parser's error when only a table of no runs is asked for."""
    if a.table:  # of whatever settings
        return read(a.work / "runs.jsonl") or parser.error(f"--table: {a.work} has no runs yet; leave --table out")
    runs = Runs(a.work, settings)
    for name, seed in [(START, 0), *((name, seed) for seed in a.seeds for name in a.rows)]:
        runs.once(name, seed, lambda n=name, s=seed: make(n, s))
    return runs.lines
