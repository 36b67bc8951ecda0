"""An admin runs a campaign from its pages: by keyboard, on a phone, and with axe looking."""

import os

import pytest

from tests.e2e.helpers import CHROMIUM, faults, fits, picture
from tests.webapp import acting
from webapp.campaigns.models import Role
from webapp.campaigns.services import add_prompts
from webapp.labelling.following import finish_answered, follow_threshold
from webapp.labelling.models import Label, Scoring
from webapp.quality.services import make_gold, measure_oracles

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no chromium")
NARROW = {"width": 360, "height": 740}


@pytest.fixture
def boss(site):
    return site.person("boss", Role.ADMIN)


def test_a_prompt_is_found_and_taken_back_by_keyboard(site, boss):
    add_prompts(site.project, [{"prompt": f"{n} moons", "metadata": {"tag": "counting"}} for n in range(3)])
    (group,) = site.ready(1)
    acting.submit(boss, site.project, group, [1, 0, 0, 0])
    page = site.context(boss).new_page()
    page.goto(site.url("prompts/"))
    assert page.get_by_role("cell", name="version 1: 0.25 of 4").count() == 1
    page.get_by_role("searchbox").focus()
    page.keyboard.type("2 moons")
    page.keyboard.press("Enter")
    page.get_by_role("checkbox").first.wait_for()
    assert page.get_by_role("checkbox").count() == 1
    page.get_by_role("checkbox").focus()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Withdraw").focus()
    page.keyboard.press("Enter")
    page.get_by_text("1 prompt is withdrawn").wait_for()
    assert site.project.prompts.exclude(withdrawn_at=None).get().text == "2 moons"
    wrong = faults(page)
    page.set_viewport_size(NARROW)
    page.goto(site.url("prompts/"))
    assert fits(page)
    wrong += faults(page)
    page.emulate_media(color_scheme="light")
    picture(page, "prompts-phone")
    page.get_by_role("checkbox", name="2 moons").check()
    page.get_by_role("button", name="Put back into use").click()
    page.get_by_text("1 prompt is in use again").wait_for()
    assert wrong == []


def test_a_role_is_changed_and_somebody_removed_by_keyboard(site, boss):
    ann, old = site.person("ann"), site.person("old")
    acting.submit(old, site.project, site.ready(1)[0], [1, 0, 0, 0])
    page = site.context(boss, viewport=NARROW).new_page()
    page.goto(site.url("people/"))
    page.get_by_label("Role of ann", exact=True).focus()
    page.keyboard.press("r")
    page.get_by_role("button", name="Change the role of ann").focus()
    page.keyboard.press("Enter")
    page.get_by_text("ann has this role now: Reviewer.").wait_for()
    assert ann.memberships.get().role == Role.REVIEWER
    page.get_by_role("button", name="Remove old").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="People who left").wait_for()
    assert not old.memberships.exists()
    assert fits(page)
    assert faults(page) == []
    page.emulate_media(color_scheme="light")
    picture(page, "people-phone")


def test_a_lower_overlap_finishes_groups_and_a_new_oracle_is_asked(site, boss):
    project = site.project
    (group,) = site.ready(1)
    project.overlap = 2
    project.save()
    acting.submit(boss, project, group, [1, 0, 0, 0])
    page = site.context(boss, viewport=NARROW).new_page()
    page.goto(site.url("settings/"))
    page.locator("#id_overlap").fill("1")
    page.locator("#id_oracle").select_option("demo")
    page.locator("#id_overlap").press("Enter")
    page.get_by_text("Saved: ").wait_for()
    finish_answered(project.pk)  # what housekeeping does
    group.refresh_from_db()
    assert group.state == "done"
    page.get_by_role("button", name="Let it judge them").focus()
    page.keyboard.press("Enter")
    page.get_by_text("1 group is with the oracle now.").wait_for()
    assert Scoring.objects.get().group_id == group.pk
    assert fits(page)
    assert faults(page) == []


