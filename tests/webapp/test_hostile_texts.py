"""What people write is text: on every page that shows it, in the admin's pages, in JSON and on the socket.

Each field that somebody may write holds markup that names the field. Every page is parsed as a browser would; a page on
which one of them became an element or an attribute fails, and so does a field that no page shows any more, since it is then
not tested.
"""

import asyncio
import re
from datetime import timedelta
from html.parser import HTMLParser

import pytest
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.webapp.conftest import routes
from tests.webapp.written import FIELDS, NOT_PAGES, everywhere
from webapp.accounts.models import User
from webapp.labelling import generation
from webapp.lib.broker import project_channel
from webapp.rounds import services as rounds
from webapp.rounds.models import TrainingRound


def hostile(field: str) -> str:
    """Markup that would be an element in a text and end an attribute's value or a script, whatever quotes it has."""
    return f"\"'></script><img id=xss-{field} src=x onerror=alert(1)>"


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = [(k, v or "") for k, v in attributes]
        if any(k.startswith("on") or (k == "id" and v.startswith("xss-")) for k, v in values):
            self.elements.append((tag, values))
        if any(k in ("href", "src", "action") and re.match(r"\s*(javascript|data):", v, re.I) for k, v in values):
            self.elements.append((tag, values))
        self.texts += [v for _, v in values]

    def handle_data(self, data):
        self.texts.append(data)

    def shown(self) -> set[str]:
        """The fields whose text is here."""
        return set(re.findall(r"<img id=xss-(\w+)", "\n".join(self.texts)))


@pytest.fixture
def written(project, address, ready, person, boss):
    """Markup wherever somebody may write."""
    return everywhere(project, ready, person, boss, hostile)


def visit(client, addresses) -> set[str]:
    """Read pages; the fields that they show. Fails where one of them is more than text."""
    shown = set()
    for path in addresses:
        answer = client.get(path)
        assert answer.status_code < 500, path
        if answer.status_code != 200:
            continue
        if answer["Content-Type"].startswith("text/html"):
            page = Page(answer.content.decode())
            assert page.elements == [], path
            shown |= page.shown()
        else:
            assert answer["Content-Type"] in ("application/json", "text/plain; charset=utf-8", "image/webp"), path
            assert answer["X-Content-Type-Options"] == "nosniff"
    return shown


def test_on_every_page(written, address, client, boss):
    client.force_login(boss)
    named = {name for name, _ in routes() if not name.startswith(("admin:", "api:"))}
    pages = sorted(named - NOT_PAGES)  # those that take POST alone answer with 405
    more = [address("review-list") + "?show=all", address("review-list") + "?show=ties"]
    more.append(reverse("round", args=["stars", 1]))
    shown = visit(client, [*map(address, pages), *more])
    partial = client.get(address("dashboard"), headers={"HX-Request": "true"})
    assert Page(partial.content.decode()).elements == []
    assert set(FIELDS) - shown == set()


def test_in_the_admins_pages(written, client):
    client.force_login(User.objects.create_superuser("root"))
    paths = []
    for name, route in routes():
        if name.startswith("admin:") and name.endswith("_changelist") and not route.pattern.converters:
            path = reverse(name)
            paths.append(path)
            listed = client.get(path).content.decode()
            paths += [f"{path}{row}/change/" for row in re.findall(rf"{path}(\d+)/change/", listed)]
    shown = visit(client, paths)
    assert {"user", "project", "guidelines", "prompt", "metadata"} <= shown


def test_a_refusal_does_not_repeat_it_as_markup(written, client, boss):
    client.force_login(boss)
    bad = hostile("refused")
    answers = [
        client.post("/p/stars/rounds/start/", {"key": "k", "updates": bad}),
        client.post("/p/stars/api/", {"action": "webhook", "url": bad, "events": ["round.finished"]}),
        client.get("/p/stars/review/", {"show": bad}),
        client.get("/p/stars/audit/", {"page": bad}),
        client.get(f"/p/stars/{bad}/"),
        Client().get(f"/join/{bad}/"),
        Client().post("/login/", {"username": bad, "password": bad}),
        Client().get("/login/", {"next": bad}),
        Client().get("/login/", {"next": "javascript:alert(1)"}),
    ]
    for answer in answers:
        assert answer.status_code < 500
        if answer["Content-Type"].startswith("text/html"):
            assert Page(answer.content.decode()).elements == []


@pytest.mark.django_db(transaction=True)
def test_notices_on_the_socket_carry_numbers_only(written, person):
    """The page asks the server for the texts, so that they go through a template."""
    layer = get_channel_layer()

    async def collect():
        channel = await layer.new_channel()
        await layer.group_add(project_channel(written.pk), channel)
        await asyncio.to_thread(change)
        notices = []
        try:
            while True:
                notices.append(await asyncio.wait_for(layer.receive(channel), 2))
        except TimeoutError:
            return notices

    def change():
        from django.db import connection

        generation.top_up(written.pk)
        training = rounds.start_round(written, {}, idempotency_key="again")
        claimed = rounds.claim_round(training.pk, hostile("worker"))
        progress = {"phase": "train", "step": 1, "total": 2, "seconds_left": 1, "metrics": {"reward": 1.0}}
        rounds.heartbeat(training.pk, claimed.token, progress)
        rounds.fail_round(training.pk, claimed.token, hostile("round"))
        connection.close()

    TrainingRound.objects.update(finished_at=timezone.now() - timedelta(hours=1))
    notices = async_to_sync(collect)()
    assert {notice["event"] for notice in notices} >= {"round", "progress"}
    for notice in notices:
        assert all(isinstance(value, int) for name, value in notice.items() if name not in ("type", "event")), notice
