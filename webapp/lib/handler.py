"""Where requests come in. A thread answers each and is free again before the answer is sent; addresses take turns at the
threads. What is malformed, too large, too slow or one too many from its address is refused before a thread is taken
(`entrance`, `uploads`)."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial

from django.conf import settings
from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.db import connections
from django.http import FileResponse, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix
from django.utils import translation
from django.utils.translation import gettext as _

from webapp.lib import entrance, events, logs, uploads
from webapp.lib.entrance import Refused
from webapp.lib.middleware import API, api_error, security_headers

log = logging.getLogger(__name__)
LINGER = 2.0  # seconds that the rest of a refused body is thrown away, so that the sender comes to read why
PLAIN = "text/plain; charset=utf-8"
END = object()


class Thread:
    """One thread, and with it the database connection that Django opens there."""

    def __init__(self):
        self._pool = ThreadPoolExecutor(1, "request")

    async def run(self, work: Callable, *arguments):
        """What `work` returns."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *arguments))

    async def end(self) -> None:
        """Close the connection and the thread."""
        await self.run(connections.close_all)
        self._pool.shutdown(wait=False)


class Turns:
    """At most `most` at once. Who waits is let in address by address, so that one that asks a lot waits for itself."""

    def __init__(self, most: int):
        self._free = most
        self._waiting: dict[str, deque[asyncio.Future]] = {}  # the address whose turn is next comes first

    @asynccontextmanager
    async def one(self, address: str) -> AsyncIterator[None]:
        """A turn."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(address)
        try:
            yield
        finally:
            self._next()

    async def _wait(self, address: str) -> None:
        mine = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(address, deque()).append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():  # it was let in at the same moment
                self._next()
            raise

    def _next(self) -> None:
        while self._waiting:
            address = next(iter(self._waiting))
            queue = self._waiting.pop(address)
            while queue and queue[0].done():  # cancelled
                queue.popleft()
            if queue:
                first = queue.popleft()
                if queue:
                    self._waiting[address] = queue
                first.set_result(None)
                return
        self._free += 1


class Threads:
    """At most `most` threads work at once. Further work waits for its turn.

    A database connection belongs to its thread. Django's own handler makes a thread for each request, and with it a new
    connection that nobody closes until Python collects it: fifty people at once used up all that PostgreSQL allows.
    """

    def __init__(self, most: int):
        self._turns, self._idle, self._kept = Turns(most), [], set()

    @asynccontextmanager
    async def one(self, thread: Thread | None = None, *, address: str = "") -> AsyncIterator[Thread]:
        """A thread that nobody else uses meanwhile: the one that was idle last, whose connection is open, or `thread`,
        which was kept. `address` is whose turn it is."""
        async with self._turns.one(address):
            if thread is not None:
                yield thread
                return
            thread = self._idle.pop() if self._idle else Thread()
            try:
                yield thread
            finally:
                if thread not in self._kept:
                    self._idle.append(thread)

    @asynccontextmanager
    async def keep(self, thread: Thread) -> AsyncIterator[None]:
        """The thread is nobody else's until this ends, also while it has no turn; then it is gone. A stream of rows needs
        its connection to the end."""
        try:
            yield
        finally:
            self._kept.discard(thread)
            await thread.end()

    def may_keep(self, thread: Thread, most: int) -> bool:
        """Whether fewer than `most` are kept; then so is this one, until `keep` ends."""
        if len(self._kept) >= most:
            return False
        self._kept.add(thread)
        return True


class Guests:
    """How many requests of each address are being answered."""

    def __init__(self):
        self._here: Counter[str] = Counter()

    @contextmanager
    def one(self, address: str, most: int) -> Iterator[None]:
        """One of at most `most`; raises Refused for one more."""
        if self._here[address] >= most:
            text = _("%(most)s requests of your address are being answered already (LIKESTEP_CONNECTIONS); try again")
            raise Refused(503, text % {"most": most})
        self._here[address] += 1
        try:
            yield
        finally:
            self._here[address] -= 1
            if not self._here[address]:
                del self._here[address]


class Handler(ASGIHandler):
    """See the module. `live_token` finds what a program's token is good for, None when it is good for nothing."""

    def __init__(self, live_token: Callable[[str], object | None]):
        super().__init__()
        self.live_token = live_token
        self.threads, self.guests = Threads(settings.LIKESTEP_WEB_THREADS), Guests()

    def load_middleware(self, is_async: bool = False) -> None:
        """All of it synchronous: one step into the thread and one out, where Django makes several a request."""
        super().load_middleware(is_async=False)

    async def __call__(self, scope, receive, send):
        """One request."""
        if events.post is None:
            events.post = events.Post(asyncio.get_running_loop())
        try:
            request = entrance.judged(scope)
            with (
                translation.override(uploads.language(request)),
                self.guests.one(_address(scope), settings.LIKESTEP_CONNECTIONS),
            ):
                await self._answer(request, scope, receive, send)
        except RequestAborted:
            return
        except Refused as refused:
            await _refuse(scope, receive, send, refused)

    async def _answer(self, request, scope, receive, send):
        """The body is read before a thread is taken and the answer sent after it is free, so that whoever sends or reads
        slowly holds none."""

        address = _address(scope)

        async def known() -> bool:
            async with self.threads.one(address=address) as thread:
                return await thread.run(uploads.is_known, request, self.live_token)

        gate = uploads.Gate(request, receive, known)
        await gate.open()
        body = await self.read_body(gate)
        left = asyncio.ensure_future(receive())  # all of the body is here: what comes now is the end of the connection
        context = contextvars.copy_context()  # language and the like, which a stream's later pieces need again
        try:
            async with self.threads.one(address=address) as thread:
                if left.done():
                    body.close()
                    return
                response = await thread.run(context.run, self._computed, scope, body)
                rows = response.streaming and not isinstance(response, FileResponse)
                if rows and not self.threads.may_keep(thread, settings.LIKESTEP_STREAMS):
                    await thread.run(response.close)
                    rows, response = False, _busy(scope["path"])
            if rows:
                async with self.threads.keep(thread):
                    await self._send(response, send, left, context, thread, address)
            else:
                await self._send(response, send, left, context, None, address)
        finally:
            left.cancel()

    def _computed(self, scope: dict, body) -> HttpResponseBase:
        """The response, in a thread. One that is no stream is finished with: only its bytes are still to be sent."""
        set_script_prefix(get_script_prefix(scope))
        signals.request_started.send(sender=self.__class__, scope=scope)
        request, response = self.create_request(scope, body)
        if request is not None:
            response = self.get_response(request)
            response._handler_class = self.__class__  # the sender of Django's signal that it is finished
        if isinstance(response, FileResponse):
            response.block_size = self.chunk_size
        if not response.streaming:
            response.close()
        return response

    async def _send(self, response, send, left: asyncio.Future, context, thread: Thread | None, address: str) -> None:
        """Send a response while somebody is there. A stream's pieces are computed in `thread`, a file's in any."""
        try:
            await send({"type": "http.response.start", "status": response.status_code, "headers": _headers(response)})
            if not response.streaming:
                for chunk, last in self.chunk_bytes(response.content):
                    await send({"type": "http.response.body", "body": chunk, "more_body": not last})
                return
            pieces = iter(response.streaming_content)
            while not left.done():
                async with self.threads.one(thread, address=address) as puller:
                    piece = await puller.run(context.run, next, pieces, END)
                if piece is END:
                    break
                for chunk, _last in self.chunk_bytes(piece):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body"})
        finally:
            if response.streaming:
                async with self.threads.one(thread, address=address) as closer:
                    await closer.run(context.run, response.close)


