"""Before the log-in: hundreds of connections on which nothing gets on, while people label."""

from __future__ import annotations

import random
import re
import secrets
import select
import socket
import threading
from collections import Counter
from contextlib import suppress

from bench.abuse import Instance, Outcome, check
from bench.load.http_load import Annotator, Http, Times, checked, label, quantiles

EACH = 200  # connections of each kind
TABS = 50  # of the one annotator of an instance that has no other
ROUNDS, SECONDS, WARM = 2, 20.0, 5.0  # people label so often without the crowd and with it, in turn
THINK = 6.0  # seconds between a group and its answer
WORST = 2.0  # p95 with the crowd, as a multiple of that without
AHEAD = 60  # requests that a stalled reader sends before it reads nothing; with a few more it would be cut off at once
AGAIN = 10  # connections of a kind that are made again within a second, where the instance has closed some


class Crowd(threading.Thread):
    """`EACH` connections of each kind; what the instance closes comes again, ten a second. Each kind has an address of its
    own where the instance is on this machine, since connections of one address are bounded."""

    def __init__(self, instance: Instance, static: str):
        super().__init__(daemon=True)
        self.place, self.over, self.closed = instance.place, threading.Event(), Counter()
        host = instance.place[0]
        get = f"GET {static} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        post = f"POST /login/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 500\r\n".encode()
        # What each kind sends at first, and then each second.
        self.kinds = {
            "stalled readers": (AHEAD * get, b""),
            "slow senders": (post + b"\r\n", b"x"),
            "idle": (b"", b""),
        }
        self.sockets: dict[str, list[socket.socket]] = {kind: [] for kind in self.kinds}
        self.stood = dict.fromkeys(self.kinds, False)  # all of a kind at first

    def run(self) -> None:
        """Until `end`."""
        while not self.over.wait(1):
            for number, (kind, (first, then)) in enumerate(self.kinds.items()):
                self.sockets[kind] = [s for s in self.sockets[kind] if self._goes_on(s, kind, then)]
                most = AGAIN if self.stood[kind] else EACH
                self.stood[kind] = True
                while len(self.sockets[kind]) < EACH and most and not self.over.is_set():
                    most -= 1
                    try:
                        self.sockets[kind].append(self._dial(number, first))
                    except OSError:
                        self.closed[kind] += 1
                        break

    def _dial(self, number: int, first: bytes) -> socket.socket:
        made = socket.socket()
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            made.settimeout(5)
            if self.place[0] == "127.0.0.1":
                made.bind((f"127.0.0.{2 + number}", 0))
            made.connect(self.place)
            made.setblocking(False)
            with suppress(BlockingIOError):
                made.send(first)
        except OSError:
            made.close()
            raise
        return made

    def _goes_on(self, made: socket.socket, kind: str, then: bytes) -> bool:
        """Send what comes next, unless the instance has closed or, where it is read, answered."""
        poll = select.poll()
        poll.register(made, select.POLLRDHUP | (0 if kind == "stalled readers" else select.POLLIN))
        try:
            if not poll.poll(0):
                if then:
                    made.send(then)
                return True
        except BlockingIOError:
            return True
        except OSError:
            pass
        made.close()
        self.closed[kind] += 1
        return False

    def standing(self) -> str:
        """How many there are of each kind."""
        return ", ".join(f"{len(sockets)} {kind}" for kind, sockets in self.sockets.items())

    def end(self) -> None:
        """Close everything."""
        self.over.set()
        self.join()
        for made in [s for sockets in self.sockets.values() for s in sockets]:
            made.close()


def people_of(instance: Instance) -> list[Annotator]:
    """Those who label, or in an instance that has only one annotator many tabs of theirs, which look and do not answer."""
    host, port = instance.place
    base = f"/p/{instance.project}"

    def following(http: Http):
        groups = checked(http.ask("GET", f"{base}/groups/next/"), 200)["groups"]
        return groups[0] if groups else None

    def submit(http: Http, group: dict) -> bool:
        labels = {str(image["position"]): random.random() < 0.5 for image in group["images"]}
        body = {"labels": labels, "seconds": 3, "key": secrets.token_hex(8)}
        return checked(http.ask("POST", f"{base}/groups/{group['group']}/submit/", body), 200) is not None

    def look(http: Http, group: dict) -> bool:
        return checked(http.ask("GET", f"{base}/groups/next/"), 200) is not None

    if instance.people:
        return [Annotator(Http(port, headers, host), following, submit) for headers in instance.people]
    mine = instance.visitor("annotator").headers
    return [Annotator(Http(port, mine, host), following, look) for _ in range(TABS)]


def _add(all_of_them: Times, more: Times) -> None:
    all_of_them.next += more.next
    all_of_them.submit += more.submit
    all_of_them.failed += more.failed


@check("stalled readers, slow senders, idle sockets")
def crowds(instance: Instance) -> Outcome:
    """With hundreds of each, answers take at most twice as long as without, and none fails."""
    page = instance.visitor().get("/login/").text
    static = re.search(r'(?:href|src)="(/static/[^"]+\.css)"', page)[1]
    people = people_of(instance)
    label(people, WARM, 0)
    quiet, loud, closed, standing = Times(), Times(), 0, ""
    for _ in range(ROUNDS):  # in turn: what else the machine does falls on both
        _add(quiet, label(people, SECONDS, THINK))
        crowd = Crowd(instance, static)
        crowd.start()
        try:
            label(people, WARM, THINK)
            _add(loud, label(people, SECONDS, THINK))
            standing, closed = crowd.standing(), closed + crowd.closed.total()
        finally:
            crowd.end()
    failed = {**quiet.failed, **loud.failed}
    times = [quantiles(values)[1] for values in (quiet.next, loud.next, quiet.submit, loud.submit)]
    slower = max(times[1] / times[0], times[3] / times[2])
    seen = f"p95 of the next group {times[0]:.0f} → {times[1]:.0f} ms, of an answer {times[2]:.0f} → {times[3]:.0f} ms"
    seen += f"; {len(quiet.submit)} and {len(loud.submit)} answers, {sum(failed.values())} failed"
    seen += f"; at the end {standing}, {closed} were closed and made again"
    if failed:
        seen += f": {'; '.join(failed)[:200]}"
    return Outcome(slower <= WORST and not failed, seen)
