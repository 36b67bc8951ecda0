"""Rating as people do it: at a desk and on a phone, with keys alone, with second thoughts, beside others."""

import os
import time

import pytest
from django.utils import timezone

from tests.e2e.conftest import DESKTOP, PHONE
from tests.e2e.helpers import CHROMIUM, number_of, picture, rate_by_keyboard, task_of, wait_saved
from tests.servers import wait_for
from webapp.campaigns.models import Role
from webapp.labelling import leases, preferences
from webapp.labelling.models import Flag, GroupDecision, Label, Lease

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no chromium")

LOW = {"width": 844, "height": 390}  # a phone on its side
SEEN = """() => [...document.querySelectorAll('#grid .tile-image, .actions button, #prompt')].filter((e) => {
  const box = e.getBoundingClientRect();
  return box.top < 0 || box.left < 0 || box.bottom > innerHeight + 0.5 || box.right > innerWidth + 0.5;
}).length"""


def group_on(page) -> int:
    return number_of(page.locator("#grid").get_attribute("data-group"))


def marks(page) -> str:
    """L, D or . by image."""
    return page.evaluate(
        "() => [...document.querySelectorAll('#grid .tile-image')].map((b) => "
        "b.classList.contains('liked') ? 'L' : b.classList.contains('disliked') ? 'D' : '.').join('')"
    )


def test_a_group_of_any_size_is_seen_at_one_glance(site):
    site.project.guidelines = "Like what the prompt says."
    site.project.save()
    context = site.context(site.person("ann"))
    for size in (2, 3, 5, 8, 12, 24):
        site.project.groups.all().delete()
        site.ready(1, size=size)
        text = "a star" if size != 8 else "a very long prompt, " * 49  # the longest there may be
        site.project.prompts.update(text=text)
        page = site.rate(context)
        for viewport in (DESKTOP, PHONE, LOW, {"width": 1920, "height": 1000}):
            page.set_viewport_size(viewport)
            page.wait_for_timeout(60)
            assert page.evaluate(SEEN) == 0, (size, viewport)
            width = page.locator("#grid .tile-image").first.bounding_box()["width"]
            assert width >= 56, (size, viewport)
        page.close()


def test_a_group_can_be_rated_with_the_keyboard_alone(site):
    site.ready(4, size=8)
    page = site.rate(site.context(site.person("ann")))
    page.keyboard.press("d")
    page.keyboard.press("2")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")  # the third image has the focus
    page.keyboard.press("k")
    assert page.locator("#zoom-title").text_content() == "Image 3 of 8: like"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    assert page.locator("#zoom-title").text_content() == "Image 4 of 8: like"
    page.keyboard.press("Escape")
    assert marks(page) == "DLLLDDDD"
    page.keyboard.press("ArrowDown")  # from the fourth, by the grid's columns
    columns = int(page.evaluate("getComputedStyle(document.querySelector('#grid')).getPropertyValue('--columns')"))
    assert page.evaluate("document.activeElement.dataset.position") == str(3 + columns)
    page.keyboard.press("k")
    page.keyboard.press("ArrowRight")
    # The focus is on the image last looked at at once, not when the browser tells that the dialog has closed.
    shown = page.evaluate(
        "(document.querySelector('#zoom-dialog [data-close]').click(), document.activeElement.dataset.position)"
    )
    assert shown == str((4 + columns) % 8)
    page.keyboard.press("i")
    assert marks(page) == "LDDDLLLL"
    page.keyboard.press("?")
    assert page.locator("#help-dialog").is_visible()
    page.keyboard.press("1")  # does nothing behind a dialog
    page.keyboard.press("Escape")
    first = group_on(page)
    page.keyboard.press("Enter")
    page.wait_for_function("n => document.querySelector('#grid').dataset.group != n", arg=task_of(first))
    page.keyboard.press("l")
    page.keyboard.press("1")
    page.keyboard.press("Tab")  # to the next image, not out of the group
    assert page.evaluate("document.activeElement.dataset.position") == "1"
    second = group_on(page)
    page.keyboard.press("Enter")
    wait_saved(page)
    assert GroupDecision.objects.get(group=first).answer["1"] is False
    assert GroupDecision.objects.get(group=second).answer == {str(i): i > 0 for i in range(8)}