def _address(scope: dict) -> str:
    """The visitor's; a proxy's headers have been looked at."""
    return (scope.get("client") or ("",))[0]


def _headers(response: HttpResponseBase) -> list[tuple[bytes, bytes]]:
    """As ASGI wants them."""
    found = [(name.encode("ascii"), value.encode("latin-1")) for name, value in response.items()]
    return found + [(b"Set-Cookie", c.output(header="").encode("ascii").strip()) for c in response.cookies.values()]


def _busy(path: str) -> HttpResponse:
    """One download too many."""
    text = _("other downloads are under way (LIKESTEP_STREAMS); try again in a minute")
    response = api_error(503, text) if path.startswith(API) else HttpResponse(text, status=503, content_type=PLAIN)
    for name, value in {**security_headers(path), "Retry-After": "60", "Cache-Control": "no-store"}.items():
        response.headers[name] = value
    return response


async def _refuse(scope, receive, send, refused: Refused) -> None:
    """Say why, then close the connection: what is left of the body is not looked at."""
    log.info("%s %s refused with %s: %s", scope["method"], logs.pattern(scope["path"]), refused.status, refused)
    headers = dict(scope["headers"])
    asks_for_json = b"application/json" in headers.get(b"accept", b"")
    of_api = scope["path"].startswith(API)
    if of_api or asks_for_json:
        kind = b"application/json"
        text = json.dumps({"detail" if of_api else "error": str(refused)}).encode()
    else:
        kind, text = PLAIN.encode(), str(refused).encode()
    answer = [(b"content-type", kind), (b"content-length", str(len(text)).encode()), (b"connection", b"close")]
    if of_api and refused.status == 401:
        answer.append((b"www-authenticate", b"Bearer"))
    answer += [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
    answer += [(name.lower().encode(), value.encode()) for name, value in security_headers(scope["path"]).items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": answer})
    await send({"type": "http.response.body", "body": text, "more_body": True})
    if b"expect" not in headers:  # who asked before sending sends nothing
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while (message := await receive()).get("more_body"):
                    del message
    await send({"type": "http.response.body"})
