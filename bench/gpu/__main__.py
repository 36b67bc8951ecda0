"""Runs the parts; see the package."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench.harness import Run, add_work, keep, told

LAST = 5.0  # seconds that are left for the tables
PLAN = "plan"


def child(name: str, a: argparse.Namespace, seconds: float, folder: Path) -> subprocess.Popen:
    """A part's process; its results are lines of its stdout."""
    command = [sys.executable, "-m", "bench.gpu", "--job", name, "--seconds", f"{seconds:.0f}", "--folder", str(folder)]
    command += ["--device", a.device, "--size", str(a.size), *(["--tiny"] if a.tiny else [])]
    errors = (folder / f"{name}.err").open("w")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)


class Told:
    """Results as they come, each printed and kept at once, whichever part tells it."""

    def __init__(self, a: argparse.Namespace):
        self.a, self.lines, self.lock = a, [], threading.Lock()

    def add(self, row: str, found: dict) -> None:
        """One result."""
        from bench.gpu.tables import line

        with self.lock:
            settings = told(self.a, "job", "seconds", "folder")
            self.lines.append(keep(self.a.work, Run.made_here(row, None, settings, found)))
            print(line(row, found), flush=True)

    def listen(self, row: str, process: subprocess.Popen) -> None:
        """All of a part's results, until it ends."""
        for text in process.stdout:
            if text.startswith("{"):
                self.add(row, json.loads(text))


def run_part(name: str, a: argparse.Namespace, seconds: float, folder: Path, results: Told) -> None:
    """A part in its own process, which is ended when its time is up. How it failed is said; nothing is raised."""
    process = child(name, a, seconds, folder)
    listener = threading.Thread(target=results.listen, args=(name, process))
    listener.start()
    end_in(process, seconds)
    listener.join()
    if process.returncode:
        said = (folder / f"{name}.err").read_text().strip().splitlines()[-1:]
        why = "its time was up" if process.returncode < 0 else f"status {process.returncode}: {' '.join(said)[:300]}"
        print(f"{name}: ended early, {why}", flush=True)


def end_in(process: subprocess.Popen, seconds: float) -> None:
    """Wait, and end the process with all that it started when the time is up."""
    try:
        process.wait(max(1.0, seconds))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()


def report(a: argparse.Namespace) -> None:
    """All parts in turn, the plans beside them, then the tables."""
    from bench.gpu.parts import PARTS
    from bench.gpu.tables import sections

    end = time.monotonic() + 60 * a.minutes - LAST
    chosen = {name: share for name, (_, share) in PARTS.items() if name in a.parts}
    results = Told(a)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / PLAN).mkdir()
        planned = any(name.startswith("memory") for name in chosen)
        beside = planned and not a.tiny  # a rehearsal's parts would wait for the plans' core
        plans = child(PLAN, a, 60 * a.minutes, folder / PLAN) if beside else None
        listener = threading.Thread(target=results.listen, args=(PLAN, plans)) if plans else None
        if listener:
            listener.start()
        for name in list(chosen):
            of_rest = chosen[name] / sum(chosen.values())
            (folder / name).mkdir()
            run_part(name, a, (end - time.monotonic()) * of_rest, folder / name, results)
            del chosen[name]
        if plans:
            end_in(plans, end - time.monotonic())
            listener.join()
        elif planned:
            run_part(PLAN, a, max(30.0, end - time.monotonic()), folder / PLAN, results)
    for name, table in sections(results.lines).items():
        print(f"\n## {name}\n\n{table}")


def run_job(a: argparse.Namespace) -> None:
    """One part, in a process of its own."""
    import torch

    from bench.gpu.parts import PARTS, Job, plans

    part = plans if a.job == PLAN else PARTS[a.job][0]
    job = Job(torch.device(a.device), a.tiny, a.size, a.seconds, a.folder)
    if a.job == PLAN:
        torch.set_num_threads(1)  # shapes only, beside parts that are timed
    for found in part(job):
        print(json.dumps(found), flush=True)


def main(arguments: list[str] | None = None) -> None:
    """See the package's docstring; `--job` is for the processes that this one starts."""
    from bench.gpu.parts import PARTS

    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="for everything together (default: %(default)s)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=512, help="pixels of an image's side (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal with tiny shapes")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    add_work(parser, "gpu")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    a = parser.parse_args(arguments)
    run_job(a) if a.job else report(a)


if __name__ == "__main__":
    main()