def test_keys_chosen_on_ones_own_page_work_and_clashes_are_said_at_once(site):
    site.ready(2)
    context = site.context(site.person("ann"))
    page = context.new_page()
    page.goto(site.url("me/"))
    page.locator("#key-submit").focus()
    page.keyboard.press("d")
    assert page.locator("#error-submit").is_visible() and page.locator("#error-dislike_all").is_visible()
    page.keyboard.press("j")
    assert not page.locator("#error-submit").is_visible()
    page.get_by_role("button", name="Save the keys").click()
    page.get_by_text("Your keys are saved").wait_for()
    page = site.rate(context)
    assert page.locator("#submit kbd").text_content() == "J"
    page.keyboard.press("l")
    page.keyboard.press("Enter")  # on an image, and submits nothing now
    assert marks(page) == "DLLL" or marks(page) == "LLLL"
    page.keyboard.press("l")
    page.keyboard.press("j")
    wait_saved(page)
    assert wait_for(lambda: Label.objects.filter(liked=True).count() == 4, 20)


def test_an_undecided_image_is_pointed_at(site):
    site.ready(1)
    page = site.rate(site.context(site.person("ann")))
    page.keyboard.press("1")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    assert page.get_by_text("2 of 4 images are undecided").is_visible()
    assert page.evaluate("document.activeElement.dataset.position") == "2"


def test_several_groups_are_undone_and_answered_anew(site):
    site.ready(5)
    page = site.rate(site.context(site.person("ann")))
    rated = [number_of(rate_by_keyboard(page, lambda position, n=n: position == n)) for n in range(3)]
    page.locator("#grid .tile-image").first.wait_for()
    here = group_on(page)
    page.keyboard.press("l")  # an unfinished one, which must come back as it was
    for n in (2, 1):
        page.keyboard.press("u")
        assert group_on(page) == rated[n]
        assert marks(page) == "".join("L" if i == n else "D" for i in range(4))
    page.keyboard.press("4")
    page.keyboard.press("Enter")
    assert (group_on(page), marks(page)) == (rated[2], "DDLD")
    page.keyboard.press("Enter")
    assert (group_on(page), marks(page)) == (here, "LLLL")
    wait_saved(page)
    assert wait_for(lambda: GroupDecision.objects.count() == 3, 20)
    assert GroupDecision.objects.get(group=rated[1]).answer == {"0": False, "1": True, "2": False, "3": True}
    assert Label.objects.count() == 12
    page.reload()  # then the server is asked, and gives its answers
    page.locator("#grid .tile-image").first.wait_for()
    for n in (2, 1, 0):
        page.keyboard.press("u")
        page.wait_for_function("n => document.querySelector('#grid').dataset.group == n", arg=task_of(rated[n]))
    assert marks(page) == "LDDD"
    assert not Label.objects.exists()


