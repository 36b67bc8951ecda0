"""A container's health check, cheap enough to run every few seconds: standard library only, no Django.

python -m webapp.operations.healthcheck web http://127.0.0.1:8000/readyz    the web server answers 200
python -m webapp.operations.healthcheck process                             the worker or beat here was alive lately
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

SILENCE = 60.0  # seconds after which a worker counts as stuck


def pulse_file() -> Path:
    """The file whose time is a worker's or beat's last sign of life: in its container's own temporary folder."""
    return Path(tempfile.gettempdir()) / "likestep-pulse"


def web(address: str) -> str:
    """Empty when the address answers 200, else what is wrong. Asks as a visitor of the first allowed host would."""
    host = os.environ.get("ALLOWED_HOSTS", "").split(",")[0].strip().lstrip(".").replace("*", "localhost")
    request = urllib.request.Request(address, headers={"Host": host or "localhost", "X-Forwarded-Proto": "https"})
    try:
        with urllib.request.urlopen(request, timeout=6):
            return ""
    except urllib.error.HTTPError as error:
        return f"{address} answered {error.code}: {error.read(2000).decode(errors='replace')}"
    except OSError as error:
        return f"{address} does not answer: {error}"


def process() -> str:
    """Empty when this container's worker or beat was alive within the last minute, else what is wrong."""
    try:
        age = time.time() - pulse_file().stat().st_mtime
    except OSError:
        return "the process has not started yet"
    return "" if age < SILENCE else f"the last sign of life is {age:.0f} s old"


def main(arguments: list[str]) -> int:
    """0 when healthy; else 1, with one line that says why."""
    match arguments:
        case ["web", address]:
            problem = web(address)
        case ["process"]:
            problem = process()
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    if problem:
        print(problem)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
