"""Downloads that are computed while they are sent, by a real server: whole, and no more at once than may be."""

import http.client
import io
import socket
import zipfile
from contextlib import contextmanager

import pytest
from django.db import connection

from tests.servers import database_url, serve, wait_for
from tests.webapp import acting
from webapp.api.services import create_token
from webapp.lib import paths

THREADS, STREAMS, IMAGE = 2, 1, 4_000_000
ZIP, LINES = ("/api/v1/projects/stars/export?format=labels&container=" + name for name in ("zip-jsonl", "jsonl"))
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def token(project, boss):
    return {"Authorization": f"Bearer {create_token(project, boss, 'export', ['admin'])[1]}"}


@pytest.fixture
def port(project, ann, ready, data_folder):
    """A server that sends one export at once; the one with the images is more than the buffers between two sockets take."""
    for group in ready(3):
        acting.submit(ann, project, group, [1, 0, 1, 0])
        for i in range(group.size):
            paths.data(paths.image(project.pk, group.pk, i)).write_bytes(bytes([i]) * IMAGE)
    with serve(
        DATABASE_URL=database_url(),
        PGAPPNAME="streams",  # read by PostgreSQL's client
        LIKESTEP_DATA=str(data_folder),
        LIKESTEP_WEB_THREADS=str(THREADS),
        LIKESTEP_STREAMS=str(STREAMS),
    ) as number:
        yield number


@contextmanager
def asked(port, path, headers):
    """The answer, of which nothing but the headers is read yet, over a connection with a small window."""
    made = http.client.HTTPConnection("localhost", port, timeout=30)
    made.sock = socket.socket()
    made.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.sock.settimeout(30)
    made.sock.connect(("127.0.0.1", port))
    try:
        made.request("GET", path, headers=headers)
        with made.getresponse() as answer:
            yield answer
    finally:
        made.close()


def held():
    """Connections that the server has to the database now."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'streams'")
        return cursor.fetchone()[0]


def test_an_export_arrives_whole(port, token, client):
    made = client.get(LINES, headers=token)
    with asked(port, LINES, token) as answer:
        assert answer.status == 200
        for name in ("Content-Type", "Content-Disposition", "Cache-Control"):
            assert answer.headers[name] == made[name]
        assert answer.read().replace(b"localhost:%d" % port, b"testserver") == b"".join(made.streaming_content)
    with asked(port, ZIP, token) as answer, zipfile.ZipFile(io.BytesIO(answer.read())) as packed:
        assert packed.testzip() is None
        images = [i for i in packed.infolist() if i.filename.startswith("images/")]
        assert [i.file_size for i in images] == [IMAGE] * 12


def test_as_many_exports_at_once_as_may_be(port, token):
    with asked(port, ZIP, token) as first:
        assert first.status == 200
        for _ in range(THREADS + 1):  # who is refused leaves the thread to others
            with asked(port, LINES, token) as other:
                assert (other.status, other.headers["Retry-After"]) == (503, "60")
                assert b"LIKESTEP_STREAMS" in other.read()
        with asked(port, "/api/v1/projects/stars/prompts", token) as page:
            assert page.status == 200
        assert len(first.read()) > 12 * IMAGE  # unharmed by all that

    def comes() -> bool:
        with asked(port, LINES, token) as answer:
            return answer.status == 200 and len(answer.read().splitlines()) == 12

    assert wait_for(comes, 5)
    with asked(port, ZIP, token) as left_early:
        assert left_early.status == 200
    assert wait_for(comes, 10)  # whoever leaves half-way makes room
    if connection.vendor == "postgresql":
        assert wait_for(lambda: held() <= THREADS, 5)  # a stream's own connection ends with it
