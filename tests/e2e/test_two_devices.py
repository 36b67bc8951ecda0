"""Somebody rates on two devices, on a layout without Latin letters, or writes a form whose session ends."""

import os

import pytest

from tests.e2e.helpers import CHROMIUM, picture, rate_by_keyboard, wait_saved
from webapp.campaigns.models import Project, Role
from webapp.labelling.models import Label

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no chromium")


@pytest.fixture
def ann(site):
    site.ready(8)
    return site.person("ann")


def come_back(page):
    """What the browser says when its tab is looked at again."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def shown(page):
    page.locator("#grid .tile-image").first.wait_for()
    return page.locator("#grid").get_attribute("data-group")


def test_coming_back_shows_what_is_left(site, ann):
    phone, desk = site.rate(site.context(ann)), site.rate(site.context(ann))
    assert shown(phone) == shown(desk)
    rated = rate_by_keyboard(phone, lambda position: position == 0)
    wait_saved(phone)
    assert shown(desk) == rated
    come_back(desk)
    desk.wait_for_function("n => document.querySelector('#grid').dataset.group != n", arg=rated)
    assert shown(desk) == shown(phone)


def test_an_answer_that_came_too_late_can_be_changed_and_is_not_undone(site, ann):
    phone, desk = site.rate(site.context(ann)), site.rate(site.context(ann))
    first = rate_by_keyboard(desk, lambda position: position == 0)
    wait_saved(desk)
    second = shown(desk)
    come_back(phone)
    phone.wait_for_function("n => document.querySelector('#grid').dataset.group == n", arg=second)
    rate_by_keyboard(phone, lambda position: position == 1)
    wait_saved(phone)
    rate_by_keyboard(desk, lambda position: position == 2)  # the same group, another answer
    desk.locator("#decided").wait_for()
    assert not desk.locator("#message").is_visible()
    picture(desk, "decided-before")
    desk.get_by_role("button", name="Change that answer").click()
    desk.wait_for_function("n => document.querySelector('#grid').dataset.group == n", arg=second)
    marks = [tile.get_attribute("aria-pressed") for tile in desk.locator("#grid .tile-image").all()]
    assert marks == ["false", "true", "false", "false"]  # the phone's
    assert not desk.locator("#decided").is_visible()
    rate_by_keyboard(desk, lambda position: position == 3)
    wait_saved(desk)
    liked = Label.objects.filter(generation__group__leases__task=second, liked=True)
    assert list(liked.values_list("generation__position", flat=True)) == [3]
    desk.keyboard.press("u")
    desk.wait_for_function("n => document.querySelector('#grid').dataset.group == n", arg=second)
    desk.keyboard.press("u")  # the refused answer is nothing that could be taken back
    desk.wait_for_function("n => document.querySelector('#grid').dataset.group == n", arg=first)


def press(page, key, code, **more):
    """A key of a layout that this machine may not have."""
    event = {"key": key, "code": code, "bubbles": True, "cancelable": True, **more}
    page.evaluate("event => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', event))", event)


def test_keys_work_by_position_without_latin_letters(site, ann):
    page = site.rate(site.context(ann))

    def marks():
        return [tile.get_attribute("aria-pressed") for tile in page.locator("#grid .tile-image").all()]

    shown(page)
    press(page, "в", "KeyD")  # Russian
    assert marks() == ["false"] * 4
    press(page, "ך", "KeyL")  # Hebrew
    assert marks() == ["true"] * 4
    press(page, "Process", "KeyI")  # a Chinese input method has it
    assert marks() == ["false"] * 4
    press(page, "é", "Digit2")  # French
    press(page, "٣", "Digit3")  # Arabic
    assert marks() == ["false", "true", "true", "false"]
    press(page, "l", "KeyP")  # Dvorak: what is written counts
    assert marks() == ["true"] * 4
    press(page, "؟", "Slash", shiftKey=True)
    page.locator("#help-dialog").wait_for()
    page.keyboard.press("Escape")
    press(page, "ы", "KeyS")
    page.locator("#skip-dialog").wait_for()
    press(page, "٢", "Digit2")
    assert page.locator("#skip-dialog input[type=radio]").nth(1).is_checked()


def test_a_form_is_filled_again_after_log_in(site):
    boss = site.person("boss", Role.ADMIN)
    boss.set_password("correct horse")
    boss.save()
    context = site.context(boss)
    page = context.new_page()
    page.goto(site.url("settings/"))
    page.fill("#id_name", "Stars & moons")
    page.fill("#id_guidelines", "Whole moons only.")
    context.clear_cookies(name="sessionid")
    page.locator("#id_name").press("Enter")
    page.wait_for_url("**/login/**")
    page.fill("#id_username", "boss")
    page.fill("#id_password", "correct horse")
    page.keyboard.press("Enter")
    page.wait_for_url("**/settings/")
    page.locator("#refilled").wait_for()
    picture(page, "form-after-log-in")
    assert page.input_value("#id_guidelines") == "Whole moons only."
    page.locator("#id_name").press("Enter")
    page.wait_for_function("() => document.querySelector('#refilled').hidden")
    page.wait_for_load_state("networkidle")
    assert Project.objects.get(slug=site.project.slug).name == "Stars & moons"
    page.reload()
    assert not page.locator("#refilled").is_visible()


def test_a_reason_is_chosen_by_a_digit_of_any_script(site):
    site.project.dislike_reasons = ["wrong count", "ugly"]
    site.project.save()
    site.ready(2)
    page = site.rate(site.context(site.person("ann")))
    press(page, "в", "KeyD")
    press(page, "ф", "KeyA")
    page.locator("#zoom-dialog[open]").wait_for()
    press(page, "٢", "Digit2")
    assert "ugly" in page.locator(".tile-image.disliked").first.text_content()
