"""What is asked with every answer, refresh and page finds its rows by an index, not by reading a table."""

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.webapp import acting
from tests.webapp.conftest import make_ready
from webapp.api.services import create_token
from webapp.exports.records import Filter, records
from webapp.labelling import decisions, generation, leases
from webapp.quality import counts
from webapp.rounds import forecasts
from webapp.rounds.models import ModelVersion, RoundForecast, TrainingRound

pytestmark = pytest.mark.skipif(connection.vendor != "postgresql", reason="plans are PostgreSQL's")
LARGE = "labelling_(group|generation|label|labelevent|groupdecision|lease)|quality_consensus|campaigns_prompt"


def plans(work) -> list[tuple[str, str]]:
    """(query, plan) of each query and UPDATE that `work` makes, by name or in words, as if every table were too large to be
    read through."""
    with CaptureQueriesContext(connection) as captured:
        work()
    found = []
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL plan_cache_mode = force_custom_plan")  # else a plan from before may be shown
        for query in captured.captured_queries:
            # `prepared.together` sends several in one message.
            for sql in re.split(r"; (?=EXECUTE )", query["sql"]):
                if sql.startswith(("SELECT", "UPDATE", "DELETE", "EXECUTE")):
                    cursor.execute("EXPLAIN " + sql)
                    found.append((sql, "\n".join(row[0] for row in cursor.fetchall())))
    return found


def read_through(work) -> list[str]:
    """The queries that could not but read a large table from end to end."""
    scans = re.compile(rf"Seq Scan on ({LARGE})\b")
    looked = plans(work)
    assert len(looked) > 3
    return [f"{sql[:300]}\n{plan}" for sql, plan in looked if scans.search(plan)]


def test_answers_pages_and_lists(client, ann, boss, project, ready):
    project.overlap, project.tie_break, project.gold_rate = 2, True, 0.2
    project.save()
    first, second = make_ready(project, 2)
    acting.submit_group(boss, project, first.pk, dict.fromkeys(range(4), True), seconds=1, idempotency_key="a")
    token = create_token(project, boss, "plans", ["read", "admin"])[1]

    def answer():
        leases.lease_groups(ann, project, 3)
        acting.submit_group(ann, project, second.pk, dict.fromkeys(range(4), True), seconds=1, idempotency_key="b")
        decisions.undo(ann, project)

    def pages():
        client.force_login(boss)
        for path in (
            "",
            "gallery/",
            "gallery/?version=1&verdict=liked",
            "gallery/?text=star&since=2020-01-01",
            f"gallery/?person={ann.pk}&disagree=on",
            "review/?show=ties",
            "review/?show=all",
            "flags/",
            "quality/",
            "prompts/",
            "guidelines/",
            "me/",
            "series/",
            "people/",
            "versions/",
            "export/?format=labels&container=jsonl&signal=on",
            "export/?format=labels&container=jsonl&annotator=ann",
        ):
            assert client.get(f"/p/stars/{path}").status_code == 200

    def api():
        lists = ("groups", "groups?state=flagged", "groups?signal=true&after=1", "groups?version=1", "labels")
        for path in (*lists, "labels?after=1", "labels?annotator=ann", "prompts", "versions", "rounds", "webhooks", ""):
            answer = client.get(f"/api/v1/projects/stars/{path}", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 200

    assert read_through(answer) + read_through(pages) + read_through(api) == []
    assert read_through(lambda: generation.top_up(project.pk)) == []
    whole = Filter(since=timezone.now() - timedelta(days=1), signal=True)
    some = (Filter(), whole, Filter(annotator=1), Filter(split="train", version=1))
    assert read_through(lambda: [list(records(project, chosen)) for chosen in some]) == []
    assert read_through(lambda: counts.count_project(project)) == []


def test_what_came_of_rounds(project):
    version = ModelVersion.objects.create(project=project, number=2, path="x", status="published")
    training = TrainingRound.objects.create(
        project=project, number=1, base_version=project.active_version, result_version=version, state="done"
    )
    RoundForecast.objects.create(round=training, needed=200, had=200)
    assert read_through(forecasts.settle) == []


def test_the_check_sees_a_table_that_is_read_through(project):
    from webapp.labelling.models import Group

    assert len(read_through(lambda: [list(Group.objects.filter(owner=name)) for name in "abcd"])) == 4
