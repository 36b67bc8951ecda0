"""uvicorn's connections, bounded: how many there are, in all and of an address, how long one may stand still, and what
may wait on one.

uvicorn itself waits for ever for headers that do not come and for readers who do not read, keeps headers of any length,
and reads on while pipelined requests wait.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import sys
import termios
from collections import Counter
from dataclasses import dataclass, field

from django.conf import settings
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

log = logging.getLogger(__name__)
HEAD = 64 * 1024  # bytes of a request's line and headers
PIPELINED = 64  # requests that may wait on a connection while one is answered; browsers send none ahead
TAKEN_EVERY = 0.2  # seconds between two looks at whether an answer has been taken
FRAME = 1024  # bytes of a live socket's message; nobody has anything to say there
KEEP_ALIVE = 75  # seconds; uvicorn's 5 are less than most people think about a group


def waiting(transport: asyncio.Transport) -> int:
    """Bytes that the other side has not taken: ours and, where the system tells (Linux), those in its send queue. Without
    these a slow reader of a large answer would seem to stand still for as long as the queue takes to empty by a third."""
    try:
        queued = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        queued = bytes(4)
    return transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)


@dataclass(eq=False)
class Line:
    """A connection: since when a request's headers are waited for (None: they are not), and what waits to be read by the
    other side since when."""

    transport: asyncio.Transport
    address: str
    since: float | None
    unread: int = 0
    moved: float = field(default=0.0)

    def stands_still(self, now: float, seconds: float) -> bool:
        """Whether nothing has got on for `seconds`. Asked regularly: what is unread is compared with the last time."""
        unread = waiting(self.transport)
        if unread == 0 or unread < self.unread:
            self.moved = now
        self.unread = unread
        return now - self.moved > seconds or (self.since is not None and now - self.since > seconds)


class Watch:
    """All connections of this process."""

    def __init__(self):
        self._lines: dict[asyncio.Transport, Line] = {}
        self._of: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, transport: asyncio.Transport, *, proxy: bool, now: float) -> Line | None:
        """A new connection; None where its address has as many as it may, or the process has and none of these makes room.
        A proxy may have any number: its visitors' requests are counted by their own addresses, see `handler`."""
        address = (transport.get_extra_info("peername") or ("",))[0]
        if not proxy and self._of[address] >= settings.LIKESTEP_CONNECTIONS:
            return None
        if len(self._lines) >= settings.LIKESTEP_ALL_CONNECTIONS and not self._made_room():
            return None
        line = self._lines[transport] = Line(transport, address, since=now, moved=now)
        self._of[address] += 1
        if self._timer is None:
            self._look_later()
        return line

    def leave(self, transport: asyncio.Transport) -> None:
        """A connection that is no more."""
        if line := self._lines.pop(transport, None):
            self._of[line.address] -= 1
            if not self._of[line.address]:
                del self._of[line.address]

    def _made_room(self) -> bool:
        """Whether a connection was closed for another: the one whose request has not come for the longest. Who asks at
        once gets in, however many others only hold a connection."""
        waited = [line for line in self._lines.values() if line.since is not None]
        if not waited:
            return False
        oldest = min(waited, key=lambda line: line.since)
        self.leave(oldest.transport)
        oldest.transport.abort()
        return True

    def _look_later(self) -> None:
        seconds = min(1.0, settings.LIKESTEP_STALL_SECONDS / 4)
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look) if self._lines else None

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        still = [line for line in self._lines.values() if line.stands_still(now, settings.LIKESTEP_STALL_SECONDS)]
        for line in still:
            line.transport.abort()
        if still:
            log.info("%s connections closed on which nothing got on (LIKESTEP_STALL_SECONDS)", len(still))
        self._look_later()


watch = Watch()


class Connection(HttpToolsProtocol):
    """HTTP."""

    line: Line | None = None
    head = 0  # bytes of headers so far

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Closed at once where the address has as many as it may."""
        super().connection_made(transport)
        trusted = getattr(self.app, "trusted_hosts", ())  # of uvicorn's ProxyHeadersMiddleware
        self.line = watch.enter(transport, proxy=self.client is None or self.client[0] in trusted, now=self.loop.time())
        if self.line is None:
            self._end(503, "too many connections (LIKESTEP_CONNECTIONS, LIKESTEP_ALL_CONNECTIONS)")

    def connection_lost(self, exc: Exception | None) -> None:
        """It is no more."""
        watch.leave(self.transport)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Whatever comes while nothing is answered begins a request, of which the headers must come in time."""
        if self.line is None or self.transport.is_closing():
            return
        if self.line.since is None and (self.cycle is None or self.cycle.response_complete):
            self.line.since, self.head = self.loop.time(), 0
        super().data_received(data)
        if self.line.since is not None:
            self.head += len(data)
            if self.head > HEAD:
                self._end(431, f"headers: send at most {HEAD:,} bytes")

    def on_headers_complete(self) -> None:
        """A request is known. One too many that waits ends the connection: who sends ahead like this reads nothing."""
        self.line.since, self.head = None, 0
        if len(self.pipeline) >= PIPELINED:
            self.transport.abort()
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_response_complete(self) -> None:
        """What was asked ahead is begun once the answer before it has been taken: who reads nothing costs one answer."""
        if self.pipeline and not self.transport.is_closing() and waiting(self.transport):
            self.loop.call_later(TAKEN_EVERY, self.on_response_complete)
        else:
            super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        """Not in the middle of an answer: what would it be to do with the rest of it?"""
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()
        if not self.transport.is_closing():
            super().handle_websocket_upgrade()

    def _end(self, status: int, text: str) -> None:
        head = f"HTTP/1.1 {status} \r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
        self.transport.write((head + text).encode())
        self.transport.close()


class Socket(WebSocketsSansIOProtocol):
    """A live socket, which goes on on its connection."""

    def connection_lost(self, exc: Exception | None) -> None:
        """It is no more."""
        watch.leave(self.transport)
        super().connection_lost(exc)
