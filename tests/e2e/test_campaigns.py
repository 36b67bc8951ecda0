"""An admin in the browser: a project from zero to its first labels, out and in, a review; a blind test to its end."""

import os

import pytest
from django.conf import settings as django_settings
from django.test import Client

from common.files import sha256_of
from tests.e2e.helpers import CHROMIUM, FLAGS, choose, faults, picture, rate_by_keyboard, wait_saved
from tests.webapp.acting import make_pairs
from tests.webapp.loras import LORA, write_lora
from webapp.accounts.models import User
from webapp.campaigns.models import Membership, Project
from webapp.campaigns.services import create_project
from webapp.labelling import generation
from webapp.labelling.models import Label
from webapp.quality.models import Consensus
from webapp.rounds import sharing
from webapp.rounds.models import Comparison, ModelVersion, Pair
from workers.hub import send

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="no chromium; install Debian's package `chromium`"
)


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield made
        made.close()


@pytest.fixture
def page_of(live_server, chromium):
    """page_of(user, **context): a page of that person, logged in; what the console calls an error fails the test."""
    contexts, problems = [], []

    def make(user, **options):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
        contexts.append(context)
        client = Client()
        client.force_login(user)
        name = django_settings.SESSION_COOKIE_NAME
        context.add_cookies([{"name": name, "value": client.cookies[name].value, "url": live_server.url}])
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        return page

    yield make
    for context in contexts:
        context.close()
    assert problems == []


def generate(project):
    """What a worker does, without a model."""
    from tests.webapp.conftest import make_ready

    project.groups.filter(state="queued").delete()
    return make_ready(project, 3)


def test_from_nothing_to_first_labels_and_out_again(live_server, page_of, tmp_path):
    boss = User.objects.create_user("boss")
    create_project("old", "Old", model_dir="x", student_dir="x", prompts=[{"prompt": "x"}], by=boss)
    page = page_of(boss)
    page.goto(live_server.url)
    page.get_by_role("link", name="New project").click()
    page.locator("#id_name").fill("Comets")
    page.locator("#id_group_size").fill("4")
    page.locator("#id_guidelines").fill("A tail, and only one.")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a comet"}\n{"prompt": 7}\n{"prompt": "a comet"}\n')
    page.locator("#id_prompts_file").set_input_files(tmp_path / "prompts.jsonl")
    page.get_by_role("button", name="Preview").click()
    page.get_by_text("line 2: prompt: give a text").wait_for()
    assert page.get_by_role("button", name="Create the project").count() == 0
    text = page.locator("#id_prompts")
    text.fill(text.input_value().replace("7", '"two comets"'))
    page.locator("#id_validation_share").fill("0")
    page.get_by_role("button", name="Preview").click()
    page.get_by_text("2 prompts, 2 train").wait_for()
    picture(page, "new-project")
    page.get_by_role("button", name="Create the project").click()
    page.get_by_text("Comets is ready, with 2 prompts").wait_for()

    project = Project.objects.get(slug="comets")
    generate(project)
    page.get_by_role("link", name="Rate", exact=True).click()
    for _ in range(2):
        rate_by_keyboard(page, lambda position: position < 2)
    wait_saved(page)
    assert Label.objects.filter(liked=True).count() == 4
    assert Consensus.objects.filter(project=project, signal=True).count() == 2

    page.goto(f"{live_server.url}/p/comets/export/")
    page.get_by_label("Only groups with signal").check()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download").click()
    waiting.value.save_as(tmp_path / "labels.jsonl")
    assert len((tmp_path / "labels.jsonl").read_text().splitlines()) == 8
    page.locator("#import-file").set_input_files(tmp_path / "labels.jsonl")
    page.get_by_role("button", name="Import").click()
    page.get_by_text("0 groups were new, 2 were there already").wait_for()

    choose(page, "Quality", "Review")
    page.get_by_role("article").first.get_by_role("link").click()
    page.get_by_label("Your word").nth(0).select_option("dislike")
    page.get_by_label("Your word").nth(1).select_option("dislike")
    page.get_by_label("Why you overrule").fill("it has two tails")
    picture(page, "review")
    page.get_by_role("button", name="Overrule").click()
    page.get_by_text("Your word counts from now on").wait_for()
    assert Consensus.objects.filter(project=project, signal=True).count() == 1

    choose(page, "Project", "Settings")
    page.get_by_role("button", name="Archive the project").click()
    page.get_by_text("Archived", exact=True).wait_for()


def test_an_admin_shares_a_version(live_server, page_of, fake_hub, tmp_path):
    write_lora(tmp_path)
    boss = User.objects.create_user("boss")
    project = create_project("stars", "Stars", model_dir=str(tmp_path), student_dir=str(tmp_path), prompts=[], by=boss)
    project.versions.update(sha256=sha256_of(tmp_path / LORA))
    page = page_of(boss)
    page.goto(f"{live_server.url}/p/stars/versions/")
    page.get_by_text("Share", exact=True).click()
    page.get_by_label("Repository of the Hugging Face hub").fill("team/stars")
    page.get_by_label("for everybody to see").check()
    picture(page, "share")
    page.get_by_role("button", name="Send version 1").click()
    page.get_by_text("waits for a worker").wait_for()
    picture(page, "sharing", whole=False)
    for waiting in sharing.waiting():
        send(waiting)
    page.get_by_role("link", name=f"{fake_hub.address}/team/stars").wait_for()  # without a reload
    assert page.locator("[data-state=done]").count() == 1 and faults(page) == []
    assert fake_hub.made == [("team/stars", False)] and set(fake_hub.files) == {LORA, "README.md"}


def test_a_blind_test_runs_to_its_verdict_by_keyboard(live_server, page_of):
    boss, ann = User.objects.create_user("boss"), User.objects.create_user("ann")
    project = create_project("stars", "Stars", model_dir="x", student_dir="x", prompts=[{"prompt": "a star"}], by=boss)
    Membership.objects.create(user=ann, project=project, role="annotator")
    ModelVersion.objects.create(project=project, number=2, parent=project.active_version, path="y", status="draft")
    generation.top_up(project.pk)
    admin = page_of(boss)
    admin.goto(f"{live_server.url}/p/stars/versions/")
    picture(admin, "versions")
    admin.get_by_label("votes at most").fill("60")
    admin.get_by_role("button", name="Start a blind test").click()
    admin.get_by_role("heading", name="Not yet decided").wait_for()
    comparison = Comparison.objects.get()
    make_pairs(comparison)

    page = page_of(ann, viewport={"width": 390, "height": 844})
    page.goto(live_server.url)
    page.get_by_role("link", name="Compare images").click()
    for vote in range(60):
        page.locator("#pair:visible, #over:visible").first.wait_for()
        if page.locator("#over").is_visible():
            break
        number = page.locator("#pair").get_attribute("data-pair")
        if vote == 1:
            picture(page, "compare-phone")
        b_is_left = Pair.objects.get(pk=number).sides == "ba"
        page.keyboard.press("ArrowLeft" if b_is_left else "ArrowRight")
        wait_saved(page)
        make_pairs(comparison)
    page.locator("#over").wait_for()
    comparison.refresh_from_db()
    assert (comparison.state, comparison.verdict, comparison.wins_a) == ("decided", "b", 0)
    admin.reload()
    admin.get_by_role("heading", name="Version 2 is better").wait_for()
    picture(admin, "verdict")
    admin.get_by_role("button", name="Publish version 2").click()
    admin.get_by_text("Version 2 is published").wait_for()
    project.refresh_from_db()
    assert project.active_version.number == 2
