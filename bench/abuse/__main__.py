"""Runs the checks; see the package."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

from bench.abuse import CHECKS, Instance, Outcome
from bench.harness import Run, add_work, keep

MODULES = ("network", "crowds", "sockets", "members", "inputs")  # of this package
DATABASES = ("sqlite", "postgresql")


def main(arguments: list[str] | None = None) -> int:
    """A line for each check; 1 where the instance did not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.abuse", description=__doc__)
    parser.add_argument(
        "address", nargs="?", help="of a running instance of your own, for example http://127.0.0.1:8000"
    )
    parser.add_argument("--on", choices=DATABASES, help="start an instance on this database; both without an address")
    parser.add_argument("--project", default="demo")
    parser.add_argument(
        "--secrets",
        type=Path,
        help="JSON with LIKESTEP_ANNOTATOR_PASSWORD and LIKESTEP_ADMIN_PASSWORD, as ./likestep demo writes "
        "(data/secrets.json); else they come from the environment",
    )
    parser.add_argument("--only", default="", help="names of checks, with semicolons between")
    add_work(parser, "abuse")
    a = parser.parse_args(arguments)
    for module in MODULES:
        import_module(f"bench.abuse.{module}")
    wanted = [name.strip() for name in a.only.split(";") if name.strip()] or list(CHECKS)
    if unknown := set(wanted) - set(CHECKS):
        parser.error(f"--only: there is no check {', '.join(sorted(unknown))}; there are {'; '.join(CHECKS)}")
    if a.address:
        known = json.loads(a.secrets.read_text()) if a.secrets else os.environ
        passwords = {name: known.get(f"LIKESTEP_{name.upper()}_PASSWORD", "") for name in ("annotator", "admin")}
        return run(Instance(a.address.rstrip("/"), a.project, passwords), wanted, a.work)
    if a.on is None:  # each in a process of its own: Django is set up for one database
        again = [sys.executable, "-m", "bench.abuse", "--only", a.only, "--work", str(a.work), "--on"]
        return max(subprocess.run([*again, database]).returncode for database in DATABASES)
    from bench.abuse.host import running

    with running(a.on) as instance:
        print(f"on {a.on}:", flush=True)
        return run(instance, wanted, a.work, a.on)


def run(instance: Instance, wanted: list[str], work: Path, database: str = "") -> int:
    """The checks of these names, a line each, kept in `work`; 1 when one was not held."""
    held = True
    for name in wanted:
        started = time.monotonic()
        try:
            outcome = CHECKS[name](instance)
        except Exception as error:  # what breaks the attack's own client is a finding like any other
            outcome = Outcome(False, f"{type(error).__name__}: {error}"[:300])
        held &= outcome.held
        took = time.monotonic() - started
        found = {"held": outcome.held, "seen": outcome.seen, "seconds": took}
        keep(work, Run.made_here(name, None, {"project": instance.project, "database": database}, found))
        print(f"{'held    ' if outcome.held else 'NOT HELD'} {name}: {outcome.seen} ({took:.0f} s)", flush=True)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
