"""Bodies that are too large are refused before they are read, by a real server; threads and their connections stay."""

import asyncio
import http.client
import json
import socket
import threading
import time
from contextlib import suppress

import pytest
from django.db import connection
from django.test import Client

from tests.servers import database_url, serve
from tests.webapp import acting
from tests.webapp.conftest import make_ready
from webapp.api.services import create_token
from webapp.lib.handler import Threads, Turns

PROMPTS, IMPORT, BODY, ANONYMOUS, THREADS = 4_000, 30_000, 20_000, 1_000, 3
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def port(boss, ann, project, data_folder):
    """A server with small limits on the tests' database."""
    limits = {"PROMPTS": PROMPTS, "IMPORT": IMPORT, "BODY": BODY, "ANONYMOUS": ANONYMOUS}
    with serve(
        DATABASE_URL=database_url(),
        PGAPPNAME="uploads",  # read by PostgreSQL's client
        LIKESTEP_DATA=str(data_folder),
        LIKESTEP_WEB_THREADS=str(THREADS),
        **{f"LIKESTEP_{name}_LIMIT": str(value) for name, value in limits.items()},
    ) as number:
        yield number


def logged_in(user):
    """Headers of a browser in which the person has logged in."""
    client = Client()
    client.force_login(user)
    session, csrf = client.cookies["sessionid"].value, "c" * 32
    return {"Cookie": f"sessionid={session}; csrftoken={csrf}", "X-CSRFToken": csrf, "Accept": "application/json"}


def announce(port, path, length, headers, body=b""):
    """The answer to headers that announce `length` bytes, of which only `body` is sent: (status, text, seconds)."""
    started = time.monotonic()
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    asked.putrequest("POST", path)
    for name, value in {**headers, "Content-Length": str(length)}.items():
        asked.putheader(name, value)
    asked.endheaders(body)
    answer = asked.getresponse()
    return answer.status, answer.read().decode(), time.monotonic() - started


def chunked(port, path, size, headers):
    """The answer to a body of `size` bytes that does not say how long it is."""
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with suppress(BrokenPipeError, ConnectionResetError):  # refused half-way
        asked.request("POST", path, (b"x" * 500 for _ in range(size // 500)), headers, encode_chunked=True)
    answer = asked.getresponse()
    return answer.status, answer.read().decode()


def held(port):
    """Connections that the server has to the database now."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'uploads'")
        return cursor.fetchone()[0]


def test_limits_threads_and_connections(port, boss, ann, project):
    """One server for all: it takes seconds to start."""
    mine, admin = logged_in(ann), logged_in(boss)
    token = {"Authorization": f"Bearer {create_token(project, boss, 'up', ['admin'])[1]}"}

    # Nobody is asked for more than a log-in needs before the log-in, and nothing of it is waited for.
    for path in ("/login/", "/p/stars/prompts/", "/p/stars/import/", "/api/v1/projects/stars/prompts", "/nowhere/"):
        status, text, took = announce(port, path, ANONYMOUS + 1, {})
        assert (status, took < 5) == (401, True), path
        assert "1,000 bytes (LIKESTEP_ANONYMOUS_LIMIT)" in text
    assert chunked(port, "/login/", 3 * ANONYMOUS, {})[0] == 401
    assert announce(port, "/login/", 100, {}, b"x" * 100)[0] == 403  # read, and refused for its missing CSRF token
    assert announce(port, "/api/v1/projects/stars/prompts", 5000, {"Authorization": "Bearer ls_wrong"})[0] == 401

    # Whoever is known is told the limit of the address.
    for path, most, name in (
        ("/p/stars/prompts/", PROMPTS + BODY, "LIKESTEP_PROMPTS_LIMIT"),
        ("/projects/new/", PROMPTS + BODY, "LIKESTEP_PROMPTS_LIMIT"),
        ("/p/stars/import/", IMPORT + BODY, "LIKESTEP_IMPORT_LIMIT"),
        ("/p/stars/undo/", BODY, "LIKESTEP_BODY_LIMIT"),
    ):
        status, text, _took = announce(port, path, most + 1, admin)
        assert status == 413, path
        assert json.loads(text)["error"] == (
            f"body: {most + 1:,} bytes are too many; this address takes at most {most:,} ({name})"
        )
    status, text, _took = announce(port, "/api/v1/projects/stars/import", IMPORT + BODY + 1, token)
    assert status == 413 and "LIKESTEP_IMPORT_LIMIT" in json.loads(text)["detail"]
    assert chunked(port, "/p/stars/undo/", BODY + 2000, mine)[0] == 413
    german = announce(port, "/p/stars/undo/", BODY + 1, {**mine, "Accept-Language": "de"})[1]
    assert "höchstens" in json.loads(german)["error"]

    # What is within the limits is read as before.
    (group,) = make_ready(project, 1)
    acting.give(ann, group.pk)
    body = json.dumps({"labels": {str(i): True for i in range(4)}, "key": "k", "note": "x" * (BODY - 1000)}).encode()
    status, text, _took = announce(port, f"/p/stars/groups/{acting.task(ann, group)}/submit/", len(body), mine, body)
    assert (status, json.loads(text)["saved"]) == (200, acting.task(ann, group))

    # Slow senders hold no thread: the server answers others meanwhile.
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(THREADS + 2)]
    for s in slow:
        s.sendall(b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\nx")
    answers = []

    def ask():
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for _ in range(4):
            asked.request("GET", "/p/stars/groups/next/", headers=mine)
            answer = asked.getresponse()
            answer.read()
            answers.append(answer.status)

    threads = [threading.Thread(target=ask) for _ in range(15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 60
    for s in slow:
        s.close()
    if connection.vendor == "postgresql":
        assert 1 <= held(port) <= THREADS


def test_a_thread_that_is_free_is_used_again_and_no_more_than_the_most_are_made():
    async def many():
        pool, names = Threads(2), set()

        async def one():
            async with pool.one() as thread:
                first = await thread.run(threading.get_ident)
                await thread.run(time.sleep, 0.005)
                assert await thread.run(threading.get_ident) == first
                names.add(first)

        await one()
        await one()
        assert len(names) == 1
        await asyncio.gather(*(one() for _ in range(10)))
        return names

    assert len(asyncio.run(many())) == 2


def test_addresses_take_turns():
    async def many():
        turns, order, held = Turns(1), [], asyncio.Event()

        async def one(address):
            async with turns.one(address):
                order.append(address)
                await held.wait()

        tasks = [asyncio.ensure_future(one(address)) for address in ["a"] * 6 + ["b", "c", "b"]]
        await asyncio.sleep(0)
        tasks[2].cancel()  # who leaves while waiting takes nobody's turn
        held.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == ["a", "a", "b", "c", "a", "b", "a", "a"]
        last = asyncio.ensure_future(one("d"))
        await last
        first, second = asyncio.ensure_future(one("e")), asyncio.ensure_future(one("f"))
        held.clear()
        await asyncio.sleep(0)
        held.set()
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        async with asyncio.timeout(1), turns.one("g"):  # the turn is not lost
            pass

    asyncio.run(many())