def test_skip_with_a_reason_flag_an_image_and_undo_both(site):
    groups = site.ready(4)
    page = site.rate(site.context(site.person("ann")))
    page.keyboard.press("s")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    page.wait_for_function("n => document.querySelector('#grid').dataset.group != n", arg=task_of(groups[0].pk))
    flagged = group_on(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("f")
    assert page.locator("#flag-position").input_value() == "1"
    page.locator("#flag-note").fill("nothing but noise")
    page.keyboard.press("Enter")
    page.wait_for_function("n => document.querySelector('#grid').dataset.group != n", arg=task_of(flagged))
    wait_saved(page)
    assert wait_for(lambda: Flag.objects.count() == 1, 20)
    flag = Flag.objects.get()
    assert (flag.group_id, flag.generation.position, flag.note) == (flagged, 1, "nothing but noise")
    assert GroupDecision.objects.get(group=groups[0]).reason == "unclear"
    reviewer = site.context(site.person("rev", Role.REVIEWER)).new_page()
    reviewer.goto(site.url("flags/"))
    assert reviewer.get_by_text("nothing but noise").is_visible()
    page.keyboard.press("u")
    assert group_on(page) == flagged
    page.keyboard.press("u")
    assert group_on(page) == groups[0].pk
    wait_saved(page)
    assert wait_for(lambda: not GroupDecision.objects.exists() and not Flag.objects.exists(), 20)


def test_a_pause_stops_the_clock(site):
    site.ready(2)
    start = time.monotonic()
    page = site.rate(site.context(site.person("ann")))
    page.keyboard.press("p")
    assert page.get_by_role("heading", name="Paused").is_visible()
    page.wait_for_timeout(1500)
    page.keyboard.press("Enter")
    page.wait_for_function("() => !document.querySelector('#pause-dialog').open")
    page.keyboard.press("l")
    page.keyboard.press("Enter")
    took = time.monotonic() - start
    wait_saved(page)
    assert wait_for(GroupDecision.objects.exists, 20)
    assert GroupDecision.objects.get().seconds < took - 1.4


def test_time_in_which_nobody_did_anything_does_not_count(site):
    site.ready(2)
    context = site.context(site.person("ann"))
    context.clock.install()
    page = site.rate(context)
    context.clock.run_for(20_000)
    page.keyboard.press("l")
    context.clock.run_for(3 * 3_600_000)
    page.keyboard.press("Enter")
    wait_saved(page)
    assert wait_for(GroupDecision.objects.exists, 20)
    assert 80 <= GroupDecision.objects.get().seconds < 90


def test_a_group_that_went_to_somebody_else_meanwhile_is_let_go(site):
    groups = site.ready(5)
    ann = site.person("ann")
    page = site.rate(site.context(ann))
    page.wait_for_load_state("networkidle")
    assert group_on(page) == groups[0].pk
    Lease.objects.update(expires_at=timezone.now())  # as after ten minutes
    lent = leases.lease_groups(site.person("bob"), site.project, 3)
    page.keyboard.press("p")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "n => document.querySelector('#grid').dataset.group === n", arg=leases.task_name(ann.pk, groups[3].pk)
    )
    assert groups[0] in lent and groups[3] not in lent


def test_keys_that_were_switched_off_do_nothing_and_the_rest_goes_on(site):
    site.ready(2)
    ann = site.person("ann")
    preferences.save_keys(ann, {}, keys_on=False)
    page = site.rate(site.context(ann))
    for key in ("l", "1", "?", "s"):
        page.keyboard.press(key)
    assert marks(page) == "...." and not page.locator("dialog[open]").count()
    for _ in range(4):
        page.keyboard.press("Space")
        page.keyboard.press("ArrowRight")
    assert marks(page) == "LLLL"
    page.locator("#submit").focus()
    page.keyboard.press("Enter")
    wait_saved(page)
    assert wait_for(lambda: Label.objects.count() == 4, 20)


def test_the_next_group_is_on_screen_within_100_ms_however_slow_the_server(site):
    site.ready(8, size=8, pixels=512)
    page = site.rate(site.context(site.person("ann")))
    page.wait_for_load_state("networkidle")

    def slowly(route):
        time.sleep(0.3)
        route.continue_()

    page.route("**/submit/", slowly)
    for n in range(1, 4):
        rate_by_keyboard(page, lambda position: position == 0)
        wait_saved(page)
        page.wait_for_load_state("networkidle")
        page.wait_for_function("n => performance.getEntriesByName('likestep-next').length === n", arg=n)
    took = page.evaluate("() => performance.getEntriesByName('likestep-next').map((entry) => entry.duration)")
    # The best of three: what waits for the server waits each time, a busy machine does not. A machine too busy to draw
    # two frames in 34 ms is given as much more time as it needs for those.
    frames = page.evaluate("""() => new Promise((done) => {
      const start = performance.now();
      requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
    })""")
    assert min(took) < 100 * max(1, frames / 34), (took, frames)
    # It was loaded before it was asked for, at the size it has on this screen.
    asked = page.evaluate(
        "() => performance.getEntriesByType('resource').map((r) => r.name).filter((n) => n.includes('.webp'))"
    )
    assert all(name.endswith("?w=256") for name in asked), asked[:3]
    assert len(asked) == len(set(asked))


