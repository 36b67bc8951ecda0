"""The commands of `likestep`. Each imports what it needs when it runs, so that help comes at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from common import __version__

QUEUES = ("generate", "train", "oracle")
# Django's management commands that an administrator needs; `manage` has all the others.
MANAGED = {
    "setup": "migrate the database, make the first accounts and the demo project",
    "backup": "write database and files into one archive",
    "restore": "bring a back-up back",
}


def demo(arguments: list[str]) -> int:
    """everything on this machine: database, Redis, web server and workers"""
    from launcher.demo import demo

    return demo(arguments)


def serve(arguments: list[str]) -> int:
    """the web server; --host and --port"""
    from webapp.serve import main

    main(arguments)
    return 0


def worker(arguments: list[str]) -> int:
    """a worker for one queue or several; further options are Celery's"""
    parser = argparse.ArgumentParser(prog="likestep worker", description=worker.__doc__)
    parser.add_argument("--queue", action="append", choices=QUEUES, help="may be given more than once; all by default")
    a, rest = parser.parse_known_args(arguments)
    queues = a.queue or QUEUES
    name = f"{'-'.join(queues)}@%h"
    return _celery(["worker", "--pool", "solo", "--loglevel", "INFO", "-n", name, "-Q", ",".join(queues), *rest])


def beat(arguments: list[str]) -> int:
    """the clock that starts housekeeping; one for all machines. Options are Celery's"""
    from django.conf import settings

    schedule = str(settings.LIKESTEP_DATA / "beat-schedule")
    return _celery(["beat", "--loglevel", "WARNING", "--schedule", schedule, *arguments])


def _celery(arguments: list[str]) -> int:
    from celery.__main__ import main

    sys.argv = ["likestep", "-A", "workers.app", *arguments]
    return main()


def doctor(arguments: list[str]) -> int:
    """a table of what this machine has, and what to do about what is missing"""
    from launcher.doctor import doctor

    return doctor(arguments)


def manage(arguments: list[str]) -> int:
    """any of Django's management commands, such as migrate and collectstatic"""
    from django.core.management import execute_from_command_line

    execute_from_command_line(["likestep manage", *arguments])
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "demo": demo,
    "doctor": doctor,
    "serve": serve,
    "worker": worker,
    "beat": beat,
    "manage": manage,
}


def trainer_commands() -> dict[str, str]:
    """The trainer's commands with a line of help each."""
    from trainer.cli import build_parser

    (commands,) = build_parser()._subparsers._group_actions
    return {action.dest: action.help for action in commands._choices_actions}


def usage() -> str:
    """What `likestep help` prints."""
    here = {name: command.__doc__ for name, command in COMMANDS.items()}
    parts = [("everything", here), ("server", MANAGED), ("models, without the web app", trainer_commands())]
    lines = ["usage: likestep COMMAND [OPTIONS]; likestep COMMAND --help has a command's options"]
    for title, commands in parts:
        lines += ["", f"{title}:", *(f"  {name:<12} {text}" for name, text in commands.items())]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run one command; its exit status."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("help", [])
    if name in ("help", "--help", "-h"):
        print(usage())
        return 0
    if name in ("version", "--version"):
        print(f"likestep {__version__}")
        return 0
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
    if name in COMMANDS:
        return COMMANDS[name](rest) or 0
    if name in MANAGED:
        return manage([name, *rest])
    if name in trainer_commands():
        from trainer.cli import main as train

        return train(arguments, "likestep")
    print(f"likestep: there is no command {name!r}\n\n{usage()}", file=sys.stderr)
    return 2


def run() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))
