"""The REST API: every route's check, pages, limits, and the same rules as the pages have."""

import json
import re
import uuid

import pytest
from django.utils import timezone

from tests.webapp import acting
from tests.webapp.acting import submit
from webapp.accounts.permissions import NEEDED, RANK
from webapp.api.endpoints import api
from webapp.api.models import ApiToken
from webapp.api.services import FIRST, ApiError, create_token, find_token, revoke_token
from webapp.campaigns.models import Membership, Role
from webapp.campaigns.services import create_project
from webapp.labelling import decisions
from webapp.labelling.models import GroupDecision, Label

LABELS = {"0": True, "1": False, "2": False, "3": True}
SCHEMA = api.get_openapi_schema()
ROUTES = [(method, path) for path, methods in SCHEMA["paths"].items() for method in methods]
# (method, path) → (scope, the owner's role); the pages' roles for the same things are in tests/webapp/test_access.py.
READS, EXPORTS = ("read", Role.REVIEWER), ("read", Role.ADMIN)
LABELS_GIVEN, ADMINISTERS = ("label", Role.ANNOTATOR), ("admin", Role.ADMIN)
TABLE = {
    ("get", ""): READS,
    ("get", "prompts"): EXPORTS,
    ("post", "prompts"): ADMINISTERS,
    ("post", "prompts/file"): ADMINISTERS,
    ("post", "prompts/withdraw"): ADMINISTERS,
    ("post", "prompts/restore"): ADMINISTERS,
    ("post", "prompts/tag"): ADMINISTERS,
    ("get", "reasons"): LABELS_GIVEN,
    ("put", "reasons"): ADMINISTERS,
    ("get", "members"): EXPORTS,
    ("put", "members/{user_id}"): ADMINISTERS,
    ("delete", "members/{user_id}"): ADMINISTERS,
    ("get", "invitations"): EXPORTS,
    ("post", "invitations"): ADMINISTERS,
    ("delete", "invitations/{invitation_id}"): ADMINISTERS,
    ("get", "groups"): READS,
    ("get", "groups/{group_id}"): READS,
    ("get", "images/{image_id}"): READS,
    ("get", "labels"): EXPORTS,
    ("post", "tasks"): LABELS_GIVEN,
    ("get", "tasks/{task}/images/{position}"): LABELS_GIVEN,
    ("post", "tasks/{task}/decision"): LABELS_GIVEN,
    ("post", "tasks/{task}/skip"): LABELS_GIVEN,
    ("get", "versions"): READS,
    ("post", "versions/{number}/publish"): ADMINISTERS,
    ("get", "rounds"): READS,
    ("post", "rounds"): ADMINISTERS,
    ("get", "rounds/{number}"): READS,
    ("post", "rounds/{number}/cancel"): ADMINISTERS,
    ("get", "trials"): READS,
    ("post", "trials"): ADMINISTERS,
    ("get", "trials/{trial_id}"): READS,
    ("post", "trials/{trial_id}/cancel"): ADMINISTERS,
    ("get", "trials/{trial_id}/images/{column}/{row}"): READS,
    ("get", "comparisons"): READS,
    ("post", "comparisons"): ADMINISTERS,
    ("get", "comparisons/{number}"): READS,
    ("post", "comparisons/{number}/stop"): ADMINISTERS,
    ("get", "export"): EXPORTS,
    ("post", "import"): ADMINISTERS,
    ("post", "images"): ADMINISTERS,
    ("get", "inputs"): READS,
    ("post", "inputs/file"): ADMINISTERS,
    ("get", "inputs/{input_id}/image"): READS,
    ("get", "tasks/{task}/input"): LABELS_GIVEN,
    ("get", "webhooks"): ADMINISTERS,
    ("post", "webhooks"): ADMINISTERS,
    ("delete", "webhooks/{webhook_id}"): ADMINISTERS,
    ("get", "webhooks/{webhook_id}/deliveries"): ADMINISTERS,
}


def row(method, path):
    """(scope, role) of a route; None where any token will do."""
    return None if path == "/api/v1/me" else TABLE[method, path.removeprefix("/api/v1/projects/{slug}/")]


def test_the_api_asks_the_one_table():
    """`accounts.permissions`, as pages and socket do; a new route without a row fails."""
    auths = {
        (method.lower(), path.strip("/").replace("int:", "").replace("slug:", "")): operation.auth_callbacks[0]
        for prefix, router in api._routers
        if prefix  # `me` is of no project
        for path, view in router.path_operations.items()
        for operation in view.operations
        for method in operation.methods
    }
    assert {route: (auth.scope, NEEDED[auth.action]) for route, auth in auths.items()} == TABLE


