"""A PostgreSQL of the machine's own, with what pgserver's interface has of it: Label Studio needs pg_trgm and btree_gin,
which the wheel lacks, and both sides of a comparison get the same server. Settings are PostgreSQL's defaults."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def programs() -> Path:
    """The folder of the newest server programs that Debian installs (package postgresql)."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if not found:
        raise SystemExit("--label-studio: install a PostgreSQL with its contrib modules, Debian's package postgresql")
    return found[-1].parent


class Postgres:
    """A server in `folder`, whose socket is there too. Where this is root it runs as the user postgres."""

    def __init__(self, folder: Path):
        self.folder, self.programs = folder, programs()
        folder.mkdir()
        self.user = {"user": "postgres"} if os.geteuid() == 0 else {}
        if self.user:
            shutil.chown(folder, "postgres")
        self._run("initdb", "-D", folder, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale", "C.UTF-8")
        self.ensure_postgres_running()

    def _run(self, program: str, *arguments, text: str | None = None) -> str:
        command = [self.programs / program, *arguments]
        run = subprocess.run(command, input=text, capture_output=True, text=True, cwd="/", **self.user)
        if run.returncode:
            raise RuntimeError(f"{program}: {run.stderr or run.stdout}")
        return run.stdout

    def ensure_postgres_running(self) -> None:
        """Start it."""
        # Its output goes to a file: a server that keeps a pipe open would be waited for.
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder}"
        self._run("pg_ctl", "-D", self.folder, "-w", "-l", self.folder / "log", "-o", options, "start")

    def psql(self, sql: str, database: str = "postgres") -> str:
        """Run statements; rows without alignment."""
        return self._run("psql", "-h", self.folder, "-U", "postgres", "-d", database, "-At", text=sql)

    def cleanup(self) -> None:
        """Stop it."""
        self._run("pg_ctl", "-D", self.folder, "-m", "fast", "-w", "stop")
