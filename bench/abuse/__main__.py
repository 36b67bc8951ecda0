"""Runs the checks; see the package."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path

from bench.abuse import CHECKS, Instance, Outcome
from bench.harness import Run, add_work, keep

MODULES = ("network", "members")  # of this package


def main(arguments: list[str] | None = None) -> int:
    """A line for each check; 1 where the instance did not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.abuse", description=__doc__)
    parser.add_argument("address", help="of a running instance of your own, for example http://127.0.0.1:8000")
    parser.add_argument("--project", default="demo")
    parser.add_argument(
        "--secrets",
        type=Path,
        help="JSON with LIKESTEP_ANNOTATOR_PASSWORD and LIKESTEP_ADMIN_PASSWORD, as ./likestep demo writes "
        "(data/secrets.json); else they come from the environment",
    )
    parser.add_argument("--only", default="", help="names of checks, with commas between")
    add_work(parser, "abuse")
    a = parser.parse_args(arguments)
    for module in MODULES:
        import_module(f"bench.abuse.{module}")
    known = json.loads(a.secrets.read_text()) if a.secrets else os.environ
    names = ("annotator", "admin")
    passwords = {name: known.get(f"LIKESTEP_{name.upper()}_PASSWORD", "") for name in names}
    instance = Instance(a.address.rstrip("/"), a.project, passwords)
    wanted = [name.strip() for name in a.only.split(",") if name.strip()] or list(CHECKS)
    if unknown := set(wanted) - set(CHECKS):
        parser.error(f"--only: there is no check {', '.join(sorted(unknown))}; there are {', '.join(CHECKS)}")
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
        keep(a.work, Run.made_here(name, None, {"project": a.project}, found))
        print(f"{'held    ' if outcome.held else 'NOT HELD'} {name}: {outcome.seen} ({took:.0f} s)", flush=True)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
