"""Writes of the running system: signs of life, and the database's own shape."""

from __future__ import annotations

import time
from datetime import timedelta

from django.core.management import call_command
from django.db import OperationalError, connection
from django.utils import timezone

from webapp.operations.models import Heartbeat

FORGET = timedelta(days=1)
LOCK_WAIT = 3.0  # seconds
LOCK_TRIES = 40
LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's code


def beat(name: str, started_at) -> None:
    """The process `name` is alive. Those that were silent for a day are forgotten."""
    now = timezone.now()
    Heartbeat.objects.update_or_create(name=name, defaults={"started_at": started_at, "seen_at": now})
    Heartbeat.objects.filter(seen_at__lt=now - FORGET).delete()


def migrate() -> None:
    """Bring the database up to date while people work.

    A change of a table must wait for those who use it, and all who come later wait behind it. So it waits for LOCK_WAIT
    only, lets the others pass, and tries again. Raises OperationalError when it never got its turn.
    """
    for tries_left in reversed(range(LOCK_TRIES)):
        try:
            _set_lock_wait(LOCK_WAIT)
            call_command("migrate", interactive=False, verbosity=0)
            return
        except OperationalError as error:
            if not tries_left or getattr(error.__cause__, "pgcode", None) != LOCK_NOT_AVAILABLE:
                raise
            time.sleep(1)
        finally:
            _set_lock_wait(0)


def _set_lock_wait(seconds: float) -> None:
    if connection.vendor == "postgresql":  # SQLite has one lock, and waits for it as for any write
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {int(1000 * seconds)}")
