"""Webhooks: written with the change, signed, tried again, and never sent into a private network."""

import contextlib
import http.server
import json
import socket
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone, translation
from standardwebhooks import Webhook, WebhookVerificationError

from client.likestep_client import check_signature, check_standard_signature
from tests.webapp.acting import submit
from webapp.api import services
from webapp.api.endpoints import api
from webapp.api.models import Delivery
from webapp.lib import options
from webapp.rounds import services as rounds
from webapp.webhooks import outbox, outgoing
from webapp.webhooks.events import EVENTS, PUBLISHED, table

NAMES = list(EVENTS)


@pytest.fixture
def receiver():
    """A real server: (address, what it was sent, statuses it answers with)."""
    got, statuses = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((dict(self.headers), body))
            status = statuses.pop(0) if statuses else 204
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:1/secret")
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook?a=1", got, statuses
    server.shutdown()
    server.server_close()


@pytest.fixture
def local(settings):
    settings.LIKESTEP_WEBHOOK_NETWORKS = ["127.0.0.0/8"]


def hook(project, boss, address, **values):
    return services.create_webhook(project, address, values.pop("events", NAMES), boss, **values)


def test_signatures_are_standard_webhooks():
    """The example of the scheme's reference libraries."""
    signed = outbox.standard_signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def later():
    Delivery.objects.update(next_at=timezone.now() - timedelta(seconds=1))


def test_a_finished_round_is_told_once_and_signed(project, boss, ann, ready, receiver, local):
    address, got, _ = receiver
    webhook = hook(project, boss, address)
    (group,) = ready()
    submit(ann, project, group, [1, 0, 0, 1])
    rounds.cancel_round(rounds.start_round(project, {}, idempotency_key="k").pk)
    (waiting,) = outbox.due()
    assert outbox.deliver(waiting) == "delivered"
    assert outbox.deliver(waiting) is None
    ((headers, body),) = got
    assert check_signature(webhook.secret, headers["X-Likestep-Signature"], body)
    assert not check_signature(webhook.secret, headers["X-Likestep-Signature"], body + b" ")
    assert not check_signature("another", headers["X-Likestep-Signature"], body)
    assert webhook.secret.startswith("whsec_")
    named, moment = headers["webhook-id"], headers["webhook-timestamp"]
    assert headers["webhook-signature"] == outbox.standard_signature(webhook.secret, named, int(moment), body)
    assert check_standard_signature(webhook.secret, headers, body)
    assert Webhook(webhook.secret).verify(body, dict(headers)) == json.loads(body)  # the scheme's own library
    with pytest.raises(WebhookVerificationError):
        Webhook(webhook.secret).verify(body + b" ", dict(headers))
    assert not check_standard_signature(webhook.secret, headers, body + b" ")
    assert not check_standard_signature(webhook.secret, {**headers, "webhook-timestamp": "1"}, body)
    told = json.loads(body)
    assert (told["event"], told["project"]) == ("round.finished", "stars")
    assert (told["data"]["round"], told["data"]["state"]) == (1, "cancelled")


def test_milestones_are_told_once_each(project, boss, ann, ready):
    for group in ready(2):
        submit(ann, project, group, [1, 0, 0, 1])
    webhook = hook(project, boss, "https://example.org/", every=2)
    outbox.announce_milestones()
    assert Delivery.objects.count() == 0  # what was labelled before is no news
    for n, group in enumerate(ready(5)):
        submit(ann, project, group, [1, 0, 0, 1])
        outbox.announce_milestones()
        outbox.announce_milestones()
        assert Delivery.objects.count() == (n + 1) // 2
    assert [d.payload["data"]["labelled_groups"] for d in webhook.deliveries.order_by("id")] == [4, 6]


def test_what_fails_is_tried_again_later_and_then_given_up(project, boss, receiver, local):
    address, got, statuses = receiver
    hook(project, boss, address)
    statuses += [500, 302]
    rounds.publish_version(project, project.active_version_id, by=boss)
    (waiting,) = outbox.due()
    assert outbox.deliver(waiting) == "pending"
    delivery = Delivery.objects.get()
    assert (delivery.status, delivery.error, delivery.attempts) == (500, "answered with 500", 1)
    assert timedelta(seconds=5) < delivery.next_at - timezone.now() < timedelta(seconds=11)
    assert outbox.due() == []
    later()
    assert outbox.deliver(waiting) == "pending"  # a redirect is not followed
    assert len(got) == 2
    waits = []
    for _ in range(options.WEBHOOK_TRIES):
        statuses.append(503)
        later()
        outbox.deliver(waiting)
        waits.append(Delivery.objects.get().next_at - timezone.now())
    assert Delivery.objects.get().state == "failed"
    assert max(waits) <= outbox.LONGEST_WAIT


