"""The whole loop as a newcomer meets it: the demo command, a browser, likes, a round, images of the new version."""

import os
import sqlite3
import sys
from pathlib import Path

import pytest

from tests.demo import Demo
from tests.e2e.helpers import CHROMIUM, FLAGS, TAKEN, Film, choose, log_in, picture, rate_by_keyboard, wait_saved

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="no chromium; install Debian's package `chromium`"
)


@pytest.fixture
def demo(installed, tmp_path):
    """A running demo of an installation, which knows nothing of the checkout and chooses its data folder itself."""
    made = Demo([installed, "demo"], tmp_path / ".local" / "share" / "likestep", folder=tmp_path, HOME=str(tmp_path))
    try:
        yield made
    finally:
        made.stop()


def tour_of_rating(page):
    """A group in the hands of somebody who looks at everything, and flags it in the end."""
    page.locator("#grid .tile-image").nth(7).wait_for(timeout=90_000)
    page.keyboard.press("d")
    for key in "236":
        page.keyboard.press(key)
    picture(page, "rate")
    for key, name in (("k", "zoom"), ("s", "skip"), ("?", "keys")):
        page.keyboard.press(key)
        picture(page, name)
        page.keyboard.press("Escape")
    page.emulate_media(color_scheme="dark")
    picture(page, "dark")
    page.emulate_media(color_scheme="light")
    page.keyboard.press("f")
    page.locator("#flag-note").fill("The first one is not what was asked for.")
    picture(page, "flag")
    group = page.locator("#grid").get_attribute("data-group")
    page.keyboard.press("Enter")
    page.wait_for_function("n => document.querySelector('#grid').dataset.group !== n", arg=group)


def tour_of_reviewing(page):
    """The flag is looked at, and an image becomes an example."""
    choose(page, "Quality", "Flags")
    page.get_by_text("Show the images").first.click()
    picture(page, "flags", whole=False)
    page.get_by_role("button", name="Nothing wrong: back to the queue").click()
    page.get_by_text("No flag is open").wait_for()
    page.get_by_role("link", name="Guidelines").click()
    page.locator(".candidate input[name=note]").first.fill("Clean edges, and just what was asked for.")
    page.locator(".candidate button[value=yes]").first.click()
    page.locator(".examples figure").wait_for()
    picture(page, "guidelines", whole=False)


def film_of_rating(page, film) -> list[str]:
    """Two groups rated key by key; their names."""
    rated = []
    for likes in ("146", "257"):
        page.locator("#grid .tile-image").nth(7).wait_for(timeout=90_000)
        group = page.locator("#grid").get_attribute("data-group")
        film.shoot(page, 1.2)
        page.keyboard.press("d")
        film.shoot(page, 0.6)
        for key in likes:
            page.keyboard.press(key)
            film.shoot(page, 0.4)
        film.shoot(page, 0.8)
        page.keyboard.press("Enter")
        page.wait_for_function("n => document.querySelector('#grid').dataset.group !== n", arg=group)
        rated.append(group)
    return rated


def see_before_and_after(page):
    """The page answers, and both images of each pair are there."""
    assert page.locator("#answer").inner_text().startswith(("Yes:", "No:", "Nobody can tell:"))
    assert page.locator("#pairs > li").count() >= 8
    for which in ("before", "after"):
        address = page.locator(f"#pairs [data-side={which}] image").first.get_attribute("href")
        width = "a => { const i = new Image(); i.src = a; return i.decode().then(() => i.naturalWidth); }"
        assert page.evaluate(width, address) > 128


