"""What the OpenAPI document says of errors is what happens, for every operation; and clients can be generated from it."""

import importlib
import json
import re
import subprocess
import sys

import pytest

from tests.webapp.conftest import make_ready
from webapp.accounts.models import User
from webapp.api.endpoints import api
from webapp.api.services import create_token
from webapp.campaigns.models import Membership, Role
from webapp.campaigns.services import create_project

SCHEMA = api.get_openapi_schema()
OPERATIONS = [(method, path) for path, methods in SCHEMA["paths"].items() for method in methods]


def filled(path, slug="stars"):
    return re.sub(r"\{\w+\}", "1", path.replace("{slug}", slug))


@pytest.fixture
def ask(client):
    """ask(method, path, token, body, query): the answer."""

    def send(method, path, token="", body=None, query=None, **headers):
        if token:
            headers["Authorization"] = f"Bearer {token}"
        arguments = {"query_params": query or {}, "headers": headers}
        if method not in ("get", "head", "options"):
            arguments |= {"data": json.dumps(body), "content_type": "application/json"}
        return getattr(client, method)(path, **arguments)

    return send


def refused(answer, status, operation=None):
    """The answer is this error: a sentence in JSON, documented."""
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"].startswith("application/json")
    assert len(answer.json()["detail"]) > 10 and set(answer.json()) <= {"detail", "errors"}
    if status == 401:
        assert answer["WWW-Authenticate"].startswith("Bearer")
    if operation is not None:
        content = operation["responses"][str(status)]["content"]["application/json"]["schema"]["$ref"]
        assert content.endswith(("/Error", "/ImportRefused"))


def a_wrong_query(operation):
    """A value that a parameter of the query does not take; None without parameters."""
    for parameter in operation["parameters"]:
        if parameter["in"] == "query":
            wrong = "x" * 500 if "maxLength" in json.dumps(parameter["schema"]) else "nonsense"
            return {parameter["name"]: wrong}
    return None


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_operation_fails_as_documented(method, path, ask, token, project, settings):
    operation = SCHEMA["paths"][path][method]
    documented = set(map(int, operation["responses"]))
    address, good = filled(path), token("read", "label", "admin")
    assert {400, 401, 429, 503} <= documented
    refused(ask(method, address), 401, operation)
    refused(ask(method, address, "ls_wrong"), 401, operation)
    refused(ask(method, address, good, query={"x": "\0"}), 400, operation)
    assert (403 in documented) == (404 in documented) == ("{slug}" in path)
    if 403 in documented:
        for_who_labels = "/tasks" in path or (method == "get" and path.endswith("/reasons"))
        poor = token("read") if for_who_labels else token("label", role=Role.ANNOTATOR)
        refused(ask(method, address, poor), 403, operation)
        refused(ask(method, filled(path, "nowhere"), good), 404, operation)
    wrong = a_wrong_query(operation)
    assert (422 in documented) == (wrong is not None or "requestBody" in operation)
    if 422 in documented:
        answer = ask(method, address, good, body=[], query=wrong)
        refused(answer, 422, operation)
        assert f"{next(iter(wrong))}: " in answer.json()["detail"] if wrong else True
    settings.LIKESTEP_API_RATE = 0
    answer = ask(method, address, good)
    refused(answer, 429, operation)
    assert 0 < int(answer["Retry-After"]) <= 60


@pytest.mark.parametrize("path", sorted(SCHEMA["paths"]))
def test_methods(path, ask, token, ready, project):
    ready()
    good, address = token("read", "label", "admin"), filled(path)
    taken = {method.upper() for method in SCHEMA["paths"][path]}
    answer = ask("options", address)
    assert (answer.status_code, answer.content) == (204, b"")
    allowed = set(answer["Allow"].split(", "))
    assert allowed == taken | {"OPTIONS"} | ({"HEAD"} if "GET" in taken else set())
    answer = ask("patch", address, good)
    refused(answer, 405)
    assert set(answer["Allow"].split(", ")) == allowed
    if "GET" in taken:
        body, head = ask("get", address, good), ask("head", address, good)
        assert head.status_code == body.status_code
        assert head["Content-Type"] == body["Content-Type"]
        assert b"".join(head) == b""


def test_unknown_addresses_are_errors_too(ask, token, project):
    for path in (
        "/api/",
        "/api/v1/",
        "/api/v2/me",
        "/api/v1/projects/stars/nothing",
        "/api/v1/projects/stars/groups/x",
    ):
        refused(ask("get", path), 404)
    refused(ask("get", "/api/v1/projects/stars/groups/99999999999999999999999", token("read")), 404)


