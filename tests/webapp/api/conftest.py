"""Tokens and a program's requests."""

import json

import pytest

from webapp.api.services import create_token
from webapp.campaigns.models import Role


@pytest.fixture
def token(project, person):
    """token("read", role): the text of a new token of a new person."""
    made = []

    def make(*scopes, role=Role.ADMIN):
        user = person(f"owner{len(made)}", role)
        made.append(user)
        return create_token(project, user, "a test", list(scopes))[1]

    return make


@pytest.fixture
def call(client):
    """call(token, "get", "groups", body): (status, answer) of an address of the project `stars`."""

    def ask(token, method, path, body=None, **headers):
        if token:
            headers["Authorization"] = f"Bearer {token}"
        address = path if path.startswith("/") else f"/api/v1/projects/stars/{path}"
        arguments = {"content_type": "application/json"} if method != "get" else {}
        if body is not None:
            arguments["data"] = body if method == "get" else json.dumps(body)
        answer = getattr(client, method)(address, headers=headers, **arguments)
        if answer.streaming:
            return answer.status_code, b"".join(answer.streaming_content)
        if not answer["Content-Type"].startswith("application/json"):
            return answer.status_code, answer.content or None
        return answer.status_code, json.loads(answer.content) if answer.content else None

    return ask
