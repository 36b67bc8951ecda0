"""The whole loop as a newcomer meets it: the demo command, a browser, likes, a round, images of the new version."""

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.helpers import CHROMIUM, FLAGS, choose, log_in, picture, rate_by_keyboard, wait_saved
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
# A small round: the demo's model and loop, few updates.
SMALL = '{"updates": 4, "validate_every": 4, "validation_images": 14, "student_batch": 8, "prompts_per_update": 4}'

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="no chromium; install Debian's package `chromium`"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The demo's data folder, which both tests share."""
    return tmp_path_factory.mktemp("demo")


class Demo:
    """The demo as its command starts it; `text` is what it said until everything was up."""

    def __init__(self, data: Path):
        self.data, started = data, time.monotonic()
        environment = {
            k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE")
        }
        environment |= {"LIKESTEP_ROUND_SETTINGS": SMALL, "OMP_NUM_THREADS": "2"}
        command = [
            sys.executable,
            "-u",
            "likestep",
            "--this-python",
            "demo",
            "--port",
            str(free_port()),
            "--data",
            str(data),
        ]
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if "Ctrl-C stops" in line:
                break
        self.seconds, self.text = time.monotonic() - started, "".join(lines)
        (self.address,) = re.findall(r"open (http\S+)", self.text) or pytest.fail(self.text)
        self.passwords = dict(re.findall(r"log in as (\w+) with password (\S+)", self.text))

    def stop(self) -> None:
        """Ctrl-C; afterwards no process of the demo is left."""
        assert len(self.parts()) >= 6
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(30) == 0
        assert self.parts() == []

    def parts(self) -> list[str]:
        """The command lines of the processes that work on the data folder."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                ours = f"LIKESTEP_DATA={self.data}\0" in (process / "environ").read_text()
                if ours or (process / "cwd").readlink() == self.data:  # Redis overwrites its environment
                    found.append((process / "cmdline").read_text())
        return found


@pytest.fixture
def demo(data):
    """A running demo."""
    made = Demo(data)
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


def see_before_and_after(page):
    """Both pictures of a round are there."""
    for which in ("Images of the old version", "Images of the new version"):
        assert page.get_by_alt_text(which).evaluate("i => i.decode().then(() => i.naturalWidth)") > 128


def test_from_clicks_to_a_new_version(demo, data, monkeypatch):
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    from playwright.sync_api import sync_playwright

    address, passwords = demo.address, demo.passwords
    said = demo.text.index
    assert said("preparing") < said("waiting for the first group of images") < said("open ")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        log_in(page, address, "annotator", passwords["annotator"])
        page.get_by_role("link", name="Rate images").click()
        rated = []
        for n in range(12):
            if n == 1:
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
        picture(admin, "dashboard")
        tour_of_reviewing(admin)
        admin.goto(f"{address}/p/demo/rounds/1/")
        see_before_and_after(admin)  # without waiting: a long round of the demo model
        picture(admin, "shipped", whole=False)
        assert "Publish version 2" in admin.locator("main").inner_text()
        admin.goto(f"{address}/p/demo/")
        admin.get_by_role("link", name="Start a round").click()
        picture(admin, "start")
        admin.get_by_role("button", name="Start the round").click()
        admin.locator("[data-state=running], [data-state=done]").wait_for(timeout=60_000)
        picture(admin, "running")
        admin.locator("[data-state=done]").wait_for(timeout=240_000)
        see_before_and_after(admin)
        admin.wait_for_timeout(1000)
        picture(admin, "done")
        admin.get_by_role("button", name="Publish version 3").click()
        admin.get_by_text("Version 3 is published").wait_for()
        picture(admin, "published")

        phone = browser.new_page(viewport={"width": 390, "height": 844})
        log_in(phone, address, "annotator", passwords["annotator"])
        phone.goto(f"{address}/p/demo/annotate/")

        def version_on(page) -> int:
            """Of the group on screen: the page does not know, the database does."""
            ask = "SELECT v.number FROM labelling_lease l JOIN labelling_group g ON g.id = l.group_id"
            ask += " JOIN rounds_modelversion v ON v.id = g.version_id WHERE l.task = ?"
            task = page.locator("#grid").get_attribute("data-group")
            return sqlite3.connect(data / "likestep.sqlite3").execute(ask, [task]).fetchone()[0]

        # Groups that were on screen when the version was published may come first.
        for _ in range(6):
            phone.locator("#grid .tile-image").first.wait_for(timeout=120_000)
            if version_on(phone) == 3:
                break
            rate_by_keyboard(phone, lambda position: position == 0)
        assert version_on(phone) == 3
        picture(phone, "phone")
        browser.close()


def test_the_second_start_takes_seconds(data):
    if not (data / "likestep.sqlite3").exists():
        Demo(data).stop()
    again = Demo(data)
    again.stop()
    print(f"second start: {again.seconds:.1f} s")
    assert again.seconds < 15
    assert "waiting for the first group" not in again.text
