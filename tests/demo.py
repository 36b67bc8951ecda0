"""The demo as its command starts it, from the checkout or from the wheels, for whoever looks at it through a browser."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.servers import free_port

# A small round: the demo's model and loop, few updates.
SMALL = '{"updates": 4, "validate_every": 4, "validation_images": 14, "student_batch": 8, "prompts_per_update": 4}'
AWAY = ("DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE", "PYTHONPATH", "XDG_DATA_HOME")


class Demo:
    """A demo that is up: its `address`, its `passwords` by account, what it said as `text`, and the `seconds` and the
    processors' seconds (`cpu`) that it took until then."""

    def __init__(self, command: Sequence, data: Path, *, folder: Path, **variables: str):
        """`command` is run in `folder`; `data` is where its data come to lie."""
        self.data, started = data, time.monotonic()
        environment = {k: v for k, v in os.environ.items() if k not in AWAY and not k.startswith("LIKESTEP_")}
        environment |= {"LIKESTEP_ROUND_SETTINGS": SMALL, "OMP_NUM_THREADS": "2", **variables}
        command = [*map(str, command), "--port", str(free_port())]
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if "Ctrl-C stops" in line:
                break
        self.seconds, self.text = time.monotonic() - started, "".join(lines)
        (self.address,) = re.findall(r"open (http\S+)", self.text) or pytest.fail(self.text)
        self.cpu = sum(map(cpu_seconds, [Path("/proc") / str(self.process.pid), *self._processes()]))
        self.passwords = dict(re.findall(r"log in as (\w+) with password (\S+)", self.text))

    def stop(self) -> None:
        """Ctrl-C; afterwards no process of the demo is left."""
        assert len(self.parts()) >= 6
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(30) == 0
        assert self.parts() == []

    def parts(self) -> list[str]:
        """The command lines of the processes that work on the data folder."""
        return [(process / "cmdline").read_text() for process in self._processes()]

    def _processes(self) -> list[Path]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                ours = f"LIKESTEP_DATA={self.data}\0" in (process / "environ").read_text()
                if ours or (process / "cwd").readlink() == self.data:  # Redis overwrites its environment
                    found.append(process)
        return found


def cpu_seconds(process: Path) -> float:
    """What a process, named by its folder in /proc, and its children that have ended took of the processors."""
    times = (process / "stat").read_text().rpartition(")")[2].split()[11:15]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
