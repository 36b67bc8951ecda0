"""Before a round is started its form says what there is, what the forecast asks, and what the round takes."""

import os

import pytest

from tests.e2e.conftest import PHONE
from tests.e2e.helpers import CHROMIUM, PICTURES, faults, fits, picture
from tests.servers import wait_for
from tests.webapp import acting
from webapp.campaigns.models import Role
from webapp.rounds import plans
from webapp.rounds.models import RoundPlan, TrainingRound

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no chromium")
RUNG = {"half": True, "weights": "int8"}
VALUES = {"bytes": 2.1e9, "has": 17e9, "flops": 1e15, "seconds": 1500}


def test_presets_time_and_memory_before_the_click(site):
    boss = site.person("boss", Role.ADMIN)
    (group,) = site.ready(1)
    acting.submit(site.person("ann"), site.project, group, [1, 0, 0, 1])
    page = site.context(boss).new_page()
    page.goto(site.url("rounds/start/"))
    page.get_by_role("link", name="Quick look").click()
    page.wait_for_url("**preset=quick")
    assert page.get_by_label("Updates in the round").input_value() == "10"
    plan = page.locator("#plan")
    plan.get_by_text("are being worked out").wait_for()
    page.wait_for_function("() => document.querySelector('#plan p').hasAttribute('hx-get')")
    plans.keep(RoundPlan.objects.get().pk, VALUES)
    plan.get_by_text("Roughly 25 minutes").wait_for()
    page.get_by_label("Updates in the round").fill("12")
    page.get_by_label("Updates in the round").press("Tab")
    asked = RoundPlan.objects.filter(values__isnull=True, card="", settings__updates=12)
    assert wait_for(asked.exists, 30)
    newest = asked.get()
    assert newest.settings["alarm"] is True
    plans.keep(newest.pk, {**VALUES, "has": 1e9})
    plan.get_by_text("That does not fit").wait_for()
    page.get_by_label("Graphics card").select_option("12GB")
    on_card = RoundPlan.objects.filter(card="12GB")
    assert wait_for(on_card.exists, 30)
    page.locator("#rung").get_by_text("is being worked out").wait_for()
    assert on_card.get().settings["updates"] == 12
    plans.keep(on_card.get().pk, {**VALUES, "bytes": 11.8e9, "has": 12e9, "options": RUNG})
    page.get_by_text("It fits with: frozen parts in bf16, weights as int8 codes").wait_for()
    page.locator("#memory").screenshot(path=PICTURES / "memory-of-a-card.png")
    wrong = faults(page)
    page.get_by_role("button", name="Use this for the project's rounds").click()
    page.locator("#memory-now").get_by_text("weights as int8 codes").wait_for()
    page.locator("#rung").get_by_text("So it is set for this project's rounds").wait_for()
    site.project.refresh_from_db()
    assert site.project.round_memory == RUNG
    page.emulate_media(color_scheme="light")
    picture(page, "start-round", whole=False)
    page.get_by_role("button", name="Start the round").click()
    page.wait_for_url("**/rounds/1/")
    assert TrainingRound.objects.get().settings["updates"] == 12
    phone = site.context(boss, viewport={**PHONE, "width": 360}, locale="de").new_page()
    phone.goto(site.url("rounds/start/"))
    phone.get_by_text("Runde 1 ist noch nicht zu Ende").wait_for()
    phone.get_by_label("Grafikkarte").select_option("24GB")
    phone.locator("#rung p").wait_for()
    picture(phone, "start-round-phone", whole=False)
    assert fits(phone)
    assert wrong == []
