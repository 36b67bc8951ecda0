"""Prompts, reasons, members and invitations by program: the same rules, audit and refusals as on their pages."""

import pytest

from tests.webapp.acting import submit_group
from webapp.api.models import ApiToken
from webapp.campaigns.models import Membership, Role
from webapp.campaigns.services import create_project, set_archived
from webapp.labelling import decisions
from webapp.labelling.models import Label
from webapp.labelling.why import Why


@pytest.fixture
def admin(token):
    return token("admin")


def audited(project):
    return [entry.action for entry in project.audit_entries.order_by("pk")][1:]


def test_prompts_are_withdrawn_restored_and_tagged(project, admin, call):
    first, second, third = (p.pk for p in project.prompts.order_by("pk")[:3])
    assert call(admin, "post", "prompts/tag", {"ids": [first, second], "tag": " count "}) == (200, {"changed": 2})
    assert call(admin, "post", "prompts/withdraw", {"ids": [first, third]}) == (200, {"changed": 2})
    assert call(admin, "post", "prompts/withdraw", {"ids": [first]}) == (200, {"changed": 0})
    rows = call(admin, "get", "prompts", {"limit": 3})[1]["items"]
    assert [(r["withdrawn"], r["metadata"].get("tag")) for r in rows] == [
        (True, "count"),
        (False, "count"),
        (True, None),
    ]
    assert call(admin, "post", "prompts/restore", {"ids": [first, third]}) == (200, {"changed": 2})
    assert call(admin, "post", "prompts/tag", {"ids": [first], "tag": ""})[1] == {"changed": 1}
    assert audited(project) == [
        "API token made",
        "prompts tagged",
        "prompts withdrawn",
        "prompts restored",
        "prompts tagged",
    ]


def test_prompts_of_others_are_left_alone(project, admin, call):
    other = create_project("other", "Other", model_dir="x", student_dir="x", prompts=[{"prompt": "x"}])
    theirs = other.prompts.get()
    for path, more in (("withdraw", {}), ("tag", {"tag": "x"})):
        assert call(admin, "post", f"prompts/{path}", {"ids": [theirs.pk], **more}) == (200, {"changed": 0})
    theirs.refresh_from_db()
    assert (theirs.withdrawn_at, theirs.metadata) == (None, {})


@pytest.mark.parametrize("ids", [[], [0], [-1], [True], ["1"], [2**63], list(range(1, 5002)), "all"])
def test_numbers_of_prompts_are_bounded(ids, admin, call):
    status, answer = call(admin, "post", "prompts/withdraw", {"ids": ids})
    assert status in (400, 422) and "ids" in answer["detail"]


def test_an_archived_project_keeps_its_prompts(project, admin, call, boss):
    set_archived(project, True, boss)
    status, answer = call(admin, "post", "prompts/withdraw", {"ids": [project.prompts.first().pk]})
    assert status == 400 and "archived" in answer["detail"]


def test_reasons_are_read_by_who_labels_and_set_by_admins(project, admin, call, token):
    listed = ["wrong count", "ugly"]
    assert call(admin, "put", "reasons", {"reasons": ["wrong count ", "ugly"]}) == (200, {"reasons": listed})
    assert call(token("label", role=Role.ANNOTATOR), "get", "reasons") == (200, {"reasons": listed})
    assert call(token("read"), "get", "")[1]["dislike_reasons"] == listed
    assert audited(project)[1] == "settings changed"
    for wrong in (["a", "a"], ["a", " a"], [" "]):
        status, answer = call(admin, "put", "reasons", {"reasons": wrong})
        assert status == 400 and answer["detail"].startswith("dislike_reasons: "), wrong
    assert call(admin, "put", "reasons", {"reasons": ["x" * 61]})[0] == 422
    assert call(admin, "put", "reasons", {"reasons": list("0123456789")})[0] == 422


