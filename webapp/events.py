"""Notices to open pages. They say that something changed; the page then asks the database."""

from __future__ import annotations

import logging

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction

from webapp.broker import project_channel

log = logging.getLogger(__name__)


def publish(project_id: int, event: str, **data) -> None:
    """Tell the project's open pages after commit; without Redis nobody is told and nothing else changes."""
    transaction.on_commit(lambda: _send(project_id, {"type": "notice", "event": event, **data}))


def _send(project_id: int, message: dict) -> None:
    try:
        async_to_sync(get_channel_layer().group_send)(project_channel(project_id), message)
    except Exception as error:  # any failure of the broker's client: live updates are a convenience
        log.warning("no live update %s for project %s: %s", message["event"], project_id, error)
