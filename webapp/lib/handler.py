"""Django's ASGI handler with two changes: requests are answered by threads that stay, and a body that is too large is
refused before it is read (`uploads`)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.conf import settings
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler

from webapp.lib import events, uploads

log = logging.getLogger(__name__)
LINGER = 2.0  # seconds that the rest of a refused body is thrown away, so that the sender comes to read why


class Threads:
    """At most `most` threads, each for one request at a time. Further requests wait in turn.

    A database connection belongs to its thread. Django's own handler makes a thread for each request, and with it a new
    connection that nobody closes until Python collects it: fifty people at once used up all that PostgreSQL allows.
    """

    def __init__(self, most: int):
        self._turn, self._idle = asyncio.Semaphore(most), []

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
    """See the module. `live_token` finds what a program's token is good for, None when it is good for nothing."""

    def __init__(self, live_token: Callable[[str], object | None]):
        super().__init__()
        self.live_token = live_token
        self.threads = Threads(settings.LIKESTEP_WEB_THREADS)

    async def handle(self, scope, receive, send):
        """The body is read before a thread is taken, so that somebody who sends slowly holds none."""

        async def known() -> bool:
            async with self.threads.one():
                return await sync_to_async(uploads.is_known)(scope, self.live_token)

        if events.post is None:
            events.post = events.Post(asyncio.get_running_loop())
        gate = uploads.Gate(scope, receive, known)
        try:
            await gate.open()
            body = await super().read_body(gate)
        except RequestAborted:
            return
        except uploads.Refused as refused:
            await _refuse(scope, receive, send, refused)
            return
        async with self.threads.one():
            await super().handle(scope, _Read(receive, body), send)

    async def read_body(self, receive):
        """The body that `handle` has read."""
        return receive.body


async def _refuse(scope, receive, send, refused: uploads.Refused) -> None:
    """Say why, then close the connection: what is left of the body is not looked at."""
    log.info("%s %s refused with %s: %s", scope["method"], scope["path"], refused.status, refused)
    headers = dict(scope["headers"])
    asks_for_json = b"application/json" in headers.get(b"accept", b"")
    if scope["path"].startswith("/api/") or asks_for_json:
        kind, field = b"application/json", "detail" if scope["path"].startswith("/api/") else "error"
        text = json.dumps({field: str(refused)}).encode()
    else:
        kind, text = b"text/plain; charset=utf-8", str(refused).encode()
    answer = [(b"content-type", kind), (b"content-length", str(len(text)).encode()), (b"connection", b"close")]
    answer += [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": refused.status, "headers": answer})
    await send({"type": "http.response.body", "body": text, "more_body": True})
    if b"expect" not in headers:  # who asked before sending sends nothing
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while (message := await receive()).get("more_body"):
                    del message
    await send({"type": "http.response.body"})