def filled(path, slug="stars"):
    return re.sub(r"\{\w+\}", "1", path.replace("{slug}", slug))


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_asks_for_a_token_of_its_project_and_scope(method, path, project, token, call, ready):
    needed = row(method, path)
    assert call(None, method, filled(path))[0] == 401
    assert call("ls_wrong", method, filled(path))[0] == 401
    if needed is None:
        return
    create_project("other", "Other", model_dir="x", student_dir="x", prompts=[{"prompt": "x"}])
    everything = token("read", "label", "admin")
    assert call(everything, method, filled(path, "other"))[0] == 404
    assert call(everything, method, filled(path, "nowhere"))[0] == 404
    scope, least = needed
    for role in (Role.ANNOTATOR, Role.REVIEWER, Role.ADMIN):
        for given in [s for s in ("read", "label", "admin") if RANK[NEEDED[FIRST[s]]] <= RANK[role]]:
            status = call(token(given, role=role), method, filled(path))[0]
            allowed = given in (scope, "admin") and RANK[role] >= RANK[least]
            assert (status != 403) == allowed, (role, given, status)


def test_a_token_is_worth_no_more_than_its_owners_role(project, token, call, ann):
    text = token("read", "admin")
    owner = ApiToken.objects.get().user
    assert call(text, "get", "groups")[0] == 200
    Membership.objects.filter(user=owner).update(role=Role.ANNOTATOR)
    assert call(text, "get", "groups")[0] == 403
    Membership.objects.filter(user=owner).delete()
    assert call(text, "get", "groups")[0] == 401  # the token ended with the membership
    ApiToken.objects.update(revoked_at=None)
    assert call(text, "get", "groups")[0] == 403  # and would be worth nothing without one
    with pytest.raises(ApiError, match="read needs the role reviewer"):
        create_token(project, ann, "x", ["read"])


def test_a_token_is_shown_once_and_only_its_hash_is_kept(client, boss, project):
    client.force_login(boss)
    answer = client.post("/p/stars/api/", {"action": "token", "name": "nightly", "scopes": ["read", "label"]})
    page = answer.content.decode()
    text = page.partition('<code class="link">')[2].partition("</code>")[0]
    assert find_token(text).scopes == ["label", "read"]
    assert text not in json.dumps(list(ApiToken.objects.values()), default=str)
    assert text not in client.get("/p/stars/api/").content.decode()


def test_revoked_and_old_tokens_are_nobody(project, boss, person, call):
    token, text = create_token(project, boss, "x", ["read"], days=1)
    other = person("other")
    revoke_token(project, token.pk, other)  # not an admin and not the owner
    assert call(text, "get", "/api/v1/me")[0] == 200
    ApiToken.objects.update(expires_at=timezone.now())
    assert call(text, "get", "/api/v1/me")[0] == 401
    ApiToken.objects.update(expires_at=None)
    revoke_token(project, token.pk, boss)
    assert call(text, "get", "/api/v1/me")[0] == 401
    boss.is_active = False
    boss.save()
    assert find_token(create_token(project, boss, "y", ["read"])[1]) is None


def test_the_rate_is_limited_and_says_when_to_come_back(token, call, settings, client):
    settings.LIKESTEP_API_RATE = 3
    text = token("read")
    statuses = [call(text, "get", "/api/v1/me")[0] for _ in range(8)]
    # A minute may turn over in the middle, which gives three more.
    assert statuses[:3] == [200] * 3 and 429 in statuses
    assert call(token("read"), "get", "/api/v1/me")[0] == 200
    answer = client.get("/api/v1/me", headers={"Authorization": f"Bearer {text}"})
    if answer.status_code == 429:
        assert 0 < float(answer["Retry-After"]) <= 60


def test_every_list_is_paged(token, call, project, ready):
    ready(5)
    text, seen, after = token("read"), [], 0
    while after is not None:
        status, answer = call(text, "get", "groups", {"limit": 2, "after": after})
        assert status == 200 and len(answer["items"]) <= 2
        seen += [g["id"] for g in answer["items"]]
        after = answer["next"]
    assert seen == sorted(project.groups.values_list("pk", flat=True))
    for method, path in ROUTES:
        schema = SCHEMA["paths"][path][method]["responses"].get("200", {}).get("content", {})
        name = schema.get("application/json", {}).get("schema", {}).get("$ref", "")
        assert schema.get("application/json", {}).get("schema", {}).get("type") != "array", path
        if "Page_" in name and method == "get":
            assert {"after", "limit"} <= {p["name"] for p in SCHEMA["paths"][path][method]["parameters"]}, path
    assert call(text, "get", "groups", {"limit": 501})[0] == 422


