"""The remote oracle against a real HTTP server on this machine."""

import base64
import io
import socket
import ssl
import time

import pytest
import trustme
from PIL import Image

from tests.trainer.oracles.serving import serve, status
from trainer.oracles import get_oracle
from trainer.oracles.remote import RemoteOracle
from trainer.oracles.server import ServerError

GOOD = {"score": 0.5, "liked": True, "reason": "nice"}


def colors(handler, request):
    """The score of an image is its red channel, so order and content can be told."""
    images = [Image.open(io.BytesIO(base64.b64decode(item["image"]))) for item in request["items"]]
    assert all(i.format == "PNG" for i in images)
    rows = [{**GOOD, "score": i.getpixel((0, 0))[0] / 255} for i in images]
    handler.answer(200, {"verdicts": rows})


def asleep(handler, request):
    time.sleep(6)


def dripping(handler, request):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(60):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


@pytest.fixture
def server(running):
    running.requests, running.answers = [], [colors]
    return running


def remote(server, **options):
    url = f"http://127.0.0.1:{server.server_port}/judge?v=1"
    return RemoteOracle(**{"url": url, "allow_private": True, "timeout": 5.0, "backoff": 0.01, **options})


def ask(oracle, reds=(255,)):
    images = [Image.new("RGB", (4, 4), (red, 0, 0)) for red in reds]
    return oracle.score(images, [f"prompt {r}" for r in reds], [{"tag": "colors"}] * len(reds))


def test_images_go_out_in_batches_and_verdicts_come_back_in_order(server, monkeypatch):
    monkeypatch.setenv("JUDGE_TOKEN", "sesame")
    verdicts = ask(remote(server, batch=2, token_env="JUDGE_TOKEN"), (0, 51, 255))
    assert [v.score for v in verdicts] == [0, 0.2, 1]
    assert verdicts[0].correct is True  # as `liked`, where the answer leaves it out
    assert [len(request["items"]) for _, _, request in server.requests] == [2, 1]
    path, headers, request = server.requests[0]
    assert path == "/judge?v=1"
    assert headers["Authorization"] == "Bearer sesame"
    assert headers["Host"] == f"127.0.0.1:{server.server_port}"
    assert request["version"] == 1
    assert {k: request["items"][1][k] for k in ("prompt", "metadata")} == {
        "prompt": "prompt 51",
        "metadata": {"tag": "colors"},
    }


def test_it_is_made_from_a_spec(server):
    oracle = get_oracle(f"remote:url=http://127.0.0.1:{server.server_port}/,allow_private=true")
    assert [v.reason for v in ask(oracle)] == ["nice"]


def test_a_500_is_tried_again(server):
    server.answers = [status(500), status(503), colors]
    assert [v.score for v in ask(remote(server))] == [1]
    assert len(server.requests) == 3


def test_retries_are_bounded(server):
    server.answers = [status(500)]
    with pytest.raises(ServerError, match=r"no answer after 3 tries; the last: status 500"):
        ask(remote(server, retries=2))
    assert len(server.requests) == 3


def test_waits_double(server, monkeypatch):
    waits = []
    monkeypatch.setattr("trainer.oracles.server.time.sleep", waits.append)
    server.answers = [status(500)]
    with pytest.raises(ServerError):
        ask(remote(server, backoff=1.0))
    assert waits == [1, 2, 4]


@pytest.mark.parametrize("answer", [asleep, dripping])
def test_an_answer_that_takes_too_long_is_given_up(server, answer):
    server.answers = [answer]
    start = time.monotonic()
    with pytest.raises(ServerError, match=r"after 1 tries; the last: .*(timed out|longer than 0\.3 s)"):
        ask(remote(server, timeout=0.3, retries=0))
    assert time.monotonic() - start < 4


