"""No answer is lost and none is doubled: the line is down, the session has ended, two tabs share the browser."""

import os

import pytest

from tests.e2e.helpers import CHROMIUM, rate_by_keyboard, task_of, wait_loaded, wait_saved
from tests.servers import wait_for
from webapp.labelling.models import GroupDecision, Label, UndoneDecision

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no chromium")


@pytest.fixture
def ann(site):
    site.ready(8)
    return site.person("ann")


def stuck(page):
    page.wait_for_function("() => document.querySelector('#status').dataset.stuck === 'true'")


def decided():
    return [task_of(group) for group in GroupDecision.objects.order_by("pk").values_list("group", flat=True)]


def test_answers_given_offline_are_kept_through_a_reload_and_sent_in_order(site, ann):
    context = site.context(ann)
    page = site.rate(context)
    wait_loaded(page, 12)
    context.set_offline(True)
    rated = [rate_by_keyboard(page, lambda position: position == 0) for _ in range(3)]
    stuck(page)
    assert "3 answers are kept in this browser" in page.locator("#offline").text_content()
    assert not Label.objects.exists()
    asked = []
    page.once("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    context.set_offline(False)
    page.evaluate("() => location.reload()")  # who leaves now is asked first
    page.locator("#status[data-waiting='0']").wait_for(timeout=30_000)
    assert asked == ["beforeunload"]
    wait_saved(page)
    assert not page.locator("#offline").is_visible()
    assert decided() == rated
    assert Label.objects.count() == 12


def test_the_page_goes_on_offline_with_what_it_has_and_takes_up_again_by_itself(site, ann):
    context = site.context(ann)
    page = site.rate(context)
    wait_loaded(page, 12)
    context.set_offline(True)
    rated = []
    for _ in range(3):  # the group on screen and the two that were loaded ahead, pictures and all
        assert page.evaluate("() => [...document.querySelectorAll('#grid img')].every((i) => i.naturalWidth > 0)")
        rated.append(rate_by_keyboard(page, lambda position: position == 1))
    page.get_by_text("No group is waiting right now").wait_for()
    page.keyboard.press("u")  # taken back without a line too, with its answer
    assert page.locator("#grid .tile-image.liked").count() == 1
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    context.set_offline(False)
    wait_saved(page)
    page.locator("#grid .tile-image").first.wait_for()
    assert wait_for(lambda: decided() == rated, 20)
    last = GroupDecision.objects.latest("pk")
    assert last.answer == {"0": True, "1": True, "2": False, "3": False}
    assert UndoneDecision.objects.count() == 1
    assert Label.objects.count() == 12


def test_an_answer_whose_receipt_was_lost_counts_once(site, ann):
    page = site.rate(site.context(ann))

    def swallow(route):
        route.fetch()  # the server has it, the page never hears of it
        route.abort()

    page.route("**/submit/", swallow)
    rated = rate_by_keyboard(page, lambda position: position == 0)
    stuck(page)
    page.unroute_all()
    wait_saved(page)
    assert decided() == [rated]
    assert Label.objects.count() == 4


def test_an_ended_session_keeps_the_answers_until_the_next_log_in(site, ann):
    context = site.context(ann)
    page = site.rate(context)
    cookies = context.cookies()
    context.clear_cookies(name="sessionid")
    rate_by_keyboard(page, lambda position: position == 0)
    stuck(page)
    page.get_by_text("Your session has ended").wait_for()
    assert not page.locator("#offline").is_visible()  # the server is there
    assert not Label.objects.exists()
    context.add_cookies(cookies)
    page.goto(site.url("annotate/"))
    wait_saved(page)
    assert wait_for(lambda: Label.objects.count() == 4, 20)


def test_two_tabs_lose_nothing_of_each_other(site, ann):
    context = site.context(ann)
    first = site.rate(context)
    rated = [rate_by_keyboard(first, lambda position: position == 0)]
    wait_saved(first)
    second = site.rate(context)
    second.wait_for_load_state("networkidle")
    rated.append(rate_by_keyboard(second, lambda position: False))
    # The other tab had the same group on screen and lets go of it.
    first.wait_for_function("n => document.querySelector('#grid').dataset.group != n", arg=rated[-1])
    wait_saved(second)
    rate_by_keyboard(second, lambda position: False)  # so that the tabs show different groups
    wait_saved(second)
    first.reload()
    first.locator("#grid .tile-image").first.wait_for()
    rated.append(rate_by_keyboard(first, lambda position: False))
    wait_saved(first)
    context.set_offline(True)
    rated.append(rate_by_keyboard(first, lambda position: position == 1))
    stuck(first)
    assert first.evaluate("Object.keys(localStorage).filter(k => k.startsWith('likestep-outbox-')).length") == 1
    context.set_offline(False)
    wait_saved(second)  # either tab sends what waits
    assert wait_for(lambda: set(rated) <= set(decided()), 20)
    assert len(decided()) == len(set(decided()))