def test_a_receiver_that_is_away_is_tried_again(project, boss, local):
    hook(project, boss, "http://127.0.0.1:1/")
    rounds.publish_version(project, project.active_version_id)
    assert outbox.deliver(outbox.due()[0]) == "pending"
    assert "ConnectionRefusedError" in Delivery.objects.get().error


def test_two_workers_send_a_message_once(project, boss, receiver, local):
    address, got, _ = receiver
    hook(project, boss, address)
    rounds.publish_version(project, project.active_version_id)
    (waiting,) = outbox.due()
    # Another worker has claimed it and has not come back yet.
    Delivery.objects.update(next_at=timezone.now() + outbox.CLAIM)
    assert outbox.deliver(waiting) is None
    assert got == []


def test_a_name_that_leads_inside_is_never_asked(project, boss, receiver):
    address, got, _ = receiver
    hook(project, boss, address.replace("127.0.0.1", "localhost"))
    rounds.publish_version(project, project.active_version_id)
    assert outbox.deliver(outbox.due()[0]) == "failed"
    assert "not at a public address" in Delivery.objects.get().error
    assert got == []


def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch):
    found = [(2, 1, 6, "", (ip, 443)) for ip in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: found)
    with pytest.raises(outgoing.Refused, match="not at a public address") as refused:
        outgoing.resolve("two-faced.example", 443)
    assert "10.0" not in str(refused.value)  # how names resolve inside is not told to whoever may set a webhook


def test_a_name_that_answers_differently_the_second_time_changes_nothing(receiver, settings, monkeypatch, caplog):
    """DNS rebinding: one look-up, and the connection is made to the address that was looked at."""
    address, got, _ = receiver
    settings.LIKESTEP_WEBHOOK_NETWORKS = ["127.0.0.1/32"]
    resolve, answers = socket.getaddrinfo, ["127.0.0.1", "127.0.0.9"]

    def rebinding(host, port, *rest, **options):
        return resolve(answers.pop(0) if host == "rebind.example" else host, port, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    outgoing.post(address.replace("127.0.0.1", "rebind.example"), b"{}", {})
    assert answers == ["127.0.0.9"]
    assert got[0][0]["Host"].startswith("rebind.example:")
    with pytest.raises(outgoing.Refused, match=r"rebind\.example") as refused:
        outgoing.post(address.replace("127.0.0.1", "rebind.example"), b"{}", {})
    assert len(got) == 1
    assert "127.0.0" not in str(refused.value)  # the operator's log has it
    assert "a webhook's host rebind.example is at 127.0.0.9" in caplog.text


def test_a_receiver_that_answers_byte_by_byte_does_not_hold_a_worker(settings, local, monkeypatch):
    monkeypatch.setattr(outgoing, "LONGEST", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip():
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                for byte in b"HTTP/1.1 200 OK" + 100 * b" ":
                    connection.send(bytes([byte]))
                    time.sleep(0.1)

        threading.Thread(target=drip, daemon=True).start()
        started = time.monotonic()
        with pytest.raises(OSError, match=r"."):
            outgoing.post(f"http://127.0.0.1:{server.getsockname()[1]}/", b"{}", {})
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://example.org/", "starts with https"),
        ("https://", "starts with https"),
        ("https://me:secret@example.org/", "leave name and password out"),
        ("https://example.org:99999/", "url: "),
        ("https://example.org/a\r\nHost: x", "encoded form"),
        ("file:///etc/passwd", "starts with https"),
    ],
)
def test_other_addresses_are_refused_when_they_are_typed(project, boss, url, message):
    with pytest.raises(services.ApiError, match=message):
        hook(project, boss, url)


def test_webhooks_are_for_admins(client, person, project, boss):
    client.force_login(person("rev", "reviewer"))
    form = {"action": "webhook", "url": "https://example.org/", "events": NAMES}
    assert client.post("/p/stars/api/", form).status_code == 400
    assert project.webhooks.count() == 0
    client.force_login(boss)
    page = client.post("/p/stars/api/", form).content.decode()
    secret = project.webhooks.get().secret
    assert secret in page and secret not in client.get("/p/stars/api/").content.decode()


def test_an_event_is_declared_once(client, project, boss):
    """Form, schema and documents show what is declared, and nothing else is told."""
    assert table() in (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text()
    wanted = api.get_openapi_schema()["components"]["schemas"]["WebhookIn"]["properties"]["events"]
    assert wanted["items"]["enum"] == list(EVENTS)
    client.force_login(boss)
    page = client.get("/p/stars/api/").content.decode()
    for event in EVENTS.values():
        assert f'value="{event.name}"' in page and str(event.label) in page
        with translation.override("de"):
            assert str(event.label) not in page  # it is translated
    hook(project, boss, "https://example.org/")
    with pytest.raises(ValueError, match="version\\.published: before is declared otherwise"):
        outbox.tell(project.pk, PUBLISHED, "k", {"version": 1})
