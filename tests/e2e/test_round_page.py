"""An admin who has never seen it learns from a round's page whether the new version is better, where, and by how much."""

import io
import json
import os
from datetime import timedelta

import pytest
from django.utils import timezone
from PIL import Image

from common.settings import TDMR1Settings
from tests.e2e.conftest import PHONE
from tests.e2e.helpers import CHROMIUM, fits, picture
from webapp.campaigns.models import Role
from webapp.lib import paths, storage
from webapp.rounds.models import ModelVersion, RoundMetric, TrainingRound

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no chromium")
PROMPTS = ["a red star", "two blue hearts", "a moon left of a very long sentence that does not end soon", "مثلث أحمر"]
TAGS = ["colors", "counting", "position", "colors"]
BEFORE, AFTER = (False, True, False, True), (True, True, True, False)
COLOURS = {"before": (180, 60, 60), "after": (60, 140, 80)}


def verdict(liked):
    return {"score": float(liked), "liked": liked, "correct": liked}


@pytest.fixture
def done(site):
    base = site.project.active_version
    version = ModelVersion.objects.create(project=site.project, number=2, path="x", parent=base)
    training = TrainingRound.objects.create(
        project=site.project, number=1, base_version=base, idempotency_key="k", state="done", result_version=version,
        scores_before={"reward": 0.5}, scores_after={"reward": 0.75}, step=60, total=60,
        settings={**TDMR1Settings().to_json(), "updates": 60, "rank": 16, "student_lr": 1e-4},
        made_from={"labels": {"people": 1240, "scenes": 300}, "people": 3},
        finished_at=timezone.now() + timedelta(minutes=40),
    )  # fmt: skip
    for step in range(1, 61, 5):
        values = {"validation_reward": 0.4 + step / 200, "validation_geneval": 0.3 + step / 200, "validation_word": 0.1}
        values |= {"opinion": step / 60, "second_recognition": 1.0, "accuracy_held_out": 0.7, "accuracy_trained": 0.8}
        RoundMetric.objects.create(round=training, step=step, values={**values, "student": 1 / step, "fake": 1.0})
    for which, colour in COLOURS.items():
        sheet = Image.new("RGB", (4 * 130 - 2, 128), "white")
        for i in range(4):
            sheet.paste(Image.new("RGB", (128, 128), tuple(c + 15 * i for c in colour)), (i * 130, 0))
        kept = io.BytesIO()
        sheet.save(kept, "WEBP", lossless=True)
        storage.store().write(paths.grid(training.pk, which), kept.getvalue())
    rows = zip(PROMPTS, TAGS, BEFORE, AFTER, strict=True)
    pairs = [{"prompt": p, "tag": t, "before": verdict(b), "after": verdict(a), "opinion": 0.1} for p, t, b, a in rows]
    changes = [
        {"name": "reward", "before": 0.5, "after": 0.75, "change": 0.25, "error": 0.05, "images": 112},
        {"name": "counting", "before": 0.4, "after": 0.7, "change": 0.3, "error": 0.1, "images": 56},
        {"name": "colors", "before": 0.8, "after": 0.78, "change": -0.02, "error": 0.05, "images": 56},
    ]
    seen = {"columns": 4, "size": [128, 128], "pairs": pairs, "changes": changes}
    storage.store().write(paths.comparison(training.pk), json.dumps(seen).encode())
    site.boss = site.person("boss", Role.ADMIN)
    return site


def test_the_answer_where_and_the_pairs(done, tmp_path):
    page = done.context(done.boss).new_page()
    page.goto(done.url("rounds/1/"))
    assert page.locator("#answer").inner_text().startswith("Yes: version 2 is better than version 1.")
    assert "0.15 to 0.35" in page.locator("#answer").inner_text()
    rows = page.locator("tr.better, tr.worse, tr.unsure")
    assert [row.get_attribute("class") for row in rows.all()] == ["better", "better", "unsure"]
    made = page.locator("section", has=page.get_by_role("heading", name="What it was made from")).last
    assert "1240 labels of 3 people, 300 labels of the oracle scenes." in made.inner_text()
    assert "40 minutes from start to end" in made.inner_text() and "2,880 images" in made.inner_text().replace(
        "2880", "2,880"
    )
    made.get_by_text("2 settings differ from their defaults").click()
    assert "16 instead of 32" in made.inner_text()
    assert page.get_by_text("The surrogate prefers the new one.").count() == 4
    page.locator("#charts canvas").first.wait_for()
    picture(page, "round-pairs")

    pairs = page.locator("#pairs > li")
    assert [pair.is_visible() for pair in pairs.all()] == [True] * 4
    page.get_by_label("Only what changed").check()
    assert [pair.is_visible() for pair in pairs.all()] == [True, False, True, True]
    page.get_by_label("Tag").select_option("colors")
    assert [pair.is_visible() for pair in pairs.all()] == [True, False, False, True]
    page.get_by_label("Tag").select_option("counting")
    assert page.get_by_text("No pair is like that.").is_visible()
    page.evaluate("htmx.trigger('#changing', 'refresh')")  # news do not undo what somebody chose
    page.wait_for_timeout(500)
    assert (
        page.get_by_text("No pair is like that.").is_visible() and page.get_by_label("Only what changed").is_checked()
    )


