"""Every address and the socket against everybody, from one table: outsiders learn nothing, not even that a project exists.

A new route fails `test_every_address_has_a_row` until it has a row in TABLE (and its arguments in the fixture `address`).
"""

import asyncio
import re

import pytest
from asgiref.sync import async_to_sync
from asgiref.testing import ApplicationCommunicator
from django.conf import settings
from django.test import Client
from django.urls import reverse

from tests.webapp.conftest import routes
from webapp import asgi
from webapp.accounts.models import User
from webapp.accounts.permissions import NEEDED, RANK, Action
from webapp.campaigns.services import create_project
from webapp.dashboard.consumers import Nowhere

EVERYBODY, LOGGED_IN, MEMBERS, REVIEWERS, ADMINS, SUPERUSERS, ITS_OWNER = range(7)
# address → (method, who may)
TABLE = {
    "home": ("get", LOGGED_IN),
    "login": ("get", EVERYBODY),
    "logout": ("post", EVERYBODY),
    "join": ("get", EVERYBODY),
    "account": ("get", LOGGED_IN),
    "forgot": ("get", EVERYBODY),
    "reset-password": ("get", EVERYBODY),  # and then who holds a link that works
    "sso-login": ("post", EVERYBODY),
    "sso-callback": ("get", EVERYBODY),  # and then who comes from the issuer, in the browser that went there
    "study": ("get", EVERYBODY),  # and then whom Prolific sends with a link that works
    "healthz": ("get", EVERYBODY),
    "readyz": ("get", EVERYBODY),
    "metrics": ("get", EVERYBODY),  # from this machine; tests/webapp/operations/test_operations.py has the others
    "new-project": ("get", LOGGED_IN),  # and an admin of some project, see MAKERS
    "service-worker": ("get", EVERYBODY),
    "app-manifest": ("get", MEMBERS),
    "annotate": ("get", MEMBERS),
    "next-groups": ("get", MEMBERS),
    "submit": ("post", MEMBERS),
    "skip": ("post", MEMBERS),
    "flag": ("post", MEMBERS),
    "undo": ("post", MEMBERS),
    "guidelines": ("get", MEMBERS),
    "me": ("get", MEMBERS),
    "language": ("post", MEMBERS),
    "flags": ("get", REVIEWERS),
    "image": ("get", REVIEWERS),
    "task-image": ("get", ITS_OWNER),  # whoever was given the group
    "task-input": ("get", ITS_OWNER),
    "input-image": ("get", REVIEWERS),
    "add-input": ("post", ADMINS),
    "example-image": ("get", MEMBERS),
    "agree": ("get", MEMBERS),
    "practice": ("get", MEMBERS),
    "practice-image": ("get", ITS_OWNER),  # whoever practises on it
    "rated": ("get", MEMBERS),
    "compare": ("get", MEMBERS),
    "next-pairs": ("get", MEMBERS),
    "vote": ("post", MEMBERS),
    "pair-image": ("get", REVIEWERS),  # and the person who has it on screen
    "versions": ("get", REVIEWERS),
    "version-scores": ("get", REVIEWERS),
    "download-lora": ("get", ADMINS),
    "download-package": ("get", ADMINS),
    "share-version": ("post", ADMINS),
    "start-comparison": ("post", ADMINS),
    "comparison": ("get", REVIEWERS),
    "stop-comparison": ("post", ADMINS),
    "dashboard": ("get", REVIEWERS),
    "gallery": ("get", REVIEWERS),
    "gallery-download": ("get", ADMINS),
    "retry-group": ("post", ADMINS),
    "dashboard-series": ("get", REVIEWERS),
    "api-access": ("get", MEMBERS),
    "people": ("get", ADMINS),
    "studies": ("get", ADMINS),
    "project-settings": ("get", ADMINS),
    "prompts": ("get", ADMINS),
    "clone-project": ("post", ADMINS),
    "archive-project": ("post", ADMINS),
    "ask-oracle-again": ("post", ADMINS),
    "oracle-threshold": ("post", ADMINS),
    "audit-log": ("get", ADMINS),
    "export": ("get", ADMINS),
    "export-download": ("get", ADMINS),
    "import-labels": ("post", ADMINS),
    "own-images": ("get", ADMINS),
    "quality": ("get", REVIEWERS),
    "quality-agreement": ("get", REVIEWERS),
    "review-list": ("get", REVIEWERS),
    "review": ("get", REVIEWERS),
    "gold": ("post", REVIEWERS),
    "start-round": ("get", ADMINS),
    "round-plan": ("get", ADMINS),
    "round-card": ("get", ADMINS),
    "round-memory": ("get", ADMINS),
    "round": ("get", REVIEWERS),
    "round-metrics": ("get", REVIEWERS),
    "cancel-round": ("post", ADMINS),
    "round-grid": ("get", REVIEWERS),
    "try": ("get", REVIEWERS),
    "start-trial": ("post", ADMINS),
    "trial": ("get", REVIEWERS),
    "cancel-trial": ("post", ADMINS),
    "trial-prompt": ("post", ADMINS),
    "trial-image": ("get", REVIEWERS),
    "decide-version": ("post", ADMINS),
}
SOCKETS = {"ws/projects/<slug:slug>/": REVIEWERS}
# What each may do, the superuser aside, who may do everything.
PEOPLE = {
    "nobody": EVERYBODY,
    "annotator elsewhere": LOGGED_IN,
    "admin elsewhere": LOGGED_IN,
    "annotator here": MEMBERS,
    "reviewer here": REVIEWERS,
    "admin here": ADMINS,
    "superuser": SUPERUSERS,
}
MAKERS = {"admin elsewhere", "admin here", "superuser"}  # of projects
PAGES = (
    "annotate",
    "guidelines",
    "agree",
    "practice",
    "studies",
    "me",
    "flags",
    "dashboard",
    "start-round",
    "round",
    "people",
    "project-settings",
    "prompts",
    "audit-log",
    "export",
    "api-access",
    "quality",
    "review-list",
    "review",
    "versions",
    "comparison",
    "compare",
    "try",
    "trial",
    "gallery",
    "new-project",
    "home",
)


