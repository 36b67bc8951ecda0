"""The prompts page: finding, withdrawing and restoring prompts, their kinds, and how often each was liked by version."""

import pytest

from tests.webapp import acting
from webapp.campaigns import prompts
from webapp.campaigns.models import Prompt
from webapp.campaigns.services import CampaignError, clone_project, set_archived
from webapp.labelling import generation, leases
from webapp.labelling.models import Label
from webapp.rounds.models import ModelVersion
from webapp.rounds.services import _lines


@pytest.fixture
def logged_in(client, boss):
    client.force_login(boss)
    return client


def texts(page):
    return [row.text for row in page.context["rows"]]


def test_the_page_finds_prompts_by_their_words_and_by_state(logged_in, project):
    assert len(texts(logged_in.get("/p/stars/prompts/"))) == 8
    assert texts(logged_in.get("/p/stars/prompts/?q=STARS+3")) == ["3 stars"]
    assert texts(logged_in.get("/p/stars/prompts/?q=moon")) == []
    logged_in.post("/p/stars/prompts/", {"action": "withdraw", "prompt": project.prompts.get(text="3 stars").pk})
    assert texts(logged_in.get("/p/stars/prompts/?show=withdrawn")) == ["3 stars"]
    assert "3 stars" not in texts(logged_in.get("/p/stars/prompts/?show=train"))


def test_nothing_new_is_made_of_a_withdrawn_prompt(logged_in, project, ready, ann):
    groups = ready(6)
    first, *_others = leases.lease_groups(ann, project, 1)
    kept = project.prompts.exclude(pk=first.prompt_id).first()
    out = list(project.prompts.exclude(pk=kept.pk).values_list("pk", flat=True))
    page = logged_in.post("/p/stars/prompts/?q=stars", {"action": "withdraw", "prompt": out}, follow=True)
    assert "7 prompts are withdrawn" in page.content.decode()
    assert page.redirect_chain[0][0] == "/p/stars/prompts/?q=stars"
    states = dict(project.groups.values_list("pk", "state"))
    assert states[first.pk] == "ready"  # on ann's screen
    for group in groups:
        expected = "ready" if group.prompt_id == kept.pk or group.pk == first.pk else "superseded"
        assert states[group.pk] == expected
    leases.end_leases(first)
    assert {g.prompt_id for g in generation.top_up(project.pk)} == {kept.pk}
    first.refresh_from_db()
    assert first.state == "superseded"
    assert [line["prompt"] for line in _lines(project, "train")] == [kept.text]
    copy = clone_project(project, "", "copy", None)
    assert [p.text for p in copy.prompts.all()] == [kept.text]
    page = logged_in.post("/p/stars/prompts/", {"action": "restore", "prompt": out}, follow=True)
    assert "7 prompts are in use again" in page.content.decode()
    assert len(_lines(project, "train")) == 8
    actions = project.audit_entries.values_list("action", flat=True)
    assert {"prompts withdrawn", "prompts restored"} <= set(actions)


def test_its_labels_stay(project, boss, ann, ready):
    (group,) = ready()
    acting.submit(ann, project, group, [1, 0, 0, 0])
    prompts.withdraw(project, [group.prompt_id], boss)
    group.refresh_from_db()
    assert Label.objects.count() == 4 and group.state == "done" and group.consensus.signal


def test_a_kind_is_changed_and_taken_away(logged_in, project):
    one, two = project.prompts.order_by("pk")[:2]
    logged_in.post("/p/stars/prompts/", {"action": "tag", "prompt": [one.pk, two.pk], "tag": " counting "})
    assert [p.metadata for p in project.prompts.order_by("pk")[:3]] == [{"tag": "counting"}, {"tag": "counting"}, {}]
    assert prompts.tags_of(project) == ["counting"]
    logged_in.post("/p/stars/prompts/", {"action": "tag", "prompt": [one.pk], "tag": ""})
    assert Prompt.objects.get(pk=one.pk).metadata == {}
    with pytest.raises(CampaignError, match="tag: at most 150"):
        prompts.set_tag(project, [one.pk], "x" * 151, None)


def test_each_prompts_like_rate_is_told_by_version(project, boss, ann, ready):
    (old,) = ready()
    acting.submit(ann, project, old, [1, 0, 0, 0])
    Label.objects.create(
        generation=old.generations.first(), oracle="scenes", liked=False
    )  # people's count where any are
    version = ModelVersion.objects.create(project=project, number=2, path="x", parent=project.active_version)
    project.active_version = version
    project.save()
    (new,) = ready()
    new.prompt_id = old.prompt_id
    new.save()
    for image in new.generations.all():
        Label.objects.create(generation=image, oracle="scenes", liked=image.position < 3)
    assert prompts.like_rates([old.prompt_id]) == {old.prompt_id: [(1, 0.25, 4), (2, 0.75, 4)]}


def test_others_prompts_and_archived_projects_stay_as_they_are(logged_in, project, boss):
    other = clone_project(project, "other", "Other", None)
    theirs = other.prompts.first()
    assert prompts.withdraw(project, [theirs.pk], boss) == prompts.set_tag(project, [theirs.pk], "x", boss) == 0
    page = logged_in.post("/p/stars/prompts/", {"action": "withdraw", "prompt": "²"}, follow=True)
    assert "prompt: send a whole number" in page.content.decode()
    page = logged_in.post("/p/stars/prompts/", {"action": "withdraw"}, follow=True)
    assert "Choose prompts first" in page.content.decode()
    set_archived(project, True, boss)
    project.refresh_from_db()
    with pytest.raises(CampaignError, match="archived"):
        prompts.withdraw(project, [project.prompts.first().pk], boss)
    assert not Prompt.objects.exclude(withdrawn_at=None).exists()
