"""What a person does in the browser, for every browser test."""

from __future__ import annotations

import io
import os
import shutil
import time
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from PIL import Image

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "test-artifacts" / "screenshots"
# A lazy image that is not rendered, such as an example in closed guidelines, is never loaded.
LOADED = """() => document.readyState === "complete" && [...document.images].every((image) => image.complete ||
  !image.checkVisibility() || image.getBoundingClientRect().top > innerHeight)"""
TOUR = ROOT / "docs" / "images" / "tour"
FILM_SIZE = (900, 605)
TAKEN = os.environ.get("LIKESTEP_TOUR") == "1"  # the documentation's pictures are to be written anew


TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def faults(page) -> list[str]:
    """What axe finds to be serious or critical, and every fault against WCAG; in the dark, whether it can be read."""
    page.wait_for_load_state()  # its styles are there
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    found = Axe().run(page, options={"runOnly": TAGS}).response["violations"]
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    found += Axe().run(page, options={"runOnly": {"type": "rule", "values": ["color-contrast"]}}).response["violations"]
    wrong = [v for v in found if v["impact"] in ("serious", "critical") or "best-practice" not in v["tags"]]
    return [f"{page.url} {v['id']}: {v['help']}: {v['nodes'][0]['html'][:150]}" for v in wrong]


def fits(page) -> bool:
    """Whether the page needs no scrolling sideways."""
    page.wait_for_load_state()  # its styles are there
    return page.evaluate("() => document.documentElement.scrollWidth") == page.viewport_size["width"]


def picture(page, name: str, *, whole: bool = True) -> None:
    """Keep a screenshot where a developer can look at it; with LIKESTEP_TOUR=1 also the one that docs/tour.md shows."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    file = PICTURES / f"{name}.png"
    page.wait_for_function(LOADED)
    page.wait_for_timeout(200)  # colours that are changing
    page.screenshot(path=file, full_page=whole)
    if TAKEN and f"tour/{name}.webp" in (ROOT / "docs" / "tour.md").read_text():
        TOUR.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:
            image.thumbnail((1000, 1000))
            image.convert("RGB").save(TOUR / f"{name}.webp", quality=80, method=6)


class Film:
    """A moving picture of what a page shows, for the README; empty, and never written, unless the tour is taken."""

    def __init__(self):
        self.frames, self.milliseconds = [], []

    def shoot(self, page, seconds: float) -> None:
        """The window as it is now, shown for so long. The same picture again only shows longer."""
        if not TAKEN:
            return
        page.wait_for_function(LOADED)
        page.wait_for_timeout(200)
        with Image.open(io.BytesIO(page.screenshot())) as image:
            frame = image.convert("RGB")
        frame.thumbnail(FILM_SIZE, Image.Resampling.LANCZOS)
        if self.frames and frame.tobytes() == self.frames[-1].tobytes():
            self.milliseconds[-1] += round(1000 * seconds)
            return
        self.frames.append(frame)
        self.milliseconds.append(round(1000 * seconds))

    def write(self, name: str) -> None:
        """Keep it among the tour's pictures, and its frames where a developer can look at them."""
        if not self.frames:
            return
        for number, frame in enumerate(self.frames):
            frame.save(PICTURES / f"{name}-{number:02}.png")
        first, *others = self.frames
        shown = {"duration": self.milliseconds, "loop": 0, "quality": 80, "method": 6}
        first.save(TOUR / f"{name}.webp", save_all=True, append_images=others, **shown)


def choose(page, menu: str, entry: str) -> None:
    """Open a menu of the navigation and follow one of its links."""
    page.locator("nav summary").filter(has_text=menu).click()
    page.locator("nav details[open]").get_by_role("link", name=entry, exact=True).click()


def log_in(page, address: str, name: str, password: str) -> None:
    """From the log-in page to the projects."""
    page.goto(f"{address}/login/")
    page.fill("#id_username", name)
    page.fill("#id_password", password)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Your projects").wait_for()


def number_of(task: str) -> int:
    """The number of the group that somebody knows by that name."""
    from webapp.labelling.models import Lease

    return Lease.objects.get(task=task).group_id


def task_of(group: int) -> str:
    """The name of the group of that number for the one person who was given it."""
    from webapp.labelling.models import Lease

    return Lease.objects.get(group=group).task


# Both also hold on the page that may come after the last answer, which shows no group.
ANSWERED = """group => {
  const grid = document.querySelector('#grid');
  return !grid || grid.dataset.group != group || !grid.children.length;
}"""
SAVED = """call => {
  const status = document.querySelector('#status');
  if (status && window.lastCall !== call) window.dispatchEvent(new Event('online')); // which sends at once
  window.lastCall = call;
  return !status || status.dataset.waiting === '0';
}"""


def rate_by_keyboard(page, likes) -> str:
    """Rate the group on screen: `likes(position)` says which images; returns the name that the person knows it by."""
    grid = page.locator("#grid")
    grid.locator(".tile-image").first.wait_for(timeout=90_000)
    group = grid.get_attribute("data-group")
    page.keyboard.press("d")
    for position in range(grid.locator(".tile-image").count()):
        if likes(position):
            page.keyboard.press(str(position + 1))
    page.keyboard.press("Enter")
    page.wait_for_function(ANSWERED, arg=group)
    return group


def wait_loaded(page, images: int) -> None:
    """Until so many images have arrived, those of the groups ahead included."""
    page.wait_for_function(
        "n => performance.getEntriesByType('resource').filter((r) => r.name.includes('.webp')).length >= n", arg=images
    )
    page.wait_for_timeout(200)


def wait_saved(page) -> None:
    """Until the server has every answer; the pages' own clock of five seconds between tries is not waited for."""
    page.wait_for_function(SAVED, arg=time.monotonic_ns(), timeout=30_000)