def test_two_people_racing_never_see_the_same_group(site):
    site.ready(8)
    pages = [site.rate(site.context(site.person(name))) for name in ("ann", "bob")]
    rated = []
    while len(rated) < 8:
        for page in pages:
            page.locator("#grid .tile-image, #empty:visible").first.wait_for()
            if not page.locator("#empty").is_visible():
                rated.append(number_of(rate_by_keyboard(page, lambda position: position == 0)))
                wait_saved(page)
    for page in pages:
        page.get_by_text("No group is waiting right now").wait_for()
    assert len(set(rated)) == 8
    assert wait_for(lambda: Label.objects.count() == 32, 10)
    assert Label.objects.values("generation").distinct().count() == 32
    assert Label.objects.values("annotator").distinct().count() == 2


def test_a_dashboard_moves_by_itself_when_somebody_submits(site):
    site.ready(2)
    watcher = site.context(site.person("rev", Role.REVIEWER)).new_page()
    watcher.goto(site.url(""))
    watcher.wait_for_function("() => document.querySelector('#live').dataset.live === 'true'")
    labelled = watcher.locator(".tile", has_text="groups labelled").locator("b")
    assert labelled.text_content() == "0"
    page = site.rate(site.context(site.person("ann")))
    rate_by_keyboard(page, lambda position: position == 0)
    wait_saved(page)
    watcher.wait_for_function(
        "() => [...document.querySelectorAll('.tile')].find((t) => t.textContent.includes('groups labelled'))"
        ".querySelector('b').textContent === '1'",
        timeout=20_000,
    )


def test_fingers_on_a_phone_rate_a_group(site):
    site.ready(3, size=8)
    page = site.rate(site.context(site.person("ann"), viewport=PHONE, has_touch=True, is_mobile=True))
    first = group_on(page)
    page.locator("#all-dislike").tap()
    page.locator("#grid .tile-image").nth(5).tap()
    assert marks(page) == "DDDDDLDD"
    picture(page, "phone-rating")
    page.locator("#grid .zoom-button").nth(1).tap()
    page.locator("#zoom-like").tap()
    page.locator("#zoom-dialog [data-close]").tap()
    page.locator("#submit").tap()
    page.wait_for_function("n => document.querySelector('#grid').dataset.group != n", arg=task_of(first))
    wait_saved(page)
    assert wait_for(lambda: Label.objects.filter(liked=True).count() == 2, 20)


def test_the_machine_takes_less_than_ten_seconds_of_a_newcomers_first_group_of_8(site):
    """From the invitation to a saved group, a person who thinks no time at all: what is left is the machine's."""
    from webapp.campaigns.membership import invite

    site.ready(3, size=8)
    link = f"{site.address}/join/{invite(site.project, Role.ANNOTATOR, site.person('boss', Role.ADMIN))}/"
    context = site.browser.new_context(viewport=DESKTOP)
    site.contexts.append(context)
    page = context.new_page()
    start = time.monotonic()
    page.goto(link)
    page.fill("#id_username", "newcomer")
    page.fill("#id_password1", "long enough pass")
    page.fill("#id_password2", "long enough pass")
    page.keyboard.press("Enter")
    rate_by_keyboard(page, lambda position: position % 2 == 0)
    wait_saved(page)
    took = time.monotonic() - start
    assert Label.objects.filter(annotator__username="newcomer").count() == 8
    busy = max(1, os.getloadavg()[0] / os.cpu_count())  # a core to itself is what a person's machine gives
    assert took < 10 * busy, took
