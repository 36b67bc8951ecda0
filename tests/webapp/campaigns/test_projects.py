"""Projects in the browser: made from zero, changed, copied and archived."""

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from common.settings import TDMR1Settings
from webapp.campaigns.models import AuditEntry, Project, Role
from webapp.campaigns.services import CampaignError, create_project, update_project
from webapp.labelling import generation, leases
from webapp.lib import broker
from webapp.rounds.services import RoundError, start_round

DEFAULTS = {f"training-{k}": v for k, v in TDMR1Settings().to_json().items() if v is not False}
FORM = {
    **DEFAULTS,
    "name": "Cats",
    "group_size": 4,
    "steps": 4,
    "overlap": 2,
    "label_source": "people",
    "ready_target": 3,
    "auto_start_after": 0,
    "gold_rate": 0.1,
    "work_hour_cost": 18.5,
    "machine_hour_cost": 0,
    "guidelines": "Whiskers count.",
    "model": "shipped",
    "validation_share": 0,
}


def send(client, prompts="a cat\na black cat", action="create", **values):
    return client.post("/projects/new/", {**FORM, "prompts": prompts, "action": action, **values})


@pytest.fixture
def logged_in(client, boss):
    client.force_login(boss)
    return client


def test_it_works(logged_in, boss, monkeypatch, django_capture_on_commit_callbacks):
    sent = []
    monkeypatch.setattr(broker, "send", lambda kind, row_id: sent.append((kind, row_id)))
    with django_capture_on_commit_callbacks(execute=True):
        answer = send(logged_in, **{"training-updates": 7})
    assert answer.url == "/p/cats/"
    made = Project.objects.get(slug="cats")
    assert (made.overlap, made.gold_rate, made.work_hour_cost, made.guidelines) == (2, 0.1, 18.5, "Whiskers count.")
    assert made.round_settings == {"updates": 7}
    assert [p.text for p in made.prompts.order_by("pk")] == ["a cat", "a black cat"]
    assert made.memberships.get().user == boss
    assert sent == [("housekeeping", made.pk)]  # which queues the first groups
    assert made.audit_entries.get().action == "project created"


def test_a_preview_makes_nothing_and_shows_the_upload(logged_in):
    file = SimpleUploadedFile("x.csv", b"prompt,split\na cat,test\na cat,train\n")
    answer = send(logged_in, prompts="", action="preview", prompts_file=file)
    text = answer.content.decode()
    assert answer.status_code == 200
    assert "line 3: the same prompt as line 2" in text
    assert "prompt,split\na cat,test" in text.replace("\r", "")  # in the text field, to be mended
    assert "Create the project" in text
    assert not Project.objects.filter(slug="cats").exists()


def test_one_bad_line_imports_nothing(logged_in):
    answer = send(logged_in, prompts='{"prompt": "a cat"}\n{"prompt": 1}')
    assert answer.status_code == 400
    assert "line 2: prompt: give a text" in answer.content.decode()
    assert not Project.objects.filter(slug="cats").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"slug": "stars"}, "has this address already"),
        ({"label_source": "oracle"}, "choose one, or let people alone label"),
        ({"model": "/etc"}, "Select a valid choice"),
        ({"training-updates": 0}, "greater than or equal to 1"),
        ({"name": "☺"}, "give an address"),
        ({"gold_rate": 0.9}, "less than or equal to 0.5"),
    ],
)
def test_a_wrong_field_is_named(logged_in, values, message):
    answer = send(logged_in, **values)
    assert answer.status_code == 400
    assert message in answer.content.decode()
    assert Project.objects.count() == 1


def test_annotators_make_no_projects(client, ann):
    client.force_login(ann)
    assert send(client).status_code == 404
    assert "New project" not in client.get("/").content.decode()


def test_settings_are_changed_and_audited(logged_in, project, boss):
    values = {**FORM, "name": "Stars", "training-updates": 9}
    assert logged_in.post("/p/stars/settings/", values).status_code == 302
    project.refresh_from_db()
    assert (project.overlap, project.round_settings) == (2, {"updates": 9})
    entry = AuditEntry.objects.get(action="settings changed")
    assert entry.user == boss
    assert entry.detail["overlap"] == [1, 2]
    assert logged_in.post("/p/stars/settings/", values).status_code == 302
    assert AuditEntry.objects.filter(action="settings changed").count() == 1


def test_the_model_of_a_project_stays(project, boss):
    with pytest.raises(CampaignError, match="model_dir: it cannot be changed"):
        update_project(project, boss, model_dir="/elsewhere")


def test_a_copy_has_settings_prompts_and_model_but_no_labels(logged_in, project, ready):
    ready(2)
    assert logged_in.post("/p/stars/clone/", {"name": "More stars"}).url == "/p/more-stars/settings/"
    copy = Project.objects.get(slug="more-stars")
    assert copy.prompts.count() == project.prompts.count()
    assert copy.active_version.path == project.active_version.path
    assert copy.groups.count() == 0
    assert logged_in.post("/p/stars/clone/", {"name": "More stars"}).url == "/p/more-stars-2/settings/"
    for address in ("stars-copy", "stars-copy-2", "stars-copy-3"):  # a name in another script has no address in it
        assert logged_in.post("/p/stars/clone/", {"name": "星"}).url == f"/p/{address}/settings/"
    assert logged_in.post("/p/stars/clone/", {"name": "星", "slug": "xing"}).url == "/p/xing/settings/"
    count = Project.objects.count()
    for given in ("xing", "星"):  # taken, and none
        assert logged_in.post("/p/stars/clone/", {"name": "x", "slug": given}).url == "/p/stars/settings/"
    assert Project.objects.count() == count
    with pytest.raises(CampaignError, match="slug: give an address"):
        create_project("", "x", model_dir="x", student_dir="x", prompts=[])


def test_an_archived_project_hands_out_nothing(logged_in, project, ready, ann):
    ready(2)
    assert logged_in.post("/p/stars/archive/").url == "/"
    project.refresh_from_db()
    assert leases.lease_groups(ann, project) == []
    assert generation.top_up(project.pk) == []
    with pytest.raises(RoundError, match="archived"):
        start_round(project, {}, idempotency_key="k")
    assert "Archived" in logged_in.get("/").content.decode()
    logged_in.post("/p/stars/archive/", {"reopen": "1"})
    project.refresh_from_db()
    assert len(leases.lease_groups(ann, project)) == 1


def test_prompts_are_added_after_a_preview(logged_in, project):
    send_prompts = {"prompts": "0 stars\na comet", "validation_share": 0}
    assert (
        "Add 2 prompts" in logged_in.post("/p/stars/prompts/", {**send_prompts, "action": "preview"}).content.decode()
    )
    assert project.prompts.count() == 8
    answer = logged_in.post("/p/stars/prompts/", {**send_prompts, "action": "add"}, follow=True)
    assert "1 prompts added; 1 were there already." in answer.content.decode()
    assert "a comet" in answer.content.decode()


def test_prompts_are_text_everywhere(logged_in, project):
    logged_in.post("/p/stars/prompts/", {"prompts": "<b>x</b>", "validation_share": 0, "action": "add"})
    page = logged_in.get(reverse("prompts", args=["stars"])).content.decode()
    assert "<b>x</b>" not in page and "&lt;b&gt;x&lt;/b&gt;" in page


def test_reviewers_are_shown_only_what_they_may_open(client, person):
    client.force_login(person("rev", Role.REVIEWER))
    page = client.get("/p/stars/").content.decode()
    assert "Dashboard" in page and "/p/stars/settings/" not in page and "/p/stars/people/" not in page
