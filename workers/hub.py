"""Versions on their way to the hub: sent by a thread that says now and then that it still does."""

from __future__ import annotations

import logging
import threading

from django.db import close_old_connections, connections

from common.hub import HubAwayError, HubError
from webapp.lib import options, storage
from webapp.operations.faults import sentence
from webapp.rounds import packages, sharing
from workers.database import AWAY, patiently

log = logging.getLogger(__name__)


def send(sharing_id: int) -> None:
    """Send a version that waits, unless another worker does."""
    try:
        _send(sharing_id)
    except AWAY as error:  # housekeeping finds it again
        log.warning("sharing %s waits: %s", sharing_id, error)
    finally:
        if threading.current_thread() is not threading.main_thread():
            connections.close_all()  # this thread's own


def _send(sharing_id: int) -> None:
    found = sharing.claim(sharing_id)
    if found is None:
        return
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=[found.pk, found.token, stop], daemon=True)
    beat.start()
    try:
        address = packages.send(found.version, found.repository, private=found.private)
    except (ValueError, HubError, storage.Unreachable) as error:
        why, again = str(error), isinstance(error, (HubAwayError, storage.Unreachable))
        patiently(lambda: sharing.fail(found.pk, found.token, why, again=again))
    except Exception as error:  # tried again a few times, then shown with its error
        log.exception("sharing %s", sharing_id)
        why = sentence(error)
        patiently(lambda: sharing.fail(found.pk, found.token, why, again=True))
    else:
        patiently(lambda: sharing.done(found.pk, found.token, address))
    finally:
        stop.set()
        beat.join()


def _beat(sharing_id: int, token: int, stop: threading.Event) -> None:
    every = options.SILENT_STALE.total_seconds() / 10
    while not stop.wait(every):
        try:
            sharing.beat(sharing_id, token)
        except AWAY as error:  # the database may come back before the heartbeat is stale
            log.warning("no heartbeat for sharing %s: %s", sharing_id, error)
        close_old_connections()
    connections.close_all()
