"""Reads of the running system: whether it can work."""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import redis
from django.conf import settings
from django.db import connection


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _redis() -> None:
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2)
    try:
        client.ping()
    finally:
        client.close()


def _storage() -> None:
    with tempfile.TemporaryFile(dir=settings.LIKESTEP_DATA) as file:
        file.write(b"likestep")
        file.flush()


CHECKS: dict[str, Callable[[], None]] = {"database": _database, "redis": _redis, "storage": _storage}


def readiness() -> dict[str, str]:
    """What everything rests on, each "ok" or the sentence that says what is wrong: database, redis, storage."""
    found = {}
    for name, check in CHECKS.items():
        try:
            check()
            found[name] = "ok"
        except Exception as error:  # whatever a client raises, it is what is wrong
            found[name] = f"{type(error).__name__}: {error}".strip()
    return found
