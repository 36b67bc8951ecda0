"""Whatever a program with a token sends, the API never fails: requests made from its own description, valid and not.

A quick pass here; `python -m bench.faults.fuzz` sends 10,000 requests through the same test.
"""

import json
import os
import re
import sys
from collections import Counter
from urllib.parse import quote, urlencode

import pytest
import schemathesis
from django.core.signals import got_request_exception, request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from webapp.api.endpoints import api
from webapp.api.services import create_token
from webapp.campaigns.models import Role

EXAMPLES = int(os.environ.get("LIKESTEP_FUZZ", "12"))
DOCUMENT = api.get_openapi_schema()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations()}
APP = get_wsgi_application()
MODES = schemathesis.GenerationMode
QUICK = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def _one_connection():
    """Requests share the test's transaction, as with Django's own test client."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def token(_one_connection, project, ready, person, settings):
    settings.LIKESTEP_API_RATE = 10**9
    settings.ALLOWED_HOSTS = ["*"]
    (group,) = ready()
    return create_token(project, person("owner", Role.ADMIN), "fuzz", ["admin"])[1], group


@pytest.mark.parametrize("label", OPERATIONS)
def test_it_never_fails(label, token, record_property):
    operation, (secret, group) = OPERATIONS[label], token
    SCHEMA.app = APP
    documented = DOCUMENT["paths"][operation.path][operation.method]["responses"]
    statuses, raised, image = [], [], group.generations.first().pk

    def note(**_):
        raised.append(sys.exc_info()[1])

    got_request_exception.connect(note)

    @seed(7)
    @QUICK
    @given(st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in (MODES.POSITIVE, MODES.NEGATIVE))))
    def send(case):
        # Half the time at what is there: otherwise most requests end at 404.
        for name, there in {"slug": "stars", "group_id": group.pk, "image_id": image, "number": 1}.items():
            if name in case.path_parameters and len(statuses) % 4:
                case.path_parameters[name] = there
        answer = case.call(app=APP, headers={"Authorization": f"Bearer {secret}"})
        statuses.append(answer.status_code)
        assert answer.status_code < 500, (case.as_curl_command(), answer.status_code, raised)
        if answer.status_code >= 400:
            assert isinstance(answer.json()["detail"], str), case.as_curl_command()
            assert str(answer.status_code) in documented, (case.as_curl_command(), answer.status_code)

    send()
    record_property("requests", len(statuses))
    record_property("statuses", json.dumps(Counter(statuses)))
    assert len(statuses) >= min(EXAMPLES, 2)


# Numbers and days as nobody writes them, and character sets that are none: each is tried in each place, so that what no
# dice would find is found all the same.
EDGES = (
    "9" * 5000,
    "-" + "9" * 400,
    "²",
    "٣",
    "1e400",
    "-inf",
    "nan",
    "1_0",
    "0x1",
    str(2**63),
    "9999-12-31",
    "10000-01-01",
)
RAW = ("9" * 5000, "1e400", "-1e99999", "1E+30", "NaN", "-Infinity", '"²"', '"\\ud800"', "[" * 2000)
CHARSETS = ("utf-16", "utf-7", "klingon", "zlib", "undefined", "")


def bodies(operation):
    """JSON texts in which one number or text of the body is another."""
    described = api.get_openapi_schema()
    taken = described["paths"][operation.path][operation.method].get("requestBody", {}).get("content", {})
    name = taken.get("application/json", {}).get("schema", {}).get("$ref", "").rpartition("/")[2]
    for field in described["components"]["schemas"].get(name, {}).get("properties", {}):
        for value in RAW:
            yield f'{{"{field}": {value}}}'
            yield f'{{"{field}": {{"{EDGES[0]}": {value}}}}}'


def test_bodies_are_found():
    assert sum(1 for operation in OPERATIONS.values() if any(bodies(operation))) >= 5


@pytest.mark.parametrize("label", OPERATIONS)
def test_edges_of_numbers_days_and_character_sets(label, token, client):
    operation, (secret, group) = OPERATIONS[label], token
    client.raise_request_exception = False
    headers, method = {"Authorization": f"Bearer {secret}"}, operation.method.upper()
    path = operation.full_path.replace("{slug}", "stars")
    there = re.sub(r"\{\w+\}", str(group.pk), path)

    def send(address, body="", kind="application/json", **query):
        address = f"{address}?{urlencode(query)}" if query else address
        answer = client.generic(method, address, body, content_type=kind, headers=headers)
        assert answer.status_code < 500, (label, address[:200], body[:200])

    for value in EDGES:
        if there != path:
            send(re.sub(r"\{\w+\}", quote(value), path))
        for parameter in operation.query:
            send(there, **{parameter.name: value})
    for body in bodies(operation):
        send(there, body)
    for charset in CHARSETS:
        send(there, "{}", f"application/json; charset={charset}")
