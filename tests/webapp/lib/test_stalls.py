"""Connections on which nothing gets on hold no thread, are closed in time, and are bounded by address: a real server."""

import http.client
import socket
import time
from contextlib import ExitStack

import pytest

from tests.servers import database_url, serve, wait_for

THREADS, STALL, CONNECTIONS, ALL, BIG = 2, 2.0, 12, 30, 12_000_000
STATIC = "/static/css/likestep.css"
pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """The server's output."""
    return tmp_path_factory.mktemp("server") / "log"


@pytest.fixture(scope="module")
def port(django_db_setup, django_db_blocker, tmp_path_factory, log):
    """A server with small limits, and a static file that no buffer between two sockets takes."""
    folder = tmp_path_factory.mktemp("static")
    (folder / "big.css").write_bytes(b" " * BIG)
    with django_db_blocker.unblock():
        url = database_url()
    with serve(
        log,
        DATABASE_URL=url,
        STATIC_ROOT=str(folder),
        LIKESTEP_WEB_THREADS=str(THREADS),
        LIKESTEP_STALL_SECONDS=str(STALL),
        LIKESTEP_CONNECTIONS=str(CONNECTIONS),
        LIKESTEP_ALL_CONNECTIONS=str(ALL),
        HTTPS="1",
    ) as number:
        assert wait_for(lambda: healthy(number) < 1, 30)
        yield number


@pytest.fixture
def stack():
    """What was opened here is closed in the end."""
    with ExitStack() as stack:
        yield stack


def healthy(port):
    """How long /healthz takes."""
    started = time.monotonic()
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    asked.request("GET", "/healthz")
    assert asked.getresponse().status == 200
    asked.close()
    return time.monotonic() - started


def dial(port, stack, source="127.0.0.1"):
    """A connection with a small window for what is not read."""
    made = socket.socket()
    stack.callback(made.close)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.bind((source, 0))
    made.settimeout(10)
    made.connect(("127.0.0.1", port))
    return made


def rest(made):
    """What still comes until the server has closed."""
    got = b""
    try:
        while piece := made.recv(65536):
            got += piece
    except ConnectionResetError:
        pass
    return got


def head(method, path, *more):
    return "\r\n".join(
        [f"{method} {path} HTTP/1.1", "Host: localhost", "X-Forwarded-Proto: https", *more, "", ""]
    ).encode()


def test_who_asks_ahead_and_reads_nothing_stops_nobody(port, stack):
    for _ in range(8):
        dial(port, stack).sendall(400 * head("GET", STATIC))
    for _ in range(10):
        assert healthy(port) < 1
        time.sleep(0.05)


def test_what_is_asked_ahead_waits_until_the_answer_before_it_was_read(port, stack, log):
    made = dial(port, stack)
    made.sendall(head("GET", "/static/big.css") + head("GET", "/join/ahead/", "Connection: close"))
    time.sleep(1)
    assert "/join/" not in log.read_text()
    answer = rest(made)
    assert len(answer) > BIG and b"HTTP/1.1 410" in answer[BIG:]
    assert wait_for(lambda: "/join/<str:token>/ 410" in log.read_text(), 5)


def test_answers_that_nobody_reads_hold_no_thread_and_are_broken_off(port, stack):
    stalled = [dial(port, stack) for _ in range(4 * THREADS)]
    for made in stalled:
        made.sendall(head("GET", "/static/big.css"))
    for _ in range(5):
        assert healthy(port) < 1
        time.sleep(0.05)
    time.sleep(STALL + 2.5)
    assert all(len(rest(made)) < BIG for made in stalled)


def test_an_answer_that_is_read_slowly_goes_on(port, stack):
    made, got = dial(port, stack), 0
    made.sendall(head("GET", "/static/big.css", "Connection: close"))
    until = time.monotonic() + 2 * STALL
    while time.monotonic() < until:
        got += len(made.recv(20_000))
        time.sleep(0.05)
    assert got + len(rest(made)) > BIG


def test_bodies_and_headers_that_do_not_come_are_not_waited_for(port, stack):
    slow = dial(port, stack)
    slow.sendall(head("POST", "/login/", "Content-Length: 100") + b"x")
    waiting = dial(port, stack)
    waiting.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
    silent = dial(port, stack)
    again = dial(port, stack)
    again.sendall(head("GET", "/healthz"))
    got = b""
    while not got.endswith(b"}"):  # the body may come apart from its head
        got += again.recv(65536)
    assert b"200 OK" in got
    again.sendall(b"\r\n")  # ends the time for another request, and begins none
    started = time.monotonic()
    answer = rest(slow)
    assert b" 408 " in answer and b"LIKESTEP_STALL_SECONDS" in answer
    assert (
        b"content-security-policy: default-src 'self'" in answer and b"strict-transport-security: max-age=3" in answer
    )
    assert (rest(waiting), rest(silent), rest(again)) == (b"", b"", b"")
    assert time.monotonic() - started < 2 * STALL + 3


def test_headers_without_end(port, stack):
    made = dial(port, stack)
    made.sendall(b"GET / HTTP/1.1\r\n")

    def go_on():
        for _ in range(2000):
            made.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")
            time.sleep(0.0005)

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        go_on()


def test_connections_of_an_address_are_bounded(port, stack):
    before = [dial(port, stack, "127.0.0.2") for _ in range(CONNECTIONS)]
    one_more = dial(port, stack, "127.0.0.2")
    assert b" 503 " in (answer := rest(one_more)) and b"LIKESTEP_CONNECTIONS" in answer
    assert healthy(port) < 1  # others are let in
    for made in before:
        made.close()
    later = dial(port, stack, "127.0.0.2")
    later.sendall(head("GET", "/healthz"))
    assert wait_for(lambda: b"200 OK" in later.recv(65536), 5)


def sources():
    """Addresses, a new one for each connection that would be too many of the one before."""
    return (f"127.0.1.{1 + number // CONNECTIONS}" for number in range(ALL))


def test_who_only_holds_a_connection_makes_room_for_who_asks(port, stack):
    silent = [dial(port, stack, source) for source in sources()]
    assert healthy(port) < 1
    assert rest(silent[0]) == b""  # the oldest is gone, the newest is not
    silent[-1].sendall(head("GET", "/healthz"))
    assert b"200 OK" in silent[-1].recv(65536)


def test_all_connections_are_bounded(port, stack):
    asking = [dial(port, stack, source) for source in sources()]
    for made in asking:
        made.sendall(head("POST", "/login/", "Content-Length: 100"))
    time.sleep(0.3)
    one_more = dial(port, stack, "127.0.2.1")
    assert b" 503 " in (answer := rest(one_more)) and b"LIKESTEP_ALL_CONNECTIONS" in answer


def test_behind_a_proxy_the_visitor_s_address_counts(port, stack):
    one, other = "X-Forwarded-For: 203.0.113.1", "X-Forwarded-For: 203.0.113.2"
    for _ in range(CONNECTIONS):
        dial(port, stack).sendall(head("POST", "/login/", one, "Content-Length: 100") + b"x")
    time.sleep(0.3)
    for address, status in ((one, b" 503 "), (other, b" 200 ")):
        made = dial(port, stack)
        made.sendall(head("GET", "/healthz", address))
        assert status in made.recv(65536), address
