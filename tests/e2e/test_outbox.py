"""No answer is lost: the line is down, the session has ended, two tabs share the browser."""

import os
import subprocess
import sys

import pytest

from tests.e2e.helpers import CHROMIUM, FLAGS, log_in, rate_by_keyboard, wait_saved
from tests.servers import database_url, free_port, wait_for
from tests.webapp.conftest import make_ready
from webapp.accounts.models import User
from webapp.campaigns.models import Membership
from webapp.campaigns.services import create_project
from webapp.labelling.models import GroupDecision, Label

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no chromium"),
    pytest.mark.django_db(transaction=True),
]
PASSWORD = "correct horse"


@pytest.fixture
def browser(monkeypatch):
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def address(tmp_path):
    project = create_project(
        "stars", "Stars", model_dir="x", student_dir="x", prompts=[{"prompt": "a star"}], group_size=4
    )
    make_ready(project, 8)
    Membership.objects.create(
        user=User.objects.create_user("ann", password=PASSWORD), project=project, role="annotator"
    )
    port = free_port()
    environment = {**os.environ, "DATABASE_URL": database_url(), "DJANGO_SETTINGS_MODULE": "webapp.settings"}
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "webapp.asgi:application",
        "--port",
        str(port),
        "--log-level",
        "warning",
    ]
    server = subprocess.Popen(command, env=environment)
    from urllib.request import urlopen

    def up():
        try:
            return urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1).status == 200
        except OSError:
            return False

    assert wait_for(up, 30)
    yield f"http://127.0.0.1:{port}"
    server.kill()
    server.wait()


def open_rating(context, address):
    page = context.new_page()
    log_in(page, address, "ann", PASSWORD)
    page.goto(f"{address}/p/stars/annotate/")
    page.locator("#grid button").first.wait_for()
    return page


def stuck(page):
    page.wait_for_function("() => document.querySelector('#status').textContent.startsWith('not saved yet')")


def test_answers_given_offline_are_kept_through_a_reload_and_sent_in_order(browser, address):
    context = browser.new_context()
    page = open_rating(context, address)
    context.set_offline(True)
    rated = [rate_by_keyboard(page, lambda position: position == 0) for _ in range(3)]
    stuck(page)
    assert not Label.objects.exists()
    context.set_offline(False)
    page.reload()
    wait_saved(page)
    assert list(GroupDecision.objects.order_by("pk").values_list("group", flat=True)) == rated
    assert Label.objects.count() == 12


def test_an_ended_session_keeps_the_answers_until_the_next_log_in(browser, address):
    context = browser.new_context()
    page = open_rating(context, address)
    context.clear_cookies()
    rate_by_keyboard(page, lambda position: position == 0)
    stuck(page)
    assert not Label.objects.exists()
    log_in(page, address, "ann", PASSWORD)
    page.goto(f"{address}/p/stars/annotate/")
    wait_saved(page)
    assert wait_for(lambda: Label.objects.count() == 4, 10)


def test_two_tabs_lose_nothing_of_each_other(browser, address):
    context = browser.new_context()
    first = open_rating(context, address)
    rated = [rate_by_keyboard(first, lambda position: position == 0)]
    wait_saved(first)
    second = context.new_page()
    second.goto(f"{address}/p/stars/annotate/")
    second.locator("#grid button").first.wait_for()
    rate_by_keyboard(second, lambda position: False)  # so that the tabs show different groups
    wait_saved(second)
    first.reload()
    first.locator("#grid button").first.wait_for()
    context.set_offline(True)
    for page in (first, second):
        rated.append(rate_by_keyboard(page, lambda position: position == 1))
        stuck(page)
    waiting = first.evaluate("Object.keys(localStorage).filter(k => k.startsWith('likestep-outbox-')).length")
    assert waiting == 2
    context.set_offline(False)
    first.reload()
    wait_saved(first)
    assert wait_for(lambda: set(rated) <= set(GroupDecision.objects.values_list("group", flat=True)), 15)
