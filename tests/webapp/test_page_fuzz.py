"""Whatever a page's forms and the rating page's requests are filled with, the server does not fail.

A quick pass here; `python -m bench.faults.fuzz` sends more. The API has a test of its own: tests/webapp/api/test_fuzz.py.
"""

import json
import os
import sys
from collections import Counter
from html.parser import HTMLParser
from urllib.parse import urlencode

import pytest
from django.core.signals import got_request_exception
from django.test import Client
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from webapp.campaigns.models import Role

EXAMPLES = int(os.environ.get("LIKESTEP_FUZZ", "60")) // 4
QUICK = settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
JSON_ROUTES = {
    "submit": ["labels", "seconds", "key", "why"],
    "skip": ["reason", "note", "key"],
    "flag": ["kind", "position", "note", "key"],
    "undo": ["key", "group"],
    "vote": ["pair", "order", "seconds"],
}
FORM_PAGES = (
    "me",
    "flags",
    "start-round",
    "people",
    "studies",
    "project-settings",
    "prompts",
    "api-access",
    "review",
    "new-project",
    "own-images",
)
FORM_ROUTES = {
    "gold": ["group", "kind", "0", "1", "2", "3"],
    "start-comparison": ["versions", "shown", "most_votes"],
    "agree": ["version"],
    "practice": ["action", "turn", "image-0", "image-1", "image-2", "image-3"],
    "study": ["PROLIFIC_PID"],
    "sso-login": ["process", "next", "invitation", "password"],
    "clone-project": ["slug", "name"],
    "decide-version": ["decision"],
    "import-labels": ["file"],
    "language": ["language"],
    "share-version": ["repository", "public"],
    "oracle-threshold": ["drop"],
    "start-trial": ["prompt", "versions", "base", "steps", "guidance", "seeds"],
    "trial-prompt": ["split"],
}
LONG = ["9" * 30, "a" * 5000, "🎨" * 300, "2147483648", "9223372036854775808", "1e400"]
# Numbers as other scripts, other languages and nobody writes them, and the ends of what dates can be.
NUMERALS = [
    "9" * 5000,
    "9" * 4000,
    "²",
    "٣",
    "１２",
    "௧",
    "①",
    "-0",
    "+1",
    "1_0",
    "0x1",
    "1e5",
    "infinity",
    "-inf",
    "NaN",
]
DATES = ["0001-01-01", "9999-12-31", "1970-01-01", "2024-02-30", "２０２４-01-01", "10000-01-01", "2024-13-01"]
ODD = ["", " ", "0", "-1", "nan", "inf", "1.5", "\u202e", "http://[", "[1", "{}", *NUMERALS, *DATES]
MEANT = "on true stars train submitted other torn admin read publish left like 100".split()
EDGES = st.sampled_from([*LONG, *ODD, *MEANT])
TEXTS = EDGES | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
BEYOND = st.sampled_from([10**400, -(10**30), 2**63, 2**31, 2**15, 1e308, float("inf"), float("nan")])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | BEYOND | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["0", "1", "3", "9", *NUMERALS]) | TEXTS, inner, max_size=5)
    ),
    max_leaves=8,
)
# Written into a body in place of this text: JSON numbers that Python itself writes for nobody.
PLACE = "a number"
RAW = st.sampled_from(["9" * 5000, "-" + "9" * 5000, "1e400", "-1e99999", "1E+30", "0.0000000001", "1e-400"])
EXPORT = ["format", "container", "version", "split", "since", "until", "annotator", "signal"]
QUERIES = {
    "review-list": ["show", "before"],
    "export": EXPORT,
    "export-download": EXPORT,
    "versions": ["page", "tests"],
    "studies": ["page", "people"],
    "practice": ["shown"],
    "study": ["PROLIFIC_PID", "STUDY_ID", "SESSION_ID"],
    "sso-callback": ["state", "code", "error", "iss"],
    "api-access": ["page", "webhooks", "messages"],
    "prompts": ["page", "show", "q"],
    "quality": ["page", "gold"],
    "start-round": ["preset"],
    "round-card": ["updates", "student_lr", "card"],
    "round-plan": ["updates", "student_lr", "method", "alarm", "key"],
    "gallery": ["version", "text", "tag", "verdict", "person", "disagree", "since", "until", "before"],
    "gallery-download": ["version", "text", "tag", "verdict", "person", "disagree", "since", "until", "container"],
    "try": ["page", "prompt", "versions", "base", "steps", "guidance", "seeds"],
}


class Forms(HTMLParser):
    """The names of a page's fields, with the values that it offers."""

    def __init__(self, text: str):
        super().__init__()
        self.fields, self._select = {}, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "select":
            self._select = values.get("name")
        if tag == "option" and self._select:
            self.fields.setdefault(self._select, []).append(values.get("value") or "")
        if tag in ("input", "textarea", "select", "button") and values.get("name"):
            self.fields.setdefault(values["name"], []).append(values.get("value") or "")


@pytest.fixture
def send(address, person, record_property):
    """send(client, path, …) posts and fails on a server error; afterwards how many requests ended how is noted."""
    statuses, raised = Counter(), []

    def note(**_):
        raised.append(sys.exc_info()[1])

    def post(client, path, data, *, method="post", **options):
        answer = getattr(client, method)(path, data, **options)
        statuses[answer.status_code] += 1
        assert answer.status_code < 500, (path, data, raised)

    got_request_exception.connect(note)
    yield post
    got_request_exception.disconnect(note)
    record_property("statuses", json.dumps(statuses))


@pytest.mark.parametrize("name", JSON_ROUTES)
def test_the_rating_pages_requests(name, send, address, ann):
    client = Client(raise_request_exception=False)
    client.force_login(ann)
    fields = st.dictionaries(st.sampled_from(JSON_ROUTES[name]), VALUES | st.just(PLACE), max_size=5)

    @seed(3)
    @QUICK
    @given(fields.map(json.dumps) | VALUES.map(json.dumps) | st.binary(max_size=50), RAW)
    def run(body, number):
        if isinstance(body, str):
            body = body.replace(json.dumps(PLACE), number)
        send(client, address(name), body, content_type="application/json")

    run()


@pytest.mark.parametrize("name", [*FORM_PAGES, *FORM_ROUTES])
def test_forms(name, send, address, person):
    client = Client(raise_request_exception=False)
    client.force_login(person("root", Role.ADMIN))
    if name in FORM_ROUTES:
        offered = {key: [] for key in FORM_ROUTES[name]}
    else:
        offered = Forms(client.get(address(name)).content.decode()).fields
        assert offered
    offered.pop("csrfmiddlewaretoken", None)
    filled = {
        field: TEXTS | st.sampled_from([*values, ""]) | st.just(None) for field, values in sorted(offered.items())
    }

    @seed(4)
    @QUICK
    @given(st.fixed_dictionaries(filled))
    def run(values):
        values = {k: v for k, v in values.items() if v is not None}
        send(client, address(name), values)

    run()


@pytest.mark.parametrize("name", QUERIES)
def test_queries(name, send, address, person):
    client = Client(raise_request_exception=False)
    client.force_login(person("root", Role.ADMIN))

    @seed(5)
    @QUICK
    @given(st.dictionaries(st.sampled_from(QUERIES[name]), TEXTS, max_size=8))
    def run(values):
        send(client, f"{address(name)}?{urlencode(values)}", None, method="get")

    run()
