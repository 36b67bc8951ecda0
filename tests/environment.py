"""The environment that Django's settings read, and real servers behind it; a pytest plugin, since it must come first.

PostgreSQL and Redis are started from wheels unless DATABASE_URL and REDIS_URL name others; LIKESTEP_TEST_DB=sqlite runs
the suite on SQLite. One thread a process: the suite runs beside others on small machines. Under pytest-xdist the
processes share the servers that the first one started, each with a database of its own in both.
"""

import os
from urllib.parse import urlsplit, urlunsplit

from tests.servers import start_postgres, start_redis, temporary_folder

STOP = []

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not take a core from the other process
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ["LIKESTEP_DATA"] = str(temporary_folder("data"))
os.environ["DEBUG"] = "1"
if "REDIS_URL" not in os.environ:
    _process, os.environ["REDIS_URL"] = start_redis(temporary_folder("redis"))
    STOP.append(_process.kill)
if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # gw0, gw1, …
    os.environ["REDIS_URL"] = urlunsplit(urlsplit(os.environ["REDIS_URL"])._replace(path=f"/{int(worker[2:]) + 1}"))
if os.environ.get("LIKESTEP_TEST_DB") == "sqlite":
    os.environ["DATABASE_URL"] = f"sqlite:///{temporary_folder('db') / 'db.sqlite3'}"
elif "DATABASE_URL" not in os.environ:
    _server, os.environ["DATABASE_URL"] = start_postgres(temporary_folder("pg"))
    STOP.append(_server.cleanup)


def pytest_unconfigure(config):
    """Stop what was started."""
    for stop in STOP:
        stop()
