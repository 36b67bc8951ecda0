"""Hand rows to the workers once they are committed."""

from __future__ import annotations

from django.db import transaction

from webapp.lib import broker


def enqueue(kind: str, row_id: int) -> None:
    """Send a task for the row after the transaction commits."""
    transaction.on_commit(lambda: broker.send(kind, row_id))
