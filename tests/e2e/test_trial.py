"""An admin tries a prompt: the form, the images as they come, and what the page offers then."""

import io
import os

import pytest
from PIL import Image, ImageDraw

from tests.e2e.conftest import PHONE
from tests.e2e.helpers import CHROMIUM, choose, faults, fits, picture
from webapp.campaigns.models import Role
from webapp.lib import paths, storage
from webapp.rounds import trials
from webapp.rounds.models import ModelVersion, Trial

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no chromium")


def make(trial, claimed, column):
    """What a worker does, without a model."""
    for row in range(len(trial.seeds)):
        image = Image.new("RGB", (128, 128), "white")
        ImageDraw.Draw(image).ellipse((20 + 8 * row, 20, 90 + 8 * row, 90), fill=("#c33", "#36c", "#396")[column])
        data = io.BytesIO()
        image.save(data, "WEBP")
        storage.store().write(paths.trial_image(trial.project_id, trial.pk, column, row), data.getvalue())
    assert trials.side_made(trial.pk, claimed.token, column + 1)


def test_a_prompt_is_tried_and_made_a_prompt(site):
    ModelVersion.objects.create(project=site.project, number=2, path="x", parent=site.project.active_version)
    page = site.context(site.person("boss", Role.ADMIN)).new_page()
    page.goto(site.url(""))
    choose(page, "Model", "Try it")
    page.get_by_label("Prompt", exact=True).fill("two blue hearts above a moon")
    page.get_by_label("version 2").check()
    page.get_by_label("The base", exact=True).check()
    page.get_by_label("Seeds").fill("7, 9, 11")
    wrong = faults(page)
    page.emulate_media(color_scheme="light")
    picture(page, "try")
    page.get_by_role("button", name="Make the images").click()
    page.get_by_role("heading", name="two blue hearts above a moon").wait_for()
    assert "Next in the queue" in page.locator("#changing").inner_text()
    page.get_by_text("live", exact=True).wait_for()
    trial = Trial.objects.get()
    claimed = trials.claim(trial.pk)
    make(trial, claimed, 0)
    page.evaluate("htmx.trigger('#changing', 'refresh')")  # as the socket's news do; this process has no Redis
    page.get_by_role("img", name="version 1, seed 9").wait_for(timeout=20_000)
    assert "1 of 3 columns" in page.locator("#changing").inner_text()
    for column in (1, 2):
        make(trial, claimed, column)
    page.evaluate("htmx.trigger('#changing', 'refresh')")
    page.get_by_role("img", name="base, 40 steps, guidance 4, seed 11").wait_for(timeout=20_000)
    assert page.get_by_role("button", name="Cancel").count() == 0
    wrong += faults(page)
    page.emulate_media(color_scheme="light")
    picture(page, "trial")
    page.get_by_role("button", name="Add it").click()
    page.get_by_text("It is one of the project's prompts.").first.wait_for()
    assert site.project.prompts.filter(text="two blue hearts above a moon").exists()
    page.get_by_role("link", name="The same with other noise").click()
    assert page.get_by_label("Prompt", exact=True).input_value() == "two blue hearts above a moon"
    assert page.get_by_label("version 1").is_checked() and page.get_by_label("The base", exact=True).is_checked()
    assert page.get_by_label("Seeds").input_value() != "7, 9, 11"
    assert wrong == []


def test_on_a_phone_in_german_and_cancelled(site):
    boss = site.person("boss", Role.ADMIN)
    trial = trials.start(site.project, "مثلث أحمر", versions=[1], base=(40, 4.0), seeds=[5, 6], by=boss)
    make(trial, trials.claim(trial.pk), 0)
    page = site.context(boss, viewport={**PHONE, "width": 360}, locale="de").new_page()
    page.goto(site.url(f"try/{trial.pk}/"))
    picture(page, "trial-phone")
    assert fits(page)
    assert faults(page) == []
    page.get_by_role("button", name="Abbrechen").click()
    page.get_by_text("Er wurde abgebrochen.").wait_for()
    page.goto(site.url("try/"))
    picture(page, "try-phone")
    assert fits(page)
