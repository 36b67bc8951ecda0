"""Why an image is disliked: kept with the label, checked, exported and taken back in, shown to reviewers."""

import json

import pytest

from tests.webapp import acting
from webapp.campaigns.services import CampaignError, update_project
from webapp.exports.imports import import_labels, read_rows
from webapp.labelling.models import GroupDecision, Label
from webapp.quality import queries

BOX = [0.1, 0.2, 0.3, 0.4]


@pytest.fixture
def submit(post, ready):
    """submit(why): an answer to a fresh group, of whose four images the first is liked."""

    def send(why, **more):
        (group,) = ready()
        labels = {"0": True, "1": False, "2": False, "3": False}
        body = {"labels": labels, "seconds": 3, "key": f"k{group.pk}", "why": why, **more}
        return group, post(f"groups/{group.pk}/submit/", body)

    return send


def test_it_is_kept_with_the_label(submit):
    group, answer = submit({"1": {"reason": "wrong count", "box": BOX}, "2": {"reason": "ugly"}, "3": {"box": BOX}})
    assert answer.status_code == 200
    kept = group.generations.order_by("position").values_list("labels__reason", "labels__box")
    assert list(kept) == [("", None), ("wrong count", BOX), ("ugly", None), ("", BOX)]
    assert GroupDecision.objects.get().answer == {"0": True, "1": False, "2": False, "3": False}


def test_undo_gives_it_back(submit, post):
    said = {"1": {"reason": "wrong count", "box": BOX}, "3": {"reason": "", "box": BOX}}
    group, _answer = submit({**said, "2": {}})
    answer = post("undo/", {}).json()
    assert (answer["group"]["group"], answer["why"]) == (acting.task(group.leases.get().user, group), said)
    assert answer["labels"] == {"0": True, "1": False, "2": False, "3": False} and not Label.objects.exists()


@pytest.mark.parametrize(
    ("why", "message"),
    [
        ([], "why: send an object"),
        ({"1": "ugly"}, "why: send an object"),
        ({"0": {"reason": "ugly"}}, "only a disliked image"),
        ({"9": {"reason": "ugly"}}, "only a disliked image"),
        ({"x": {}}, "why: send a whole number"),
        ({"1": {"reason": 7}}, "reason: send a text"),
        ({"1": {"reason": "x" * 61}}, "at most 60 characters"),
        ({"1": {"box": [0, 0, 1]}}, "box: send left"),
        ({"1": {"box": [0, 0, 1, "1"]}}, "box: send a number"),
        ({"1": {"box": [0, 0, 10**400, 1]}}, "box: send a"),
        ({"1": {"box": [0.9, 0, 0.2, 1]}}, "within the image"),
        ({"1": {"box": [0, 0, 0, 1]}}, "within the image"),
    ],
)
def test_what_it_cannot_be_is_said(submit, why, message):
    _group, answer = submit(why)
    assert answer.status_code == 400 and message in answer.json()["error"]
    assert not Label.objects.exists()


def test_a_project_has_a_few_short_reasons_of_its_own(project, boss, client):
    client.force_login(boss)
    assert "data-reason" not in client.get("/p/stars/annotate/").content.decode()
    for wrong in (["x"] * 2, [str(n) for n in range(10)], ["x" * 61], [""], "ugly", [7]):
        with pytest.raises(CampaignError, match="dislike_reasons: "):
            update_project(project, boss, dislike_reasons=wrong)
    form = client.get("/p/stars/settings/").context["form"]
    values = {name: form[name].value() for name in form.fields} | {"dislike_reasons": " wrong count \r\n\r\nugly\r\n"}
    training = client.get("/p/stars/settings/").context["training"]
    values |= {training.add_prefix(name): training[name].value() for name in training.fields}
    sent = {name: value for name, value in values.items() if value is not None and value is not False}
    assert client.post("/p/stars/settings/", sent).status_code == 302
    project.refresh_from_db()
    assert project.dislike_reasons == ["wrong count", "ugly"]
    page = client.get("/p/stars/annotate/").content.decode()
    assert 'data-reason="wrong count"' in page and '"reasons": ["wrong count", "ugly"]' in page


def test_out_and_in_again(submit, project, boss, client, ann):
    submit({"1": {"reason": "wrong count", "box": BOX}})
    client.force_login(boss)
    out = client.get("/p/stars/export/download/?format=labels&container=jsonl").getvalue()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["reason"], row["box"]) for row in rows[:2]] == [(None, None), ("wrong count", json.dumps(BOX))]
    Label.objects.all().delete()
    GroupDecision.objects.all().delete()
    assert import_labels(project, read_rows(out, "x.jsonl")[0]).new == 1
    assert Label.objects.get(generation__position=1).box == BOX
    wrong = {**rows[1], "box": "[1"}
    assert "box: it is not JSON" in import_labels(project, [(1, wrong)]).errors[0]


def test_reviewers_see_it(submit, project, boss, client, ann, person):
    group, _answer = submit({"1": {"reason": "wrong count", "box": BOX}, "2": {"reason": "wrong count"}})
    acting.flag_group(boss, project, group.pk, kind="broken", position=None, idempotency_key="f")
    assert [row["dislikes"] for row in queries.reasons(project)] == [2]  # done already: a reviewer looks first
    client.force_login(boss)
    page = client.get("/p/stars/quality/").content.decode()
    assert "wrong count" in page and "version 1: 2" in page
    page = client.get(f"/p/stars/review/{group.pk}/").content.decode()
    assert '<rect x="0.100000" y="0.200000" width="0.300000" height="0.400000"/>' in page
    assert page.count("with a marked place") == 1
