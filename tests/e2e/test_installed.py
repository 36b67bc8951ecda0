"""The rating page as an app on a phone: it opens without a line, with its groups and what was answered, until log-out."""

import os
from contextlib import ExitStack

import pytest

from tests.e2e.conftest import PHONE, Site, serve
from tests.e2e.helpers import CHROMIUM, picture, rate_by_keyboard, wait_loaded
from tests.servers import database_url

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no chromium")
KEPT = """async () => (await caches.has('likestep-pages'))
  ? (await (await caches.open('likestep-pages')).keys()).map((r) => new URL(r.url).pathname).sort() : []"""
BOTH = ["/p/stars/annotate/", "/p/stars/groups/next/"]


@pytest.fixture
def machine(transactional_db, browser):
    """A site on a server of its own, and what switches that off."""
    with ExitStack() as running:
        site = Site(browser, running.enter_context(serve(DATABASE_URL=database_url())))
        site.ready(4)
        yield site, running.close
        for context in site.contexts:
            context.close()


def kept(page, paths) -> None:
    """Wait until the service worker keeps just these."""
    page.wait_for_function("() => navigator.serviceWorker.controller")
    for _ in range(100):
        if (found := page.evaluate(KEPT)) == paths:
            return
        page.wait_for_timeout(100)
    raise AssertionError(found)


def test_without_a_line_it_opens_with_the_groups_that_it_had(machine):
    site, switch_off = machine
    page = site.rate(site.context(site.person("ann"), viewport=PHONE, service_workers="allow"))
    wait_loaded(page, 12)
    kept(page, BOTH)
    page.reload()  # from here on scripts are kept too
    page.locator("#grid .tile-image").first.wait_for()
    page.wait_for_timeout(500)
    manifest = page.evaluate("async () => (await fetch(document.querySelector('[rel=manifest]').href)).json()")
    assert manifest["start_url"] == "/p/stars/annotate/" and manifest["display"] == "standalone"
    for icon in manifest["icons"]:
        assert page.evaluate("async (at) => (await fetch(at)).status", icon["src"]) == 200
    switch_off()
    first = rate_by_keyboard(page, lambda position: position == 0)
    page.once("dialog", lambda dialog: dialog.accept())  # leave although an answer is not saved yet
    page.reload()
    page.locator("#grid .tile-image").first.wait_for()
    assert page.locator("#grid").get_attribute("data-group") != first
    page.wait_for_function(
        "() => [...document.querySelectorAll('#grid img')].every((i) => i.complete && i.naturalWidth > 0)"
    )
    page.locator("#offline:visible").wait_for()
    assert "1 answer is kept in this browser" in page.locator("#offline").text_content()
    picture(page, "phone-offline", whole=False)


def test_log_out_and_a_session_that_ended_forget_it(machine):
    site, _switch_off = machine
    context = site.context(site.person("ann"), service_workers="allow")
    page = site.rate(context)
    kept(page, BOTH)
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login/**")
    kept(page, [])
    context = site.context(site.person("bea"), service_workers="allow")
    page = site.rate(context)
    kept(page, BOTH)
    context.clear_cookies()
    page.goto(site.url("annotate/"))
    page.wait_for_url("**/login/**")
    kept(page, [])