def test_a_member_gets_another_role_and_leaves(project, admin, call, ann):
    members = {m["name"]: m for m in call(admin, "get", "members")[1]["items"]}
    assert members["ann"] == {
        "id": ann.pk,
        "name": "ann",
        "role": "annotator",
        "groups": 0,
        "groups_of_the_week": 0,
        "last_day": None,
    }
    status, answer = call(admin, "put", f"members/{ann.pk}", {"role": "reviewer"})
    assert (status, answer["role"]) == (200, "reviewer")
    assert call(admin, "put", f"members/{ann.pk}", {"role": "king"})[0] == 422
    assert call(admin, "delete", f"members/{ann.pk}") == (204, None)
    assert call(admin, "delete", f"members/{ann.pk}")[0] == 404
    assert call(admin, "put", f"members/{ann.pk}", {"role": "reviewer"})[0] == 404
    assert audited(project) == ["API token made", "role changed", "member removed"]


def test_the_only_admin_stays(project, admin, call):
    owner = ApiToken.objects.get().user
    for answer in (
        call(admin, "delete", f"members/{owner.pk}"),
        call(admin, "put", f"members/{owner.pk}", {"role": "annotator"}),
    ):
        assert answer[0] == 400 and "is the only admin" in answer[1]["detail"]
    assert Membership.objects.get(user=owner).role == Role.ADMIN


def test_invitations_are_made_listed_and_revoked(project, admin, call, client, token, boss):
    status, made = call(admin, "post", "invitations", {"role": "reviewer"})
    link = made.pop("link")
    assert status == 200 and client.get(link).status_code == 200
    assert call(admin, "get", "invitations") == (200, {"items": [made], "next": None})
    assert (made["role"], made["by"]) == ("reviewer", ApiToken.objects.get().user.username)
    other = token("admin")
    theirs = call(other, "post", "invitations", {"role": "annotator"})[1]
    Membership.objects.filter(user__api_tokens__isnull=False, user__username=theirs["by"]).update(role=Role.REVIEWER)
    assert [i["id"] for i in call(admin, "get", "invitations")[1]["items"]] == [made["id"]]  # the other one ended
    assert call(admin, "delete", f"invitations/{made['id']}") == (204, None)
    assert client.get(link).status_code != 200
    assert call(admin, "delete", f"invitations/{made['id']}")[0] == 404


def test_labels_say_why(project, ready, ann, token, call, boss):
    (group,) = ready()
    about = {1: Why("ugly", (0, 0.5, 0.25, 0.25)), 2: Why("text")}
    answer = {0: True, 1: False, 2: False, 3: False}
    submit_group(ann, project, group.pk, answer, seconds=1, idempotency_key="a", why=about)
    reader = token("read")

    def said(after=0):
        rows = call(reader, "get", "labels", {"after": after})[1]["items"]
        return [(r["change"], r["reason"], r["box"]) for r in rows], rows[-1]["id"]

    given = [("labelled", None, None), ("labelled", "ugly", [0, 0.5, 0.25, 0.25]), ("labelled", "text", None)]
    found, last = said()
    assert found[:3] == given
    decisions.undo(ann, project)
    assert said(last)[0] == [("undone", None, None)] * 4
    submit_group(ann, project, group.pk, answer, seconds=1, idempotency_key="b")
    assert said()[0][:3] == given  # what was said then
    assert Label.objects.exclude(reason="").count() == 0


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"0": {"reason": "ugly"}}, "only a disliked image"),
        ({"1": {"box": [0.9, 0, 0.5, 1]}}, "within the image"),
        ({"1": {"box": [0, 0, 1]}}, "why.1.box"),
        ({"1": {"box": [0, 0, 1, 2]}}, "why.1.box"),
        ({"1": {"reason": "x" * 61}}, "why.1.reason"),
        ({"99": {}}, "why.99"),
    ],
)
def test_why_is_checked_as_on_the_page(about, message, ready, token, call):
    ready()
    text = token("label")
    (task,) = call(text, "post", "tasks")[1]["items"]
    labels = {str(n): n == 0 for n in range(4)}
    status, answer = call(text, "post", f"tasks/{task['id']}/decision", {"labels": labels, "why": about, "key": "k"})
    assert status in (400, 422) and message in answer["detail"]
    assert Label.objects.count() == 0
