"""The gallery by mouse on a desk and on a phone."""

import os

import pytest

from tests.e2e.conftest import PHONE
from tests.e2e.helpers import CHROMIUM, choose, faults, fits, picture
from tests.webapp import acting
from webapp.campaigns.models import Role
from webapp.rounds.models import ModelVersion, TrainingRound

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no chromium")


def test_images_are_found_and_their_group_is_opened(site):
    boss, ann = site.person("boss", Role.ADMIN), site.person("ann")
    first, _second = site.ready(2)
    acting.submit(ann, site.project, first, [1, 0, 0, 1])
    page = site.context(boss).new_page()
    page.goto(site.url(""))
    choose(page, "Quality", "Gallery")
    images = page.locator(".gallery figure")
    assert images.count() == 8
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Rated by").select_option("ann")
    page.get_by_label("Verdict").select_option("disliked")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**verdict=disliked**")
    assert images.count() == 2
    assert "ann" in images.first.inner_text()
    wrong = faults(page)
    page.emulate_media(color_scheme="light")
    picture(page, "gallery")
    with page.expect_download() as got:
        page.get_by_role("link", name="CSV").click()
    assert got.value.suggested_filename == "stars-labels.csv"
    images.first.get_by_role("link").click()
    page.wait_for_url(f"**/review/{first.pk}/")
    phone = site.context(boss, viewport={**PHONE, "width": 360}, locale="de").new_page()
    phone.goto(site.url("gallery/"))
    picture(phone, "gallery-phone", whole=False)
    assert fits(phone)
    assert wrong == []


def test_home_and_dashboard_begin_with_what_counts(site):
    boss, ann = site.person("boss", Role.ADMIN), site.person("ann")
    first, _second = site.ready(2, size=8)
    acting.submit(ann, site.project, first, [1, 0, 0, 1, 0, 1, 1, 0])
    version = ModelVersion.objects.create(project=site.project, number=2, path="x")
    TrainingRound.objects.create(
        project=site.project, number=1, base_version=site.project.active_version, state="done", result_version=version,
        idempotency_key="k",
    )  # fmt: skip
    TrainingRound.objects.create(
        project=site.project, number=2, base_version=version, state="running", step=20, total=60, idempotency_key="l"
    )
    wrong = []
    for user, name in ((boss, "boss"), (ann, "ann")):
        page = site.context(user).new_page()
        page.goto(site.address)
        page.locator(".strip img").first.wait_for()
        wrong += faults(page)
        page.emulate_media(color_scheme="light")
        picture(page, f"home-{name}")
    page = site.context(boss, viewport={**PHONE, "width": 360}, locale="de").new_page()
    for path, name in ((site.address, "home-phone"), (site.url(""), "dashboard-phone")):
        page.goto(path)
        picture(page, name)
        assert fits(page)
    page = site.context(boss).new_page()
    page.goto(site.url(""))
    page.get_by_role("heading", name="To decide").wait_for()
    wrong += faults(page)
    page.emulate_media(color_scheme="light")
    picture(page, "dashboard-decide")
    assert wrong == []