def test_a_server_that_is_away_is_tried_again(server):
    with pytest.raises(ServerError, match="after 2 tries"):
        ask(remote(server, url="http://127.0.0.1:9/", retries=1))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{not json", r"the answer is not JSON"),
        (b"[" * 100_000, r"the answer is not JSON"),
        (b"\x80\x04K\x01.", r"the answer is not JSON"),
        ([], r"remote\.verdicts: the answer has no such list"),
        ({"verdicts": []}, r"1 images were sent and 0 verdicts came back"),
        ({"verdicts": [GOOD, GOOD]}, r"1 images were sent and 2 verdicts came back"),
        ({"verdicts": ["good"]}, r"remote\.verdicts\[0\]: 'good' is not an object"),
        ({"verdicts": [{**GOOD, "score": 1.1}]}, r"verdicts\[0\]\.score: 1\.1 is not a number in 0\.\.1"),
        (b'{"verdicts": [{"score": NaN, "liked": true}]}', r"verdicts\[0\]\.score: nan is not"),
        ({"verdicts": [{**GOOD, "score": True}]}, r"verdicts\[0\]\.score: True is not"),
        ({"verdicts": [{**GOOD, "liked": 1}]}, r"verdicts\[0\]\.liked: 1 is not true or false"),
        ({"verdicts": [{**GOOD, "correct": None}]}, r"verdicts\[0\]\.correct: None is not true or false"),
        ({"verdicts": [{**GOOD, "reason": ["x"]}]}, r"verdicts\[0\]\.reason: \['x'\] is not text"),
        (b" " * 200_001, r"remote\.max_response: the answer is longer than 200000 bytes"),
    ],
)
def test_a_malformed_answer_is_refused_at_once(server, body, message):
    server.answers = [status(200, body)]
    with pytest.raises(ServerError, match=message):
        ask(remote(server, max_response=200_000))
    assert len(server.requests) == 1


def test_a_long_reason_is_cut(server):
    server.answers = [status(200, {"verdicts": [{**GOOD, "reason": "x" * 5000}]})]
    assert len(ask(remote(server))[0].reason) == 500


@pytest.mark.parametrize("code", [302, 404])
def test_other_statuses_are_refused_and_redirects_not_followed(server, code):
    server.answers = [status(code, Location="/elsewhere"), colors]
    with pytest.raises(ServerError, match=f"status {code}, not 200"):
        ask(remote(server))
    assert len(server.requests) == 1


def test_private_addresses_are_refused_unless_allowed(server):
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(ServerError, match=rf"remote\.url: {host} has the address .*set allow_private=true"):
            ask(remote(server, url=f"http://{host}:{server.server_port}/", allow_private=False))
    assert server.requests == []


def test_tls_checks_the_name_although_the_address_is_asked(tmp_path, monkeypatch):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = serve(context)
    server.answers = [colors]
    named, other = (
        remote(server, url=f"https://{host}:{server.server_port}/", retries=0) for host in ("localhost", "127.0.0.1")
    )
    with pytest.raises(ServerError, match="certificate verify failed"):
        ask(named)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert [v.score for v in ask(named)] == [1]
    with pytest.raises(ServerError, match=r"127\.0\.0\.1"):
        ask(other)
    assert len(server.requests) == 1
    server.shutdown()
    server.server_close()


def test_a_name_that_answers_differently_the_second_time_changes_nothing(server, monkeypatch):
    """DNS rebinding: one look-up a try, and the connection is made to the address that was looked at."""
    resolve, answers = socket.getaddrinfo, ["127.0.0.1", "127.0.0.9"]

    def rebinding(host, port, *rest, **options):
        return resolve(answers.pop(0) if host == "rebind.example" else host, port, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    ask(remote(server, url=f"http://rebind.example:{server.server_port}/", retries=0))
    assert answers == ["127.0.0.9"]
    ((_, headers, _),) = server.requests
    assert headers["Host"] == f"rebind.example:{server.server_port}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ftp://host/"}, r"remote\.url: 'ftp://host/' is not an http"),
        ({"url": "http://me:secret@host/"}, r"remote\.url"),
        ({"url": "http://"}, r"remote\.url"),
        ({"batch": 0}, r"remote\.batch: is 0; it must be at least 1"),
        ({"timeout": 0}, r"remote\.timeout"),
        ({"token_env": "NOT_SET_ANYWHERE"}, r"remote\.token_env: the environment variable NOT_SET_ANYWHERE is not set"),
    ],
)
def test_wrong_options_name_the_field(options, message):
    with pytest.raises(ValueError, match=message):
        RemoteOracle(**{"url": "http://host/", **options})