def test_a_group_is_asked_about_until_its_labels_are_sure(site, boss):
    agreed, split = site.ready(2)
    page = site.context(boss, viewport=NARROW, locale="de").new_page()
    page.goto(site.url("settings/"))
    page.get_by_label("Überlappung höchstens").fill("0")
    page.get_by_label("Sicher genug").fill("0.85")
    page.get_by_label("Sicher genug").press("Enter")
    page.locator(".field-error").wait_for()
    page.get_by_label("Überlappung höchstens").fill("3")
    page.get_by_label("Erzeugte Bilder").fill("12")
    assert fits(page)
    assert faults(page) == []
    page.emulate_media(color_scheme="light")
    page.get_by_label("Überlappung höchstens").scroll_into_view_if_needed()
    picture(page, "sure-phone", whole=False)
    page.get_by_label("Sicher genug").press("Enter")
    page.get_by_text("Gespeichert: ").wait_for()
    site.project.refresh_from_db()
    assert (site.project.overlap_most, site.project.sure, site.project.images_made) == (3, 0.85, 12)
    people = [site.person(name) for name in ("one", "two", "three")]
    acting.submit(people[0], site.project, agreed, [1, 0, 0, 0])
    acting.submit(people[0], site.project, split, [1, 0, 0, 0])
    acting.submit(people[1], site.project, agreed, [1, 0, 0, 0])  # they agree: nobody more
    acting.submit(people[1], site.project, split, [0, 1, 1, 0])  # they do not: one more
    rating = site.rate(site.context(people[2]))
    assert [lease.group for lease in people[2].leases.all()] == [split]
    rating.keyboard.press("l")
    with rating.expect_response("**/submit/"):
        rating.keyboard.press("Enter")
    for group, word in ((agreed, "done"), (split, "done")):
        group.refresh_from_db()
        assert (group.state, group.decisions) == (word, 2 if group == agreed else 3)
    review = site.context(boss).new_page()
    review.goto(site.url(f"review/{agreed.pk}/"))
    review.get_by_text("2 people answered; 90% of the labels should be right.").wait_for()


def test_an_oracle_is_chosen_by_how_far_it_says_what_people_say(site, boss):
    groups = site.ready(3)
    for group in groups:
        acting.submit(boss, site.project, group, [1, 1, 0, 0])
        for image in group.generations.all():
            Label.objects.create(generation=image, oracle="demo", liked=image.position != 1, score=0.5)
    measure_oracles(site.project)
    page = site.context(boss, viewport=NARROW, locale="de").new_page()
    page.goto(site.url("settings/"))
    assert "demo: wie Personen bei 25 % der Bilder" in page.locator("#id_oracle").text_content()
    page.locator("#judges").scroll_into_view_if_needed()
    assert fits(page)
    assert faults(page) == []
    page.emulate_media(color_scheme="light")
    picture(page, "judges-phone", whole=False)


def test_a_fitted_threshold_is_used_and_given_up_with_a_click(site, boss):
    site.project.oracle = "demo"
    site.project.save()
    for group in site.ready(5):
        acting.submit(boss, site.project, group, [1, 1, 0, 0])
        for image, score in zip(group.generations.all(), (0.9, 0.8, 0.6, 0.1), strict=True):
            Label.objects.create(generation=image, oracle="demo", liked=score > 0.5, score=score)
        group.refresh_from_db()
        make_gold(group, "review", {0: True, 1: True, 2: False, 3: False}, by=boss)
    measure_oracles(site.project)
    page = site.context(boss, viewport=NARROW).new_page()
    page.goto(site.url("settings/"))
    page.get_by_role("button", name="Use the fitted threshold, 0.70").focus()
    page.keyboard.press("Enter")
    page.get_by_text("What the oracle demo gives a score of 0.70 or more is liked.").wait_for()
    site.project.refresh_from_db()
    assert follow_threshold(site.project) == 5
    assert fits(page)
    assert faults(page) == []
    page.emulate_media(color_scheme="light")
    page.locator("#threshold").scroll_into_view_if_needed()
    picture(page, "threshold-phone", whole=False)
    page.get_by_role("button", name="Ask the oracle itself again").click()
    page.get_by_text("The oracle judges 5 groups once more.").wait_for()
    assert Scoring.objects.count() == 5
