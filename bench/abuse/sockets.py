"""Live sockets: large messages, many of one person, and addresses that have none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import websockets.sync.client as client
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from bench.abuse import Instance, Outcome, check

FRAME, FRAMES = 16_000_000, 6  # bytes of a message, and how many at once
SLOWEST = 1.0  # seconds that /healthz may take meanwhile
WANTED, MOST = 150, 50  # sockets that a person asks for, and may get


def dial(instance: Instance, path: str, **more) -> client.ClientConnection:
    """A socket of the admin's browser."""
    host, port = instance.place
    headers = {"Cookie": instance.visitor("admin").headers["Cookie"]}
    return client.connect(
        f"ws://{host}:{port}{path}", origin=instance.address, additional_headers=headers, compression=None, **more
    )


def slowest(instance: Instance, work: Callable[[], None]) -> float:
    """Seconds that /healthz takes at most while somebody does this."""
    visitor, found = instance.visitor(), [0.0]
    doing = threading.Thread(target=work, daemon=True)
    doing.start()
    while doing.is_alive():
        started = time.monotonic()
        visitor.get("/healthz")
        found.append(time.monotonic() - started)
        time.sleep(0.05)
    return max(found)


@check("large frames")
def frames(instance: Instance) -> Outcome:
    """They are not read: others are answered meanwhile, and the sender loses the socket."""
    closed = []
    with ExitStack() as stack:
        path = f"/ws/projects/{instance.project}/"
        sockets = [stack.enter_context(dial(instance, path)) for _ in range(FRAMES)]

        def send(made: client.ClientConnection) -> None:
            try:
                made.send("x" * FRAME)
                made.recv(timeout=10)
            except (ConnectionClosed, OSError):
                closed.append(made)
            except TimeoutError:
                pass

        def all_at_once() -> None:
            threads = [threading.Thread(target=send, args=[made]) for made in sockets]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        took = slowest(instance, all_at_once)
    seen = f"{FRAMES} of {FRAME // 1_000_000} MB; {len(closed)} sockets closed, /healthz took at most {took:.2f} s"
    return Outcome(len(closed) == FRAMES and took < SLOWEST, seen)


@check("sockets of one person")
def many(instance: Instance) -> Outcome:
    """They are bounded."""
    with ExitStack() as stack:
        opened = 0
        for _ in range(WANTED):
            with suppress(InvalidHandshake):
                stack.enter_context(dial(instance, f"/ws/projects/{instance.project}/"))
                opened += 1
    return Outcome(0 < opened <= MOST, f"{opened} of {WANTED} opened")


@check("sockets of no page")
def nowhere(instance: Instance) -> Outcome:
    """They are refused."""
    failed = []
    for path in ("/", "/ws/", "/ws/projects/nobody/", "/ws/projects/%00/", "/api/v1/", "/static/x"):
        try:
            dial(instance, path).close()
            failed.append(f"{path} opened")
        except InvalidStatus as error:
            if error.response.status_code >= 500:
                failed.append(f"{path}: {error.response.status_code}")
    return Outcome(not failed, "; ".join(failed) or "all refused, none with a 5xx")
