"""The browser tests' own helpers."""

import os

import pytest

from tests.e2e.helpers import CHROMIUM, faults, fits, rate_by_keyboard, wait_saved
from webapp.campaigns.models import Role
from webapp.raters import studies

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no chromium")


def open_before_its_styles(page, address: str) -> list:
    """Open a page whose stylesheet comes a second later; returns what is still held back."""
    held = []
    page.route("**/likestep*.css", lambda route: held.append(route))
    page.expose_function("release", lambda: held.pop().continue_())
    page.goto(address, wait_until="commit")
    page.locator("h1").wait_for(state="attached")
    page.evaluate("() => { setTimeout(release, 1000); }")
    return held


def test_a_page_is_judged_with_its_styles_however_late_they_come(site):
    """A script may ask for a page's layout before its stylesheet is there; then links are as small as text."""
    page = site.context(site.person("ann"), viewport={"width": 360, "height": 740}).new_page()
    held = open_before_its_styles(page, site.url("me/"))
    assert faults(page) == []
    assert not held
    assert page.evaluate("() => getComputedStyle(document.querySelector('.brand')).fontWeight") == "700"


def test_a_page_is_measured_with_its_styles_however_late_they_come(site):
    """Without them a table is as wide as its words, and the page is wider than the screen."""
    boss = site.person("boss", Role.ADMIN)
    studies.make(site.project, boss, days=1, name="Spring", groups=2, places=5, completion_code="A", screened_code="B")
    page = site.context(boss, viewport={"width": 360, "height": 740}).new_page()
    held = open_before_its_styles(page, site.url("studies/"))
    assert page.evaluate("() => document.documentElement.scrollWidth") > 360
    assert fits(page)
    assert not held


def test_the_last_answer_may_leave_the_page_at_once(site):
    """After a study's last group the page goes on to the thanks, where there is neither a group nor a count of answers."""
    page = site.context(site.person("ann")).new_page()
    page.set_content("""<p id="status" data-waiting="1"></p><div id="grid" data-group="7"><b class="tile-image">1</b></div>
        <script>onkeydown = ({key}) => { if (key === "Enter") document.body.textContent = "Thanks"; }</script>""")
    assert rate_by_keyboard(page, lambda position: True) == "7"
    wait_saved(page)
    assert page.locator("body").text_content() == "Thanks"
