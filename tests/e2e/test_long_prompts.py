"""Prompts as long as they may be, and in other directions: at 400% zoom, by keyboard, while rating and in blind tests."""

import os

import pytest

from tests.e2e.conftest import PHONE
from tests.e2e.helpers import CHROMIUM, faults, fits, picture
from tests.webapp.acting import make_pairs
from webapp.rounds import comparisons
from webapp.rounds.models import ModelVersion

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no chromium")
ZOOMED = {"width": 320, "height": 256}  # 1280 × 1024 at 400%
LONG = ("a very long prompt that goes on, " * 40)[:999]
WHOLE = "() => { const p = document.querySelector('#prompt'); return p.scrollHeight <= p.clientHeight + 1; }"
END = """() => { const p = document.querySelector('#prompt');
  return p.scrollTop + p.clientHeight > p.scrollHeight - 2; }"""
MOVED = "() => document.querySelector('#prompt').scrollTop > 0"
BACK = "() => document.querySelector('#prompt').scrollTop === 0"


def scroll_by_keyboard(page) -> None:
    """With the focus on the prompt keys scroll it, to its end and back."""
    page.locator("#prompt").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_function(MOVED)
    page.keyboard.press("End")
    page.wait_for_function(END)
    page.keyboard.press("Home")
    page.wait_for_function(BACK)


def test_while_rating(site):
    site.project.prompts.update(text=LONG)
    site.ready(2)
    page = site.rate(site.context(site.person("ann"), viewport=PHONE))
    assert not page.evaluate(WHOLE)
    for _ in range(12):  # from the first image back to the prompt, as Shift and Tab go
        page.keyboard.press("Shift+Tab")
        if page.evaluate("() => document.activeElement.id") == "prompt":
            break
    assert page.evaluate("() => document.activeElement.id") == "prompt"
    scroll_by_keyboard(page)
    assert page.locator("#grid .liked, #grid .disliked").count() == 0
    page.keyboard.press("1")  # other keys do what they do
    assert page.locator("#grid .liked").count() == 1
    page.set_viewport_size(ZOOMED)
    page.wait_for_timeout(100)
    assert page.evaluate(WHOLE), "the prompt is read by scrolling the page"
    assert page.locator("#prompt").get_attribute("tabindex") == "-1"
    assert fits(page)
    page.keyboard.press("PageDown")
    page.wait_for_function("() => scrollY > 0")
    wrong = faults(page)
    page.emulate_media(color_scheme="light")
    picture(page, "zoomed-prompt", whole=False)
    assert wrong == []


def test_from_right_to_left(site):
    site.project.prompts.update(text="כוכב אדום")
    site.ready(1)
    page = site.rate(site.context(site.person("דנה")))
    assert page.evaluate("() => getComputedStyle(document.querySelector('#prompt')).direction") == "rtl"
    assert page.evaluate("() => getComputedStyle(document.body).direction") == "ltr"


def test_in_a_blind_test(site):
    project = site.project
    project.prompts.update(text=LONG)
    ModelVersion.objects.create(project=project, number=2, parent=project.active_version, path="y")
    comparison = comparisons.start(project, [1, 2], None)
    make_pairs(comparison)
    page = site.context(site.person("ann"), viewport=PHONE).new_page()
    page.goto(site.url("compare/"))
    page.locator("#pair:visible").wait_for()
    scroll_by_keyboard(page)
    assert not comparison.pairs.filter(state="done").exists()
