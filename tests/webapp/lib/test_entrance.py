"""Requests that no browser sends and sockets that are no page's, at a real server; what its log says of them."""

import http.client
import json
import logging
import socket
import time
from contextlib import ExitStack

import pytest
import websockets.sync.client
from django.test import Client
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bench.abuse import Instance
from bench.abuse.network import ODD, odd_requests
from tests.servers import database_url, serve, wait_for
from webapp.lib.logs import OneLine
from webapp.lib.origins import is_own

SOCKETS = 3
pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """The server's output."""
    return tmp_path_factory.mktemp("server") / "log"


@pytest.fixture(scope="module")
def port(django_db_setup, django_db_blocker, log):
    """A server that all of these ask."""
    with django_db_blocker.unblock():
        url = database_url()
    with serve(log, DATABASE_URL=url, LIKESTEP_SOCKETS=str(SOCKETS)) as number:
        yield number


def ask(port, method, path, headers=None, body=b""):
    """Status, headers and text of an answer."""
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    asked.putrequest(method, path, skip_host=True)
    for name, value in {"Host": "localhost", "Content-Length": str(len(body)), **(headers or {})}.items():
        asked.putheader(name, value.encode("latin-1"))
    asked.endheaders(body)
    answer = asked.getresponse()
    return answer.status, answer.headers, answer.read().decode()


