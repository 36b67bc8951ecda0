"""One server for all browser tests, one browser a module; a project, people and pages for each test."""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.test import Client

from tests import servers
from tests.e2e.helpers import CHROMIUM, FLAGS
from tests.servers import database_url, temporary_folder, wait_for
from tests.webapp.conftest import make_ready
from webapp.accounts.models import User
from webapp.campaigns.models import Membership, Role
from webapp.campaigns.services import create_project

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
DATA = temporary_folder("e2e")


@pytest.fixture(autouse=True)
def data_folder(settings):
    """The server's data folder, for the test too; overrides the one of the other tests."""
    settings.LIKESTEP_DATA = DATA
    return DATA


@pytest.fixture(scope="module")
def browser():
    """Chromium."""
    from playwright.sync_api import sync_playwright

    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def server(django_db_setup, django_db_blocker):
    """The address of a web server on the tests' database."""
    with django_db_blocker.unblock():
        url = database_url()
    with serve(DATABASE_URL=url) as address:
        yield address


@contextmanager
def serve(**more: str):
    """A web server with these variables too; its address."""
    with servers.serve(LIKESTEP_DATA=str(DATA), **more) as port:
        yield f"http://127.0.0.1:{port}"


class Site:
    """A project on the server, and pages of its people."""

    def __init__(self, browser, address: str):
        self.browser, self.address, self.contexts = browser, address, []
        self.project = create_project(
            "stars", "Stars", model_dir="x", student_dir="x", prompts=[{"prompt": "a star"}], group_size=4
        )

    def ready(self, count: int, size: int = 4, pixels: int = 128) -> list:
        """Groups waiting for people."""
        self.project.refresh_from_db()
        self.project.group_size = size
        self.project.save()
        return make_ready(self.project, count, pixels=pixels)

    def person(self, name: str, role=Role.ANNOTATOR) -> User:
        """A member."""
        user = User.objects.create_user(name)
        Membership.objects.create(user=user, project=self.project, role=role)
        return user

    def context(self, user, **options):
        """A browser of that person, logged in."""
        # Without a service worker, so that tests see the requests; tests/e2e/test_installed.py has the others.
        context = self.browser.new_context(**{"viewport": DESKTOP, "service_workers": "block", **options})
        self.contexts.append(context)
        client = Client()
        client.force_login(user)
        name = django_settings.SESSION_COOKIE_NAME
        context.add_cookies([{"name": name, "value": client.cookies[name].value, "url": self.address}])
        return context

    def url(self, path: str) -> str:
        """A page of the project."""
        return f"{self.address}/p/{self.project.slug}/{path}"

    def rate(self, context):
        """A rating page with a group on it."""
        page = context.new_page()
        page.goto(self.url("annotate/"))
        page.locator("#grid .tile-image").first.wait_for()
        return page


def quiet() -> bool:
    """Whether the server asks the database nothing; emptying the tables would deadlock with a request."""
    if connection.vendor != "postgresql":
        return True
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'"
    with connection.cursor() as cursor:
        for _ in range(5):
            cursor.execute(query + " AND pid <> pg_backend_pid()")
            if cursor.fetchone()[0]:
                return False
            time.sleep(0.04)
    return True


@pytest.fixture
def site(transactional_db, browser, server):
    """A fresh project."""
    site = Site(browser, server)
    yield site
    for context in site.contexts:
        context.close()
    wait_for(quiet, 10, every=0.05)
