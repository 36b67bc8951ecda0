"""Waiting for a database that is away: what it alone knows cannot be decided without it, and it comes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from django.db import InterfaceError, OperationalError, close_old_connections

AWAY = (OperationalError, InterfaceError)  # what the database's restart looks like
LONGEST_WAIT = 300  # seconds
T = TypeVar("T")


def patiently(ask: Callable[[], T]) -> T:
    """What `ask` returns; asked again for as long as the database is away, so it must be one transaction that may be sent
    twice. Raises one of `AWAY` after `LONGEST_WAIT`."""
    deadline = time.monotonic() + LONGEST_WAIT
    while True:
        try:
            return ask()
        except AWAY:
            if time.monotonic() > deadline:
                raise
            close_old_connections()
            time.sleep(1)
