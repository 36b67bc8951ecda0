"""Signs of life of a worker or of beat: a file for its container's health check, a row for everybody else.

A worker is alive while it works on a task or its event loop turns; beat is alive while it gets its tasks to the broker. One
that hangs in neither goes silent, and is seen to be.
"""

from __future__ import annotations

import logging
import socket
import threading
import time

from celery import signals
from django.db import close_old_connections
from django.utils import timezone

from webapp.operations.healthcheck import SILENCE, pulse_file
from webapp.operations.services import beat

log = logging.getLogger(__name__)
EVERY = 5.0  # seconds


class Pulse:
    """Beats from a thread, so also through a task that takes hours."""

    def __init__(self, name: str):
        self.name, self.started_at = name, timezone.now()
        self.busy, self._moved = False, time.monotonic()
        self._file = pulse_file()

    def start(self) -> None:
        """Beat from now on."""
        threading.Thread(target=self._run, name="pulse", daemon=True).start()

    def moved(self, **kwargs) -> None:
        """The process did something; a receiver of Celery's signals."""
        self._moved = time.monotonic()

    def alive(self) -> bool:
        """Whether it works on a task or did something lately."""
        return self.busy or time.monotonic() - self._moved < SILENCE / 2

    def _run(self) -> None:
        while True:
            if self.alive():
                self._beat()
            time.sleep(EVERY)

    def _beat(self) -> None:
        try:
            self._file.touch()
            beat(self.name, self.started_at)
        except Exception as error:  # a database that is down is not the end of this process
            log.warning("no sign of life of %s in the database: %s", self.name, error)
        finally:
            close_old_connections()


def _worker(sender, **kwargs) -> None:
    pulse = Pulse(sender.hostname)

    def begins(**kwargs):
        pulse.busy = True

    def ends(**kwargs):
        pulse.busy = False
        pulse.moved()

    # Celery keeps weak references unless told otherwise.
    signals.task_prerun.connect(begins, weak=False)
    signals.task_postrun.connect(ends, weak=False)
    signals.heartbeat_sent.connect(pulse.moved, weak=False)
    pulse.start()


def _beat(sender, **kwargs) -> None:
    pulse = Pulse(f"beat@{socket.gethostname()}")
    signals.after_task_publish.connect(pulse.moved, weak=False)
    pulse.start()


def connect() -> None:
    """Beat as soon as Celery says that a worker or beat has started."""
    signals.worker_init.connect(_worker, weak=False)
    signals.beat_init.connect(_beat, weak=False)