def let_in(name: str, who: str) -> bool:
    """Whether the table lets them in."""
    return who in MAKERS if name == "new-project" else PEOPLE[who] >= TABLE[name][1]


def test_every_address_has_a_row():
    # The API has its own table: tests/webapp/api/test_api.py.
    assert {name for name, _ in routes() if not name.startswith(("admin:", "api:"))} == set(TABLE)
    *routes_of_sockets, nowhere = asgi.sockets.routes
    assert {str(route.pattern) for route in routes_of_sockets} == set(SOCKETS)
    assert nowhere.callback.consumer_class is Nowhere


def level(action) -> int:
    """What the one table (`accounts.permissions`) says of an action, as this file counts it."""
    return MEMBERS + RANK[NEEDED[action]]


def test_pages_and_the_socket_ask_the_one_table():
    """And the API: tests/webapp/api/test_api.py. A view of a project without an action is found here."""
    assert set(NEEDED) == set(Action)
    views = {name: route.callback for name, route in routes() if "slug" in route.pattern.converters}
    views = {name: view for name, view in views.items() if not name.startswith(("admin:", "api:"))}
    # And there only the person who has it on screen.
    own = dict.fromkeys(("pair-image", "task-image", "task-input", "practice-image"), MEMBERS)
    assert {name: level(view.action) for name, view in views.items()} == {
        name: own.get(name, TABLE[name][1]) for name in views
    }
    for route in asgi.sockets.routes[:-1]:  # the last is every other address, which is refused
        assert level(route.callback.consumer_class.action) == SOCKETS[str(route.pattern)]


@pytest.fixture
def browsers(person, ann):
    """A logged-in client for everybody of PEOPLE."""
    create_project("other", "Other", model_dir="x", student_dir="x", prompts=[{"prompt": "x"}])
    found = {}
    for name in PEOPLE:
        user, (role, *where) = None, name.split()
        if where:
            user = person(name, role if where == ["here"] else None)
            if where == ["elsewhere"]:
                user.memberships.create(project=_project("other"), role=role)
        elif name == "superuser":
            user = User.objects.create_superuser(name)
        found[name] = Client()
        if user:
            found[name].force_login(user)
    return found


def _project(slug):
    from webapp.campaigns.models import Project

    return Project.objects.get(slug=slug)


def refused(answer) -> bool:
    """404 where a project's existence is a secret, else the way to the log-in page."""
    return answer.status_code == 404 or (answer.status_code == 302 and "/login/" in answer.url)


