"""The numbers of docs/scaling.md: the simulation keeps to the code's own numbers, to the arithmetic, and to its seed."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from bench.load import scaling
from bench.load.scaling import H100, SCENARIOS, SD35, Simulation
from tests.webapp.conftest import make_ready
from trainer.plan import UTILISATION
from webapp.accounts.models import User
from webapp.campaigns.models import Membership
from webapp.campaigns.services import create_project
from webapp.labelling import generation
from webapp.lib import broker, options
from workers import tasks

ROOT = Path(__file__).resolve().parents[3]


def test_the_simulation_knows_the_products_numbers():
    assert broker.HOUSEKEEPING_SECONDS == scaling.HOUSEKEEPING_SECONDS
    assert options.PREFETCH == scaling.AHEAD
    assert tasks.HEARTBEAT_SECONDS == scaling.HEARTBEAT_SECONDS
    assert UTILISATION == scaling.UTILISATION
    script = (ROOT / "static" / "js" / "annotate.js").read_text()
    assert int(re.search(r"LOOK_AGAIN_MS = (\d+)", script)[1]) == 1000 * scaling.LOOK_AGAIN_SECONDS


@pytest.mark.django_db
def test_requests_cost_as_many_statements_as_it_says(client, tmp_path):
    prompts = [{"prompt": f"{n} stars"} for n in range(8)]
    project = create_project("stars", "Stars", model_dir=str(tmp_path), student_dir=str(tmp_path), prompts=prompts)
    ann = User.objects.create_user("ann")
    Membership.objects.create(user=ann, project=project, role="annotator")
    make_ready(project, 5)
    client.force_login(ann)

    def count(do):
        with CaptureQueriesContext(connection) as queries:
            result = do()
        return result, len(queries)

    def submit(group):
        body = {"labels": {str(i): i % 2 == 0 for i in range(len(group["images"]))}, "seconds": 1, "key": "k"}
        return client.post(f"/p/stars/groups/{group['group']}/submit/", json.dumps(body), "application/json")

    answer, nexts = count(lambda: client.get("/p/stars/groups/next/"))
    group = answer.json()["groups"][0]
    answer, submits = count(lambda: submit(group))
    assert answer.status_code == 200
    _, images = count(lambda: client.get(group["images"][0]["url"]))
    project.ready_target = 20
    project.save()
    made, top_up = count(lambda: generation.top_up(project.pk))
    claimed, claim = count(lambda: generation.claim_group_for_generation(made[0].pk, "w"))
    _, complete = count(lambda: generation.complete_group(made[0].pk, claimed.token, [(8, 8)] * made[0].size))
    counted = {"next": nexts, "submit": submits, "image": images, "claim": claim, "complete": complete}
    counted["group made"] = top_up / len(made)
    for name, number in counted.items():
        assert 0.6 * scaling.SQL[name] <= number <= 1.4 * scaling.SQL[name], (name, number)


def test_a_seed_gives_the_same_hour():
    team = SCENARIOS[1]
    rows = [scaling.row(Simulation(team, seed).run()) for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]


def test_the_hour_is_what_the_arithmetic_says():
    """Enough GPUs: people set the pace. Too few: GPUs do."""
    few = replace(SCENARIOS[2], people=40, generate=1, ready_target=20)
    hour = Simulation(few, 0).run()
    most = 3600 / (scaling.GROUP_SIZE * SD35.image_seconds(H100))
    assert 0.85 * most < hour.made <= 1.02 * most  # uploads take some of a worker's time
    assert hour.rated <= few.overlap * (hour.made + 5 * few.ready_target * few.projects)
    many = Simulation(replace(few, generate=6), 0).run()
    mean = scaling.PEOPLE_SECONDS * 2.718281828 ** (scaling.PEOPLE_SPREAD**2 / 2)
    assert many.rated == pytest.approx(40 * 3600 / mean, rel=0.05)
    assert many.load["bytes in"].rates()[0] > many.made / 3600 * SD35.trajectory_bytes