CSRF = "csrftoken=" + "c" * 32
FORM = "application/x-www-form-urlencoded"
MALFORMED = {
    "charset utf-16": (
        "POST",
        "/login/",
        {"Content-Type": f"{FORM}; charset=utf-16", "Cookie": "csrftoken=" + "c" * 32},
        b"a=b",
    ),
    "charset in quotes": ("POST", "/login/", {"Content-Type": f'{FORM}; charset="UTF-7"'}, b"a=b"),
    "charset undefined": ("GET", "/login/", {"Content-Type": "text/plain; charset=undefined"}, b""),
    "unknown charset": ("POST", "/login/", {"Content-Type": "application/json; charset=klingon"}, b"{}"),
    "unknown charset of a parameter": ("POST", "/login/", {"Content-Type": "text/plain; x*=klingon''b"}, b"a"),
    "multipart, no boundary": ("POST", "/login/", {"Content-Type": "multipart/form-data"}, b"x"),
    "session of NUL": ("GET", "/", {"Cookie": r'sessionid="\000aaaaaaaaaaaa"'}, b""),
    "path of NUL": ("GET", "/p/%00/", {}, b""),
    "path with a line's end": ("GET", "/join/a%0Ab/", {}, b""),
    "query of NUL": ("GET", "/login/?next=%00", {}, b""),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_the_sender_s_fault(port, name):
    method, path, headers, body = MALFORMED[name]
    assert ask(port, method, path, headers, body)[0] == 400


def test_a_query_of_other_bytes(port):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as made:
        made.sendall(b"GET /login/?next=\xff HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 400 " in made.recv(65536)


@pytest.mark.parametrize("name", ["zh-\xff;q=nan", "de;q=x, " + "a-" * 2000, "\\000", "*"])
def test_languages_that_nobody_speaks_change_nothing(port, name):
    assert ask(port, "GET", "/login/", {"Accept-Language": name})[0] == 200


def test_the_bench_s_requests(port):
    outcome = odd_requests(Instance(f"http://127.0.0.1:{port}", "stars", {}))
    assert outcome.held and len(ODD) > 5, outcome.seen


def test_a_refusal_is_as_strict_as_a_page_and_its_log_line_is_one_line(port, log):
    large = {"Content-Length": "100000"}
    status, headers, _text = ask(port, "POST", "/join/the-secret-of-an-invitation/", large)
    assert status == 401 and "default-src 'self'" in headers["Content-Security-Policy"]
    forged = "/x%0A2026-01-01%2000:00:00%20CRITICAL%20forged%1B%5B31m"
    assert ask(port, "POST", forged, large)[0] == 400
    assert ask(port, "GET", "/join/another-secret/?token=third-secret")[0] == 410
    assert wait_for(lambda: "/join/<str:token>/ 410" in log.read_text(), 5)
    said = log.read_text()
    assert "POST /join/<str:token>/ refused with 401" in said
    assert "secret" not in said and "forged" not in said and "\x1b" not in said


def test_a_line_of_the_log_stays_one_whatever_it_holds():
    formatter = OneLine("%(levelname)s %(message)s")
    try:
        raise ValueError("one\nCRITICAL two\x1b[31m")
    except ValueError as error:
        found = (ValueError, error, None)
    record = logging.LogRecord("x", logging.INFO, "", 1, "said %s", ("a\nCRITICAL b\r\u2028c\x9b",), found)
    first, *rest = formatter.format(record).split("\n")
    assert first == r"INFO said a\nCRITICAL b\r\u2028c\x9b"
    assert rest and all(line.startswith("  ") for line in rest) and "\x1b" not in "".join(rest)


# ---------------------------------------------------------------- sockets


@pytest.fixture
def rev(person):
    """Somebody whom the dashboard's socket lets in."""
    return person("rev", "reviewer")


@pytest.fixture
def opened(port):
    """opened(user, path): a live socket of a person's page."""
    with ExitStack() as stack:

        def dial(user, path="/ws/projects/stars/", origin="http://localhost", **more):
            client = Client()
            client.force_login(user)
            headers = {"Cookie": f"sessionid={client.cookies['sessionid'].value}"}
            place = f"ws://localhost:{port}{path}"
            raw = socket.create_connection(("127.0.0.1", port))
            made = websockets.sync.client.connect(
                place, sock=raw, origin=f"{origin}:{port}", additional_headers=headers, compression=None, **more
            )
            return stack.enter_context(made)

        yield dial


@pytest.mark.django_db(transaction=True)
def test_a_person_has_so_many_sockets(opened, rev, boss, project):
    mine = [opened(rev) for _ in range(SOCKETS)]
    with pytest.raises(InvalidStatus, match="403"):
        opened(rev)
    opened(boss)
    mine[0].close()

    def again():
        try:
            return opened(rev)
        except InvalidStatus:
            return None

    assert wait_for(again, 5)


@pytest.mark.django_db(transaction=True)
def test_what_a_page_says_is_not_listened_to(opened, rev, project):
    mine = opened(rev)
    for text in ("{", "[" * 900, "null"):
        mine.send(text)
    assert mine.ping().wait(5)

    def go_on():
        for _ in range(200):
            mine.send("more")
            time.sleep(0.01)

    with pytest.raises(ConnectionClosed) as closed:
        go_on()
    assert closed.value.rcvd.code == 1008


@pytest.mark.django_db(transaction=True)
def test_a_long_message_is_not_read(opened, rev, project):
    mine = opened(rev)
    mine.send(json.dumps(["x" * 1_000_000]))
    with pytest.raises(ConnectionClosed) as closed:
        mine.recv(timeout=10)
    assert closed.value.rcvd is None or closed.value.rcvd.code == 1009


@pytest.mark.django_db(transaction=True)
def test_an_address_without_a_socket(opened, rev, project, log):
    before = len(log.read_text())
    for path in ("/", "/ws/", "/ws/projects/stars", "/ws/projects/%00/", "/nowhere/at/all"):
        with pytest.raises(InvalidStatus, match="403"):
            opened(rev, path)
    assert "Traceback" not in log.read_text()[before:] and "nowhere" not in log.read_text()


@pytest.mark.parametrize(
    ("origin", "scheme", "own"),
    [
        ("http://likes.example:8000", "ws", True),
        ("http://LIKES.example:8000", "ws", True),
        ("http://likes.example:9000", "ws", False),  # another program of this machine
        ("http://likes.example", "ws", False),
        ("https://likes.example:8000", "ws", False),
        ("https://likes.example:8000", "wss", True),
        ("https://trusted.example", "wss", True),
        ("https://trusted.example:444", "wss", False),
        ("http://trusted.example", "wss", False),
        ("null", "ws", False),
        ("", "ws", False),
        ("http://likes.example:99999", "ws", False),
    ],
)
def test_whole_origins_are_compared(settings, origin, scheme, own):
    settings.ALLOWED_HOSTS, settings.CSRF_TRUSTED_ORIGINS = ["likes.example"], ["https://trusted.example"]
    headers = [(b"host", b"likes.example:8000"), (b"origin", origin.encode())]
    assert is_own({"scheme": scheme, "headers": headers}) == own
    assert not is_own({"scheme": scheme, "headers": [(b"host", b"evil.example"), (b"origin", b"http://evil.example")]})