def test_what_was_read_before_is_not_sent_again(ask, token, ready, project):
    (group,) = ready()
    image, good = group.generations.first().pk, token("read")
    for path in ("/api/v1/openapi.json", "/api/v1/projects/stars/", f"/api/v1/projects/stars/images/{image}"):
        first = ask("get", path, good)
        assert first.status_code == 200 and "no-store" not in first["Cache-Control"]
        again = ask("get", path, good, **{"If-None-Match": first["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
    project.name = "Other stars"
    project.save()
    answer = ask("get", "/api/v1/projects/stars/", good, **{"If-None-Match": first["ETag"]})
    assert answer.json()["name"] == "Other stars"


def test_the_document_is_read_with_a_token(ask, token, client, project, ann):
    refused(ask("get", "/api/v1/openapi.json"), 401)
    refused(ask("get", "/api/v1/openapi.json", "ls_wrong"), 401)
    assert ask("get", "/api/v1/openapi.json", token("label", role=Role.ANNOTATOR)).json() == json.loads(
        json.dumps(SCHEMA)
    )
    client.force_login(ann)
    assert ask("get", "/api/v1/openapi.json").status_code == 200


CHOICES = (
    "state",
    "status",
    "split",
    "outcome",
    "change",
    "label_source",
    "format",
    "container",
    "scopes",
    "events",
    "role",
)


def test_every_choice_is_an_enum():
    def choices(schema):
        """The values that a schema names."""
        if "$ref" in schema:
            schema = SCHEMA["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        inner = [*schema.get("anyOf", []), *schema.get("allOf", []), *([schema["items"]] if "items" in schema else [])]
        found = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
        return [*found, *(value for part in inner for value in choices(part))]

    named = [
        (model, n, p)
        for model, s in SCHEMA["components"]["schemas"].items()
        for n, p in s.get("properties", {}).items()
    ]
    for path, methods in SCHEMA["paths"].items():
        for operation in methods.values():
            named += [(path, p["name"], p["schema"]) for p in operation["parameters"]]
    seen = {name for _where, name, _schema in named}
    assert seen >= set(CHOICES)
    for where, name, schema in named:
        if name in CHOICES and (where, name) != ("DeliveryOut", "status"):  # HTTP's
            assert len(choices(schema)) > 1, (where, name)


@pytest.fixture
def generated(tmp_path, monkeypatch):
    """The package that openapi-python-client makes of the document."""
    (tmp_path / "openapi.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "config.yml").write_text("post_hooks: []\npackage_name_override: generated_likestep\n")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"]
    command += ["--path", "openapi.json", "--config", "config.yml", "--output-path", "generated_likestep"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "WARNING" not in run.stdout.upper(), run.stdout
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield lambda name: importlib.import_module(f"generated_likestep{name}")
    for name in [name for name in sys.modules if name.startswith("generated_likestep")]:
        del sys.modules[name]


def test_a_generated_client_reads_export_and_image(generated, live_server):
    project = create_project("moons", "Moons", model_dir="x", student_dir="x", prompts=[{"prompt": "m"}], group_size=2)
    user = User.objects.create_user("robot")
    Membership.objects.create(user=user, project=project, role="admin")
    (group,) = make_ready(project, 1)
    _, text = create_token(project, user, "tests", ["admin"])
    client = generated("").AuthenticatedClient(base_url=live_server.url, token=text)
    (task,) = generated(".api.labelling.tasks").sync("moons", client=client).items
    body = {"labels": {"0": True, "1": False}, "key": "a"}
    decision = generated(".models").DecisionIn.from_dict(body)
    generated(".api.labelling.decide").sync("moons", task.id, client=client, body=decision)
    exported = generated(".api.exports.export").sync_detailed("moons", client=client)
    data = exported.parsed.payload.read() if hasattr(exported.parsed, "payload") else exported.parsed
    assert [json.loads(line)["liked"] for line in data.splitlines()] == [True, False]
    found = generated(".api.groups.image").sync("moons", group.generations.first().pk, client=client)
    assert found.payload.read()[:4] == b"RIFF"
    changes = generated(".api.groups.labels").sync("moons", client=client)
    assert [change.change.value for change in changes.items] == ["labelled"] * 2
    refusal = generated(".api.groups.group").sync("moons", 10**6, client=client)
    assert "check the project's name" in refusal.detail