def test_three_clicks_answer_whether_where_and_by_how_much(done):
    """Those of docs/tour.md, from the first page after log-in: Dashboard, the round's number, one pair."""
    page = done.context(done.boss).new_page()
    page.goto(done.address)
    page.get_by_role("link", name="Dashboard").click()
    rounds = page.locator("table", has=page.get_by_role("columnheader", name="Round", exact=True))
    rounds.get_by_role("link", name="1", exact=True).click()
    answer = " ".join(page.locator("#answer").inner_text().split())
    assert answer == (
        "Yes: version 2 is better than version 1. The mean reward of 112 validation images went from 0.50 to 0.75 "
        "(95% interval of the change: 0.15 to 0.35)."
    )
    rows = page.locator("table[aria-labelledby=where] tbody tr")
    told = [" ".join(row.inner_text().split()) for row in rows.all()]
    assert told == [
        "reward 0.50 0.75 +0.25 ▲ better 0.15 … 0.35 112",
        "counting 0.40 0.70 +0.30 ▲ better 0.10 … 0.50 56",
        "colors 0.80 0.78 -0.02 -0.12 … 0.08 56",
    ]
    page.locator(".pair").first.click()
    large = page.locator("#large")
    assert large.is_visible() and large.locator("#large-prompt").inner_text() == PROMPTS[0]
    assert large.locator("#large-stack").get_by_role("img").count() == 2
    picture(page, "three-clicks", whole=False)


def test_a_pair_large_by_mouse_and_by_keys(done):
    page = done.context(done.boss).new_page()
    page.goto(done.url("rounds/1/"))
    page.get_by_text("live", exact=True).wait_for()  # the page has asked for news once
    page.locator(".pair").first.click()
    dialog, stack = page.locator("#large"), page.locator("#large-stack")
    assert dialog.is_visible() and page.locator("#large-prompt").inner_text() == PROMPTS[0]

    def old():
        return stack.evaluate("e => e.style.getPropertyValue('--old')")

    assert old() == "50%"
    page.evaluate("htmx.trigger('#changing', 'refresh')")
    page.wait_for_timeout(500)
    assert dialog.is_visible()
    box = stack.bounding_box()  # no neighbour of the picture shows beside a square image
    assert abs(box["width"] - box["height"]) < 2
    picture(page, "round-pair-large", whole=False)
    page.locator("#large-slider").fill("80")
    assert old() == "20%"
    hold = page.locator("#large-hold")
    hold.hover()
    page.mouse.down()
    assert old() == "100%"
    page.mouse.up()
    assert old() == "20%"
    hold.focus()
    page.keyboard.down(" ")
    assert old() == "100%"
    page.keyboard.up(" ")
    assert old() == "20%"
    page.keyboard.press("ArrowRight")
    assert page.locator("#large-prompt").inner_text() == PROMPTS[1]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#large-prompt").inner_text() == PROMPTS[3]
    assert (
        page.get_by_role("link", name="More of this prompt")
        .get_attribute("href")
        .startswith("/p/stars/try/?versions=1&")
    )
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert page.evaluate("document.activeElement.className") == "pair"


def test_on_a_phone_nothing_scrolls_sideways(done):
    page = done.context(done.boss, viewport={**PHONE, "width": 360}).new_page()
    page.goto(done.url("rounds/1/"))
    picture(page, "round-pairs-phone")
    assert fits(page)
    page.locator(".pair").nth(2).click()
    assert page.locator("#large").is_visible()
    assert fits(page)


def test_what_the_surrogate_learned_opens_and_stays_open(done):
    training = TrainingRound.objects.get(project=done.project)
    storage.store().write(paths.grid(training.pk, "surrogate"), storage.store().read(paths.grid(training.pk, "after")))
    page = done.context(done.boss).new_page()
    page.goto(done.url("rounds/1/"))
    image = page.get_by_alt_text("Images by the base, led by the surrogate")
    assert not image.is_visible()
    page.get_by_text("What the surrogate learned").click()
    page.wait_for_function("() => document.querySelector('#taught img').naturalWidth === 518")
    page.evaluate("htmx.trigger('#changing', 'refresh')")
    page.wait_for_timeout(500)
    assert image.is_visible()
    picture(page, "round-taught")