def test_a_program_labels_as_a_person_does(token, call, ready):
    (group,) = ready()
    text = token("label", role=Role.ANNOTATOR)
    status, answer = call(text, "post", "tasks?limit=2")
    (task,) = answer["items"]
    assert task["id"] == acting.task(ApiToken.objects.get().user, group) and task["input"] is None
    assert set(task) == {"id", "prompt", "input", "images"}
    status, data = call(text, "get", task["images"][0]["url"].removeprefix("http://testserver"))
    assert status == 200 and data[:4] == b"RIFF"
    body = {"labels": LABELS, "seconds": 2.5, "key": "a"}
    for _ in range(2):
        status, answer = call(text, "post", f"tasks/{task['id']}/decision", body)
        assert (status, answer) == (200, {"task": task["id"], "outcome": "submitted"})
    assert Label.objects.count() == 4 and GroupDecision.objects.get().seconds == 2.5
    assert call(text, "post", f"tasks/{task['id']}/decision", {**body, "key": "b"})[0] == 409
    status, answer = call(text, "post", f"tasks/{task['id']}/decision", {"labels": {"0": True}, "key": "c"})
    assert status == 409
    assert call(text, "post", "tasks")[1]["items"] == []


def test_refusals_are_sentences(token, call, ready):
    ready()
    text = token("label", "admin", "read")
    (task,) = call(text, "post", "tasks")[1]["items"]
    status, answer = call(text, "post", f"tasks/{task['id']}/decision", {"labels": {"0": True}, "key": "c"})
    assert status == 400 and "image 2 is undecided" in answer["detail"]
    status, answer = call(text, "post", "rounds", {"key": "r"})
    assert status == 400 and "rate some groups first" in answer["detail"]
    status, answer = call(text, "get", "export", {"format": "pdf"})
    assert status == 422 and answer["detail"].startswith("format: ")
    status, answer = call(text, "get", "export", {"since": "yesterday"})
    assert status == 400 and answer["detail"].startswith("since: ")
    status, answer = call(text, "post", "prompts", {"prompts": [{"prompt": "   "}]})
    assert status == 400 and "row 1" in answer["detail"]


def test_rounds_and_versions_are_started_once_and_published(token, call, ready, ann, project):
    (group,) = ready()
    submit(ann, project, group, [1, 0, 0, 1])
    text = token("admin")
    key = uuid.uuid4().hex
    rounds = [call(text, "post", "rounds", {"key": key, "settings": {"updates": 3}})[1] for _ in range(2)]
    assert rounds[0] == rounds[1] and (rounds[0]["total"], rounds[0]["alarm"]) == (3, "")
    assert (rounds[0]["labels_needed"], rounds[0]["labels_had"], rounds[0]["worth_it"]) == (200, 4, None)
    assert call(text, "get", "rounds")[1]["items"] == [rounds[0]]
    assert call(text, "post", "rounds/1/cancel")[1]["state"] == "cancelled"
    assert call(text, "post", "versions/1/publish")[1]["status"] == "published"
    assert call(text, "post", "versions/9/publish")[0] == 404
    assert project.audit_entries.filter(action="version published").get().user.username == "owner0"


def test_what_is_read_is_what_the_database_has(token, call, ready, ann, project):
    (group,) = ready()
    submit(ann, project, group, [1, 0, 0, 1])
    text = token("read")
    found = call(text, "get", "")[1]
    assert (found["slug"], found["groups"]["done"], found["groups_with_signal"], found["active_version"]) == (
        "stars",
        1,
        1,
        1,
    )
    assert found["labels_to_next_round"] == 200  # 196, to two digits
    assert call(text, "get", f"groups/{group.pk}")[1]["rewards"] == [1, 0, 0, 1]
    assert call(text, "get", "groups", {"signal": "false"})[1]["items"] == []
    labels = call(text, "get", "labels", {"annotator": "ann"})[1]["items"]
    assert [v["liked"] for v in labels] == [True, False, False, True]
    assert call(text, "get", "labels", {"after": labels[-1]["id"]})[1]["items"] == []
    rows = call(text, "get", "export", {"format": "unpaired"})[1].splitlines()
    assert "/api/v1/projects/stars/images/" in json.loads(rows[0])["image"]
    decisions.undo(ann, project)
    _status, answer = call(text, "get", "labels", {"after": labels[-1]["id"]})
    assert [(v["change"], v["position"], v["liked"]) for v in answer["items"]] == [
        ("undone", n, None) for n in range(4)
    ]


def test_the_reference_is_openapi_and_loads_nothing_from_elsewhere(client, ann, project):
    assert client.get("/api/v1/docs").status_code == 302
    client.force_login(ann)
    page = client.get("/api/v1/docs").content.decode()
    assert "http://" not in page and "https://" not in page and "<script>" not in page
    schema = client.get("/api/v1/openapi.json").json()
    assert schema["openapi"].startswith("3.1")
    assert len(ROUTES) > 20
    assert all(operation.get("summary") for methods in schema["paths"].values() for operation in methods.values())
