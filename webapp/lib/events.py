"""Notices to open pages. They say that something changed; the page then asks the database."""

from __future__ import annotations

import asyncio
import logging

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction

from webapp.lib.broker import person_channel, project_channel

log = logging.getLogger(__name__)
GATHER = 0.1  # seconds in which equal notices of a web process become one


class Post:
    """Sends a web server's notices from its event loop, so that no answer waits for Redis."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop, self._waiting, self._tasks = loop, [], set()

    def put(self, channel: str, message: dict) -> None:
        """Send it soon; from any thread."""
        self._loop.call_soon_threadsafe(self._take, (channel, message))

    def _take(self, notice: tuple[str, dict]) -> None:
        if notice in self._waiting:
            return
        self._waiting.append(notice)
        task = self._loop.create_task(self._send(notice))
        self._tasks.add(task)  # the loop itself keeps no hold of it
        task.add_done_callback(self._tasks.discard)

    async def _send(self, notice: tuple[str, dict]) -> None:
        await asyncio.sleep(GATHER)
        self._waiting.remove(notice)  # what changes from now on is another notice
        await _group_send(*notice)


# The web server's, set by its handler; everywhere else notices are sent at once.
post: Post | None = None


def publish(project_id: int, event: str, **data) -> None:
    """Tell the project's open pages after commit; without Redis nobody is told and nothing else changes."""
    message = {"type": "notice", "event": event, **data}
    transaction.on_commit(lambda: _tell(project_channel(project_id), message))


def check_again(user_id: int) -> None:
    """Let the person's open sockets ask, after commit, whether they may stay. Without Redis they do so by themselves."""
    transaction.on_commit(lambda: _tell(person_channel(user_id), {"type": "check"}))


def _tell(channel: str, message: dict) -> None:
    if post is not None:
        post.put(channel, message)
    else:
        try:
            async_to_sync(_group_send)(channel, message)
        except RuntimeError as error:  # this thread runs an event loop, which cannot be waited for
            _not_sent(channel, message, error)


async def _group_send(channel: str, message: dict) -> None:
    try:
        await get_channel_layer().group_send(channel, message)
    except Exception as error:  # any failure of the broker's client: live updates are a convenience
        _not_sent(channel, message, error)


def _not_sent(channel: str, message: dict, error: Exception) -> None:
    log.warning("no live update %s for %s: %s", message.get("event", message["type"]), channel, error)
