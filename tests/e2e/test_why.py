"""Why an image is disliked, said with a key, with a box drawn by mouse and by keys; nothing of it where it is not asked."""

import os

import pytest

from tests.e2e.helpers import CHROMIUM, faults, picture, wait_saved
from webapp.labelling.models import Label

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no chromium")


@pytest.fixture
def asked(site):
    """A rating page of a project with reasons, on a narrow screen."""
    site.project.dislike_reasons = ["wrong count", "wrong colour", "ugly"]
    site.project.save()
    site.ready(2)
    return site.rate(site.context(site.person("ann"), viewport={"width": 360, "height": 740}))


def kept() -> list:
    return list(Label.objects.order_by("generation__position").values_list("liked", "reason", "box"))


def test_a_reason_and_a_box_by_keys(asked):
    page = asked
    page.keyboard.press("a")  # nothing is disliked yet
    assert page.locator("dialog[open]").count() == 0
    page.keyboard.press("l")
    page.keyboard.press("2")  # from like to dislike
    page.keyboard.press("a")
    assert page.locator("#zoom-title").text_content() == "Image 2 of 4: dislike"
    page.keyboard.press("1")
    assert page.locator("dialog[open]").count() == 0
    assert "wrong count" in page.locator(".tile-image.disliked").text_content()
    page.keyboard.press("3")
    page.keyboard.press("k")  # a closer look, at the image that has the focus
    page.keyboard.press("ArrowLeft")
    assert page.locator("#zoom-title").text_content() == "Image 1 of 4: like"
    assert page.locator("#why").is_hidden()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("3")
    page.keyboard.press("0")
    page.locator("#zoom-box:focus").wait_for()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowDown")
    wrong = faults(page)
    page.emulate_media(color_scheme="light")
    picture(page, "why-phone", whole=False)
    assert page.evaluate("() => document.querySelector('#zoom-dialog').scrollWidth <= innerWidth")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    wait_saved(page)
    box = [0.33, 0.35, 0.3, 0.32]
    assert kept() == [(True, "", None), (False, "wrong count", None), (False, "ugly", box), (True, "", None)]
    page.keyboard.press("u")
    page.keyboard.press("3")  # to like: the reason is nothing any more
    page.keyboard.press("Enter")
    wait_saved(page)
    assert kept() == [(True, "", None), (False, "wrong count", None), (True, "", None), (True, "", None)]
    assert wrong == []


def test_undo_after_a_reload_brings_reason_and_box_back(asked):
    page = asked
    page.keyboard.press("d")
    page.keyboard.press("k")
    page.keyboard.press("0")  # a box on the first image
    page.keyboard.press("1")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    wait_saved(page)
    before = kept()
    assert before[0] == (False, "wrong count", [0.35, 0.35, 0.3, 0.3])
    page.reload()
    page.locator("#grid .tile-image").first.wait_for()
    page.keyboard.press("u")
    page.locator(".tile-image.disliked", has_text="wrong count").wait_for()
    assert kept() == []
    page.keyboard.press("Enter")
    wait_saved(page)
    assert kept() == before


def test_a_box_is_drawn_with_the_mouse(asked):
    page = asked
    page.keyboard.press("d")
    page.locator(".zoom-button").first.click()
    frame = page.locator("#zoom-image").bounding_box()
    page.mouse.move(frame["x"] + 0.25 * frame["width"], frame["y"] + 0.5 * frame["height"])
    page.mouse.down()
    page.mouse.move(frame["x"] + 0.75 * frame["width"], frame["y"] + 0.75 * frame["height"], steps=3)
    page.mouse.up()
    page.get_by_role("button", name="ugly").click()
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    wait_saved(page)
    (_liked, reason, box), *_others = kept()
    assert reason == "ugly"
    assert box == pytest.approx([0.25, 0.5, 0.5, 0.25], abs=0.02)


def test_where_no_reasons_are_asked_for_nothing_is_there(site):
    site.ready(1)
    page = site.rate(site.context(site.person("ann")))
    page.keyboard.press("d")
    page.keyboard.press("a")
    assert page.locator("dialog[open]").count() == 0
    page.keyboard.press("k")
    page.keyboard.press("1")
    assert page.locator("#why").count() == 0
    assert page.locator("#zoom-box").is_hidden()
