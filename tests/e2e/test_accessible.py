"""WCAG 2.2 AA as far as axe-core can see it: every page, light and dark, with every dialog open."""

import json
import os

import pytest

from tests.e2e.conftest import PHONE
from tests.e2e.helpers import CHROMIUM, faults, picture
from tests.webapp import acting
from webapp.campaigns.models import Role
from webapp.labelling import guidelines
from webapp.lib import paths
from webapp.rounds import comparisons
from webapp.rounds.models import ModelVersion, RoundForecast, RoundMetric, TrainingRound

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no chromium")
MANAGED = (
    "gallery/",
    "try/",
    "versions/",
    "quality/",
    "review/",
    "prompts/",
    "settings/",
    "own-images/",
    "export/",
    "api/",
    "audit/",
    "compare/",
    "comparisons/1/",
    "studies/",
    "agree/",
    "practice/",
)


@pytest.fixture
def full(site):
    """A project in which every page has something to show."""
    project, boss, ann = site.project, site.person("boss", Role.ADMIN), site.person("ann")
    project.guidelines = "# What to like\n\n- **clean** shapes\n- [the colours](https://example.org)"
    project.save()
    rated, flagged, *_ = site.ready(5, size=8)
    answer = {i: i < 3 for i in range(8)}
    acting.submit_group(boss, project, rated.pk, answer, seconds=9, idempotency_key="a")
    acting.flag_group(boss, project, flagged.pk, kind="broken", position=1, note="noise", idempotency_key="f")
    guidelines.add_example(project, rated.generations.first().pk, good=True, note="clean")
    base = project.active_version
    version = ModelVersion.objects.create(project=project, number=2, path="x", parent=base)
    training = TrainingRound.objects.create(
        project=project, number=1, base_version=base, idempotency_key="k", state="done", result_version=version,
        scores_before={"reward": 0.4}, scores_after={"reward": 0.6}, step=4, total=4,
    )  # fmt: skip
    RoundForecast.objects.create(round=training, needed=200, had=240, worth=False, chance=0.4, basis="labels")
    for step in range(1, 5):
        values = {"validation_reward": 0.1 * step, "student": 1 / step, "fake": 1.0, "margin": 0.2 * step}
        RoundMetric.objects.create(round=training, step=step, values=values)
    grid = paths.round_dir(training.pk) / "grid"
    grid.mkdir(parents=True, exist_ok=True)
    for name in ("before", "after"):
        (grid / f"{name}.webp").write_bytes(paths.data(rated.generations.first().image).read_bytes())
    right = {"score": 1.0, "liked": True, "correct": True}
    change = {"name": "reward", "before": 0.4, "after": 0.6, "change": 0.2, "error": 0.05, "images": 112}
    pair = {"prompt": "a red star", "tag": "colors", "before": {**right, "liked": False}, "after": right}
    seen = {"columns": 1, "size": [128, 128], "pairs": [pair], "changes": [change]}
    (grid / "comparison.json").write_text(json.dumps(seen))
    for number in (3, 4):
        ModelVersion.objects.create(project=project, number=number, path="x", parent=base)
    acting.make_pairs(comparisons.start(project, [1, 2, 3, 4], boss, shown=3))
    site.boss, site.ann = boss, ann
    return site


def test_axe_finds_nothing_serious_on_any_page(full):
    page = full.context(full.boss).new_page()
    wrong = []
    for path in ("guidelines/", "me/", "flags/", "", "people/", "rounds/start/", "rounds/1/", *MANAGED):
        page.goto(full.url(path))
        wrong += faults(page)
    for path in ("/", "/nowhere/"):
        page.goto(full.address + path)
        wrong += faults(page)
    page.context.clear_cookies()
    page.goto(full.address + "/login/")
    assert wrong + faults(page) == []


