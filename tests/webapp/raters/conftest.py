"""Known groups and studies."""

import pytest
from django.test import Client

from tests.webapp.acting import submit
from webapp.quality import services as quality
from webapp.raters import studies

LIKES = [1, 0, 0, 1]


@pytest.fixture
def gold(project, ready, person):
    """gold(n): n groups whose answer is LIKES, known since somebody else rated them."""
    maker = person("maker", "reviewer")

    def make(count=1):
        groups = ready(count)
        for group in groups:
            submit(maker, project, group, LIKES)
            group.refresh_from_db()
            quality.make_gold(group, "review", {i: bool(v) for i, v in enumerate(LIKES)})
        return groups

    return make


@pytest.fixture
def study(project, boss):
    """study(…): a study and its token."""

    def make(**values):
        about = {"name": "first", "groups": 2, "places": 3, "completion_code": "DONE1", "screened_code": "OUT1"}
        return studies.make(project, boss, days=7, **{**about, **values})

    return make


@pytest.fixture
def visit():
    """visit(token, pid, …): a browser in which somebody whom Prolific sends has pressed Begin, and the answer."""

    def go(token, pid="5f0000000000000000000001", session="6a0000000000000000000001", client=None, **more):
        client = client or Client()
        query = {"PROLIFIC_PID": pid, "STUDY_ID": "5e01", "SESSION_ID": session, **more}
        return client, client.post(f"/study/{token}/", query_params=query)

    return go
