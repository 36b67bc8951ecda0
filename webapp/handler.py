"""Django's ASGI handler with two changes: requests are answered by threads that stay, and large bodies are refused before
they are read (`uploads`)."""

from __future__ import annotations

from asyncio import Semaphore
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from asgiref.sync import ThreadSensitiveContext
from django.conf import settings
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler


class Threads:
    """At most `most` threads, each for one request at a time. Further requests wait in turn.

    A database connection belongs to its thread. Django's own handler makes a thread for each request, and with it a new
    connection that nobody closes until Python collects it: fifty people at once used up all that PostgreSQL allows.
    """

    def __init__(self, most: int):
        self._turn, self._idle = Semaphore(most), []

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """What runs inside has a thread of its own; the one that was idle last, whose connection is open."""
        async with self._turn:
            thread = self._idle.pop() if self._idle else ThreadPoolExecutor(1, "request")
            try:
                async with ThreadSensitiveContext(executor=thread):
                    yield
            finally:
                self._idle.append(thread)


class _Read:
    """A `receive` whose body has been read."""

    def __init__(self, receive, body):
        self.receive, self.body = receive, body

    async def __call__(self):
        return await self.receive()


class Handler(ASGIHandler):
    """See the module."""

    def __init__(self):
        super().__init__()
        self.threads = Threads(settings.LIKESTEP_WEB_THREADS)

    async def handle(self, scope, receive, send):
        """The body is read before a thread is taken, so that somebody who sends slowly holds none."""
        try:
            body = await super().read_body(receive)
        except RequestAborted:
            return
        async with self.threads.one():
            await super().handle(scope, _Read(receive, body), send)

    async def read_body(self, receive):
        """The body that `handle` has read."""
        return receive.body