def test_an_admins_navigation_is_one_row_with_menus_for_keys_and_screen_readers(full):
    page = full.context(full.boss, locale="de").new_page()
    page.goto(full.url("review/"))
    tops = page.evaluate("() => [...document.querySelector('nav').children].map((e) => e.getBoundingClientRect().top)")
    assert len(tops) == 7 and max(tops) - min(tops) < 5
    assert page.evaluate("() => document.querySelector('.topbar').offsetHeight") < 80
    page.locator("nav summary").nth(2).focus()
    page.keyboard.press("Enter")
    menu = page.locator("nav details[open]")
    assert menu.get_by_role("link").count() == 6
    wrong = faults(page)
    picture(page, "menu-dark", whole=False)
    page.keyboard.press("Escape")
    assert menu.count() == 0
    assert page.evaluate("() => document.activeElement.tagName") == "SUMMARY"
    page.set_viewport_size(PHONE)
    page.goto(full.url(""))
    wrong += faults(page)  # tables that are wider than a phone
    for path in ("review/", "annotate/"):
        page.goto(full.url(path))
        page.locator(
            "#main img:not(#input-image)"
        ).first.wait_for()  # showing a group takes the focus, which closes a menu
        page.wait_for_timeout(200)
        page.locator("nav summary").first.click()
        box = menu.locator("div").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"] and box["height"] > 70
        last = menu.get_by_role("link").last
        assert last.evaluate("""e => { const b = e.getBoundingClientRect();
          return document.elementFromPoint(b.x + b.width / 2, b.y + b.height / 2) === e; }"""), path
        wrong += faults(page)
        page.emulate_media(color_scheme="light")
        picture(page, f"menu-phone-{path[:-1]}", whole=False)
        page.locator("#main").click(position={"x": 5, "y": 400})
        assert menu.count() == 0
    assert wrong == []


def test_axe_finds_nothing_serious_while_rating(full):
    page = full.rate(full.context(full.ann))
    page.keyboard.press("1")
    page.keyboard.press("2")
    page.keyboard.press("2")
    wrong = faults(page)
    for key in ("k", "s", "f", "?", "p"):
        page.keyboard.press(key)
        page.locator("dialog[open]").wait_for()
        wrong += faults(page)
        page.keyboard.press("Escape")
    page.keyboard.press("Enter")  # some are undecided: the message
    wrong += faults(page)
    page.set_viewport_size(PHONE)
    page.wait_for_timeout(100)
    wrong += faults(page)
    assert wrong == []


def test_no_page_must_be_scrolled_sideways_on_a_narrow_screen(full):
    page = full.context(full.boss, viewport={"width": 320, "height": 640}, locale="de").new_page()
    wide = {}
    for path in ("annotate/", "guidelines/", "me/", "flags/", "", "people/", "rounds/start/", "rounds/1/", *MANAGED):
        page.goto(full.url(path))
        page.wait_for_load_state("networkidle")
        wide[path] = page.evaluate("() => document.documentElement.scrollWidth")
    assert set(wide.values()) == {320}, wide


def test_axe_really_looks(full):
    page = full.browser.new_page()
    page.set_content("<html lang=en><title>x</title><main><h1>x</h1><img src=x><p style='color:#aaa'>pale</p></main>")
    wrong = faults(page)
    page.close()
    assert [w.split()[1] for w in wrong] == ["color-contrast:", "image-alt:", "color-contrast:"]


def test_a_screen_reader_hears_each_image_and_how_it_is_marked(full):
    page = full.rate(full.context(full.ann))
    page.keyboard.press("1")
    heard = page.locator("#grid").aria_snapshot()
    assert 'button "Image 1: like" [pressed]' in heard
    assert 'button "Image 2: undecided"' in heard
    assert 'group "a star"' in heard


def test_nothing_moves_where_reduced_motion_is_asked_for(full):
    page = full.rate(full.context(full.ann, reduced_motion="reduce"))
    durations = page.evaluate(
        "() => [...document.querySelectorAll('*')].map((e) => getComputedStyle(e).transitionDuration)"
    )
    assert set(durations) == {"0s"}


def test_charts_follow_dark_mode(full):
    colours = {}
    for scheme in ("light", "dark"):
        page = full.context(full.boss, color_scheme=scheme).new_page()
        page.goto(full.url("rounds/1/"))
        page.locator("#charts canvas").first.wait_for()
        colours[scheme] = page.evaluate("""() => {
          const chart = window.Chart.getChart(document.querySelector('#charts canvas'));
          return [window.Chart.defaults.color, chart.data.datasets[0].borderColor];
        }""")
    assert all(a != b for a, b in zip(colours["light"], colours["dark"], strict=True)), colours
    page.emulate_media(color_scheme="light")
    page.wait_for_function("colour => window.Chart.defaults.color === colour", arg=colours["light"][0])
