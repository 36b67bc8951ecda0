"""Raters from outside, in a browser: consent, practice by keys, the code at the end; all of it on a phone."""

import os

import pytest

from tests.e2e.helpers import CHROMIUM, faults, fits, picture, rate_by_keyboard, wait_saved
from tests.webapp import acting
from webapp.campaigns.models import Role
from webapp.quality import services as quality
from webapp.raters import studies
from webapp.raters.models import Agreement, Participant, Practice

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no chromium")
SMALL = {"width": 360, "height": 740}
LIKES = [1, 0, 0, 1]


@pytest.fixture
def strict(site):
    """A project that asks for consent and for 2 of 3 known groups, and has two real ones."""
    boss = site.person("boss", Role.ADMIN)
    site.boss, project = boss, site.project
    for group in site.ready(3):
        acting.submit(boss, project, group, LIKES)
        group.refresh_from_db()
        quality.make_gold(group, "review", {i: bool(v) for i, v in enumerate(LIKES)})
    site.ready(2)
    project.consent = "# What you take part in\n\nYou rate images. Your answers are kept **without your name**."
    project.practice_groups, project.practice_right = 3, 2
    project.save()
    return site


def press_to(page, selector: str) -> None:
    """The Tab key until that element has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
    raise AssertionError(selector)


def practise(page, rights) -> list[str]:
    """Begin, and answer by keys alone: `rights` says which groups rightly. Returns what axe finds."""
    wrong = []
    press_to(page, "button[value=begin]")
    page.keyboard.press("Enter")
    for right in rights:
        page.get_by_role("button", name="Submit").wait_for()
        assert fits(page)
        for position, like in enumerate(LIKES):
            press_to(page, f"[name=image-{position}]")
            page.keyboard.press("Space")
            if bool(like) != right:
                page.keyboard.press("ArrowDown")
        press_to(page, "button[value=answer]")
        wrong += faults(page)
        page.keyboard.press("Enter")
        page.get_by_role("link", name="Next").wait_for()
        assert page.get_by_text("Right." if right else "Not right.", exact=True).is_visible()
        assert fits(page)
        wrong += faults(page)
        press_to(page, "main .button.primary")
        page.keyboard.press("Enter")
    return wrong


def agree(page) -> None:
    press_to(page, "main button.primary")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Practice").wait_for()


def test_from_prolific_s_link_to_the_code_by_keys_on_a_phone(strict):
    about = {"groups": 2, "places": 5, "completion_code": "DONE1", "screened_code": "OUT1"}
    _, token = studies.make(strict.project, strict.boss, days=1, name="Spring", **about)
    context = strict.browser.new_context(viewport=SMALL, service_workers="block", reduced_motion="reduce")
    strict.contexts.append(context)
    page = context.new_page()
    query = "PROLIFIC_PID=5f01&STUDY_ID=5e01&SESSION_ID=6a0000000000000000000001"
    page.goto(f"{strict.address}/study/{token}/?{query}")
    wrong = faults(page)
    picture(page, "study-phone")
    press_to(page, "main button.primary")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Before you rate").wait_for()
    assert fits(page)
    wrong += faults(page)
    picture(page, "consent-phone")
    agree(page)
    assert Agreement.objects.get().terms.number == 1
    wrong += practise(page, [True, False, True])
    page.get_by_text("Passed.").wait_for()
    press_to(page, "main .button.primary")
    page.keyboard.press("Enter")
    for _ in range(2):
        rate_by_keyboard(page, lambda position: position == 0)
    wait_saved(page)
    page.locator("#code").wait_for()
    assert page.locator("#code").text_content() == "DONE1"
    back = page.get_by_role("link", name="Back to Prolific")
    assert back.get_attribute("href") == "https://app.prolific.com/submissions/complete?cc=DONE1"
    assert fits(page)
    wrong += faults(page)
    page.emulate_media(color_scheme="light")
    picture(page, "code-phone")
    assert Participant.objects.get().ending == "completed"
    assert wrong == []


def test_who_fails_is_told_when_they_may_try_again(strict):
    page = strict.context(strict.person("ann"), viewport=SMALL, reduced_motion="reduce").new_page()
    page.goto(strict.url("annotate/"))
    agree(page)
    picture(page, "practice-begin-phone")
    page.goto(strict.url("practice/"))
    wrong = practise(page, [False, False, True])
    page.get_by_text("You may try again from").wait_for()
    assert fits(page)
    assert wrong + faults(page) == []
    page.goto(strict.url("practice/?shown=2"))
    page.emulate_media(color_scheme="light")
    picture(page, "practice-answer-phone")
    page.goto(strict.url("annotate/"))
    page.get_by_role("heading", name="Practice").wait_for()
    assert Practice.objects.get().passed is False


def test_an_admin_switches_it_on_and_makes_a_study(site):
    page = site.context(site.person("boss", Role.ADMIN), viewport=SMALL).new_page()
    page.goto(site.url("settings/"))
    page.get_by_text("Raters from outside").click()
    page.fill("#id_consent", "Read this.")
    page.fill("#id_practice_groups", "5")
    page.fill("#id_practice_right", "9")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("more than the 5 groups").wait_for()
    page.fill("#id_practice_right", "4")
    page.fill("#id_quota_day", "30")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Saved:").wait_for()
    site.project.refresh_from_db()
    assert (site.project.practice_groups, site.project.practice_right, site.project.quota_day) == (5, 4, 30)
    page.goto(site.url("studies/"))
    page.get_by_text("too few for the practice").wait_for()
    page.fill("#id_name", "Spring")
    page.fill("#id_completion_code", "DONE1")
    page.get_by_role("button", name="Make a link").click()
    page.get_by_text("{{%PROLIFIC_PID%}}").wait_for()
    assert fits(page)
    wrong = faults(page)
    page.emulate_media(color_scheme="light")
    picture(page, "studies-phone")
    assert wrong == []