@pytest.mark.parametrize("name", TABLE)
def test_an_address_lets_in_whom_its_row_names(name, address, browsers):
    method, needed = TABLE[name]
    for who, rank in PEOPLE.items():
        answer = getattr(browsers[who], method)(address(name))
        said_no = refused(answer) and not (name == "logout" and who in browsers)
        allowed = let_in(name, who)
        assert said_no != allowed, (who, answer.status_code)
        assert answer.status_code < 500, who
        if not allowed and rank > EVERYBODY:
            assert answer.status_code == 404, who
        if needed > LOGGED_IN and who == "nobody":
            answer = getattr(browsers[who], method)(address(name), headers={"Accept": "application/json"})
            assert answer.status_code == 401


@pytest.mark.parametrize("name", [n for n, (_, needed) in TABLE.items() if needed >= MEMBERS])
def test_an_admin_elsewhere_cannot_reach_in_through_their_own_project(name, address, browsers, project):
    """The other project's slug with this project's numbers."""
    numbered = re.search(r"\d", address(name))

    def states():
        return list(project.groups.values_list("state")), list(project.versions.values_list("status").order_by("pk"))

    before = states()
    answer = getattr(browsers["admin elsewhere"], TABLE[name][0])(address(name, slug="other"))
    assert answer.status_code < 500
    if numbered and TABLE[name][0] == "get":
        assert answer.status_code == 404
    assert states() == before
    assert not project.groups.get().group_decisions.exists()


def test_the_admin_pages_are_for_superusers(address, browsers):
    names = [(name, route) for name, route in routes() if name.startswith("admin:")]
    assert len(names) > 30
    values = {"object_id": "1", "id": "1", "content_type_id": "1", "app_label": "accounts"}
    for name, route in names:
        arguments = {**route.pattern.converters, **getattr(route.pattern, "regex", re.compile("")).groupindex}
        if not name.removeprefix("admin:"):
            continue  # redirects to one of the others, and what matches nothing
        path = reverse(name, kwargs={k: values[k] for k in arguments})
        for who in PEOPLE:
            answer = browsers[who].get(path)
            if who == "superuser":
                assert not refused(answer) or arguments, (name, answer.status_code)  # there may be no row 1
            elif name not in ("admin:login", "admin:logout"):
                assert answer.status_code in (302, 403, 404, 405), (who, name)
                assert answer.status_code != 302 or "/login/" in answer.url, (who, name)


@pytest.mark.django_db(transaction=True)
def test_the_socket_lets_in_whom_its_row_names(browsers):
    async def knock(who, origin):
        cookie = browsers[who].cookies.get(settings.SESSION_COOKIE_NAME)
        headers = [(b"origin", origin), (b"host", b"testserver")]
        if cookie:
            headers.append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={cookie.value}".encode()))
        scope = {"type": "websocket", "path": "/ws/projects/stars/", "headers": headers, "query_string": b""}
        socket = ApplicationCommunicator(asgi.application, scope)
        await socket.send_input({"type": "websocket.connect"})
        accepted = (await socket.receive_output(10))["type"] == "websocket.accept"
        # channels_redis may swallow one cancellation, and the loop's own at its end would then wait for ever.
        for _ in range(3):
            if not (others := asyncio.all_tasks() - {asyncio.current_task()}):
                break
            for task in others:
                task.cancel()
            await asyncio.wait(others, timeout=1)
        return accepted

    (needed,) = SOCKETS.values()
    for who, rank in PEOPLE.items():
        assert async_to_sync(knock)(who, b"http://testserver") == (rank >= needed), who
        assert not async_to_sync(knock)(who, b"http://evil.example"), who
        assert not async_to_sync(knock)(who, b"http://testserver:8080"), who


def test_images_are_bytes_from_the_data_folder(address, client, ann):
    client.force_login(ann)
    answer = client.get(address("task-image"))
    assert answer["Content-Type"] == "image/webp"
    assert answer.content[:4] == b"RIFF"


def test_pages_allow_nothing_inline(client, boss, address):
    client.force_login(boss)
    for name in PAGES:
        answer = client.get(address(name))
        assert "unsafe" not in answer["Content-Security-Policy"]
        text = answer.content.decode()
        assert "<script>" not in text
        assert " style=" not in text


def test_the_start_form_explains_and_refuses(client, boss, address):
    client.force_login(boss)
    page = client.get(address("start-round")).content.decode()
    assert "Updates in the round</label>" in page
    assert "In each one the surrogate learns from groups, and the student follows it. <code>updates</code>" in page
    answer = client.post(address("start-round"), {"key": "k", "updates": "0"})
    assert answer.status_code == 400
    assert "greater than or equal to 1" in answer.content.decode()
