"""Versions ranked in the browser: started by an admin, answered by keyboard and on a phone, read as a table."""

import io
import os

import pytest
from PIL import Image

from tests.e2e.conftest import PHONE
from tests.e2e.helpers import CHROMIUM, faults, fits, picture, wait_saved
from tests.webapp.acting import make_pairs
from webapp.campaigns.models import Role
from webapp.lib import paths, storage
from webapp.rounds import comparisons
from webapp.rounds.models import Comparison, ModelVersion, Pair

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no chromium")


@pytest.fixture
def versions(site):
    """Four of them, and a group that waits."""
    first = site.project.active_version
    for number in (2, 3, 4):
        ModelVersion.objects.create(project=site.project, number=number, parent=first, path="y")
    site.ready(1)
    return site


def paint(comparison):
    """Images of the pairs that wait, a colour a version."""
    make_pairs(comparison)
    for pair in comparison.pairs.filter(state="ready"):
        for letter in pair.sides:
            data = io.BytesIO()
            Image.new("RGB", (128, 128), (60 * (ord(letter) - 96), 120, 200)).save(data, "WEBP")
            storage.store().write(paths.pair_image(comparison.project_id, pair.pk, letter), data.getvalue())


def answer(page, comparison, press) -> bool:
    """Answer what is on screen with `press(letters from left to right)`; False when the test is over."""
    page.locator("#pair:visible, #over:visible").first.wait_for()
    if page.locator("#over").is_visible():
        return False
    number = page.locator("#pair").get_attribute("data-pair")
    press(Pair.objects.get(pk=number).sides)
    page.wait_for_function(
        "n => document.querySelector('#pair').dataset.pair !== n || document.querySelector('#pair').hidden", arg=number
    )
    wait_saved(page)
    make_pairs(comparison)
    return True


def test_two_at_a_time_by_keyboard_to_a_sure_order(versions):
    boss, ann = versions.person("boss", Role.ADMIN), versions.person("ann")
    admin = versions.context(boss).new_page()
    admin.goto(versions.url("versions/"))
    admin.get_by_role("checkbox", name="version 2").check()
    admin.get_by_role("checkbox", name="version 4").uncheck()
    admin.get_by_role("checkbox", name="version 3").check()
    admin.get_by_label("votes at most").fill("100")
    picture(admin, "start-a-ranking")
    admin.get_by_role("button", name="Start a blind test").click()
    admin.get_by_role("heading", name="Versions 1, 2, 3 ranked").wait_for()
    assert admin.get_by_text("cannot be told yet").count() == 2
    comparison = Comparison.objects.get()
    make_pairs(comparison)

    page = versions.context(ann).new_page()
    page.goto(versions.address)
    page.get_by_role("link", name="Compare images").click()

    def press(sides):
        page.keyboard.press("ArrowLeft" if sides[0] > sides[1] else "ArrowRight")

    given = 0
    while answer(page, comparison, press):
        given += 1
        assert given < 100
    comparison.refresh_from_db()
    assert (comparison.state, comparison.winner.number) == ("decided", 3)
    assert given - 3 < comparison.votes <= given  # what was on screen at the end came too late
    admin.reload()
    admin.get_by_role("heading", name="Version 3 is the best").wait_for()
    assert admin.locator("#ranking tbody th").all_inner_texts() == ["version 3", "version 2", "version 1"]
    assert admin.get_by_text("better, that is sure").count() == 2
    assert admin.locator("#matrix td.better").count() == 3
    picture(admin, "ranking")
    wrong = faults(admin)
    admin.set_viewport_size({"width": 360, "height": 740})
    assert fits(admin)
    picture(admin, "ranking-phone")
    admin.get_by_role("button", name="Publish version 3").click()
    admin.get_by_text("Version 3 is published").wait_for()
    assert wrong == []


def test_four_at_once_in_order_by_keyboard(versions):
    boss, ann = versions.person("boss", Role.ADMIN), versions.person("ann")
    comparison = comparisons.start(versions.project, [1, 2, 3, 4], boss, shown=4, most_votes=60)
    paint(comparison)
    page = versions.context(ann).new_page()
    page.goto(versions.url("compare/"))

    def best_first(sides):
        for at in sorted(range(4), key=lambda at: sides[at], reverse=True):
            page.keyboard.press(str(at + 1))
        page.keyboard.press("Enter")

    page.locator("#pair:visible").wait_for()
    page.keyboard.press("Enter")  # nothing is placed: nothing is sent
    page.keyboard.press("3")
    page.keyboard.press("1")
    page.keyboard.press("Backspace")
    page.keyboard.press("=")
    page.keyboard.press("2")
    assert page.locator("#pair b").all_inner_texts() == ["", "place 1", "place 1", ""]
    page.keyboard.press("4")
    picture(page, "order", whole=False)
    wrong = faults(page)
    number = page.locator("#pair").get_attribute("data-pair")
    page.keyboard.press("Enter")
    wait_saved(page)
    sides = Pair.objects.get(pk=number).sides
    tied, last = "=".join(sorted(sides[1:3])), sides[3]
    assert Pair.objects.get(pk=number).outcome == f"{tied}>{last}>{sides[0]}"
    answer(page, comparison, lambda _: page.keyboard.press("0"))
    given = 2
    while answer(page, comparison, best_first):
        given += 1
        assert given < 60
    comparison.refresh_from_db()
    assert (comparison.state, comparison.winner.number) == ("decided", 4)
    assert wrong == []


def test_three_at_once_on_a_phone(versions):
    boss, ann = versions.person("boss", Role.ADMIN), versions.person("ann")
    comparison = comparisons.start(versions.project, [1, 2, 3, 4], boss, shown=3, most_votes=10)
    paint(comparison)
    page = versions.context(ann, viewport=PHONE, has_touch=True, is_mobile=True, locale="de").new_page()
    page.goto(versions.url("compare/"))
    page.locator("#pair:visible").wait_for()
    page.locator("#pair button").nth(1).tap()
    page.locator("#equal").tap()
    page.locator("#pair button").nth(2).tap()
    page.locator("#back").tap()
    page.locator("#pair button").nth(0).tap()
    picture(page, "order-phone")
    wrong = faults(page)
    for width in (PHONE["width"], 360, 320):
        page.set_viewport_size({**PHONE, "width": width})
        assert fits(page)
    number = page.locator("#pair").get_attribute("data-pair")
    page.locator("#done").tap()
    wait_saved(page)
    pair = Pair.objects.get(pk=number)
    assert pair.outcome == f"{pair.sides[1]}>{pair.sides[0]}>{pair.sides[2]}"
    answer(page, comparison, lambda _: page.locator("#all-same").tap())
    comparison.refresh_from_db()
    assert comparison.votes == 2 and wrong == []