def test_from_clicks_to_a_new_version(demo, monkeypatch):
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    from playwright.sync_api import sync_playwright

    address, passwords = demo.address, demo.passwords
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        log_in(page, address, "annotator", passwords["annotator"])
        page.get_by_role("link", name="Rate images").click()
        film = Film()
        rated = film_of_rating(page, film) if TAKEN else []
        for n in range(len(rated), 12):
            if n == 2:
                tour_of_rating(page)
            rated.append(rate_by_keyboard(page, lambda position, n=n: (position + n) % 3 == 0))
        wait_saved(page)
        assert len(set(rated)) == 12
        assert "12 groups, 96 images" in page.locator("#counter").text_content()

        page.get_by_role("link", name="My work").click()
        picture(page, "me", whole=False)
        page.select_option("#language", "de")
        page.get_by_role("button", name="Save", exact=True).click()
        page.get_by_role("link", name="Bewerten").click()
        page.locator("#grid .tile-image").nth(7).wait_for(timeout=90_000)
        page.keyboard.press("l")
        picture(page, "german")

        admin = browser.new_page(viewport={"width": 1280, "height": 860})
        admin.context.clear_cookies()
        log_in(admin, address, "admin", passwords["admin"])
        admin.get_by_role("link", name="Dashboard").click()
        picture(admin, "dashboard", whole=False)
        tour_of_reviewing(admin)
        admin.goto(f"{address}/p/demo/rounds/1/")
        see_before_and_after(admin)  # without waiting: a long round of the demo model
        picture(admin, "shipped", whole=False)
        admin.locator("#pairs > li[data-changed] .pair").first.click()
        picture(admin, "pair", whole=False)
        admin.keyboard.press("Escape")
        assert "Publish version 2" in admin.locator("main").inner_text()
        admin.goto(f"{address}/p/demo/")
        admin.get_by_role("link", name="Start a round").click()
        picture(admin, "start")
        film.shoot(admin, 1.5)
        admin.get_by_role("button", name="Start the round").click()
        admin.locator("[data-state=running], [data-state=done]").wait_for(timeout=60_000)
        picture(admin, "running")
        while not admin.locator("[data-state=done]").count() and TAKEN:
            film.shoot(admin, 0.5)
        admin.locator("[data-state=done]").wait_for(timeout=240_000)
        see_before_and_after(admin)
        admin.wait_for_timeout(1000)
        picture(admin, "done", whole=False)
        film.shoot(admin, 1.5)
        admin.get_by_role("button", name="Publish version 3").click()
        admin.get_by_text("Version 3 is published").wait_for()
        picture(admin, "published")
        admin.goto(f"{address}/p/demo/rounds/1/")
        admin.locator("#pairs").scroll_into_view_if_needed()
        film.shoot(admin, 3.5)  # of the long round: four updates change little
        film.write("loop")

        phone = browser.new_page(viewport={"width": 390, "height": 844})
        log_in(phone, address, "annotator", passwords["annotator"])
        phone.goto(f"{address}/p/demo/annotate/")

        def version_on(page) -> int:
            """Of the group on screen: the page does not know, the database does."""
            ask = "SELECT v.number FROM labelling_lease l JOIN labelling_group g ON g.id = l.group_id"
            ask += " JOIN rounds_modelversion v ON v.id = g.version_id WHERE l.task = ?"
            task = page.locator("#grid").get_attribute("data-group")
            return sqlite3.connect(demo.data / "likestep.sqlite3").execute(ask, [task]).fetchone()[0]

        # Groups that were on screen when the version was published may come first.
        for _ in range(6):
            phone.locator("#grid .tile-image").first.wait_for(timeout=120_000)
            if version_on(phone) == 3:
                break
            rate_by_keyboard(phone, lambda position: position == 0)
        assert version_on(phone) == 3
        picture(phone, "phone")
        browser.close()


def test_a_second_start_takes_seconds(tmp_path):
    command = [sys.executable, "-u", "likestep", "--this-python", "demo", "--data", tmp_path]
    first = Demo(command, tmp_path, folder=ROOT)
    first.stop()
    said = first.text.index
    assert said("preparing") < said("waiting for the first group of images") < said("open ")
    again = Demo(command, tmp_path, folder=ROOT)
    again.stop()
    assert "preparing" not in again.text and "waiting for the first group" not in again.text
    # With other work beside it the machine's clock says little; without, the parts wait for the processors and little else.
    print(f"second start: {again.seconds:.1f} s, of which {again.cpu:.1f} s of the processors")
    assert again.cpu <= 6
    assert again.seconds <= 20
