"""Large projects: counts are a worker's, states that move stay exact, and no page shows a list without an end."""

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from tests.webapp import acting
from tests.webapp.acting import submit
from tests.webapp.conftest import make_ready
from webapp.accounts.models import User
from webapp.api.models import ApiToken, Delivery, Webhook
from webapp.campaigns.models import Membership
from webapp.campaigns.services import create_project
from webapp.exports import records
from webapp.labelling.models import Group
from webapp.lib import options
from webapp.quality import counts
from webapp.quality.models import GoldGroup, PersonQuality, ProjectCount
from webapp.rounds.models import Comparison, ModelVersion, TrainingRound


@pytest.fixture
def large(project, ann, monkeypatch):
    """Six groups, of which ann has rated four, in a world where more than three are many."""
    monkeypatch.setattr(options, "LARGE", 3)
    groups = make_ready(project, 6)
    for n, group in enumerate(groups[:4]):
        submit(ann, project, group, [1, n % 2, 0, 0] if n else [1, 1, 1, 1])
    return groups


def test_a_small_project_is_counted_when_it_is_asked_for(project, ready):
    ready(2)
    assert counts.count_large() == 0
    assert not ProjectCount.objects.exists()
    assert counts.queue_counts(project)["ready"] == 2


def test_a_large_one_is_counted_by_a_worker_and_small_states_stay_exact(project, large, ann):
    before = counts.queue_counts(project), counts.labelled_count(project), 3
    assert counts.groups_with_signal_since(project, None) == 3
    assert counts.count_large() == 1
    assert (counts.queue_counts(project), counts.labelled_count(project), 3) == before
    assert counts.count_large() == 0  # it was counted just now

    submit(ann, project, large[4], [1, 0, 0, 0])
    found = counts.queue_counts(project)
    assert found["ready"] == 1  # there are few: counted
    assert found["done"] == 4 and counts.labelled_count(project) == 4  # there are many: as of the last count
    ProjectCount.objects.update(counted_at=timezone.now() - timedelta(minutes=2))
    assert counts.count_large() == 1
    assert counts.queue_counts(project)["done"] == counts.labelled_count(project) == 5
    assert counts.groups_with_signal_since(project, None) == 4  # four are many


def test_a_project_that_is_large_no_longer_is_counted_when_it_is_asked_for(project, large):
    counts.count_large()
    Group.objects.filter(pk__in=[g.pk for g in large[1:5]]).delete()
    ProjectCount.objects.update(counted_at=timezone.now() - timedelta(minutes=2))
    assert counts.count_large() == 0
    found = counts.queue_counts(project)
    assert (found["done"], found["ready"], counts.labelled_count(project)) == (1, 1, 1)
    assert counts.groups_with_signal_since(project, None) == 0


def test_the_counts_are_what_the_dashboard_the_api_and_the_metrics_say(client, project, large, boss, settings):
    from webapp.api.services import create_token

    counts.count_large()
    ProjectCount.objects.update(states={"done": 70_000}, labelled=60_000, signal=50_000)
    client.force_login(boss)
    page = client.get("/p/stars/").content.decode()
    tiles = dict(re.findall(r'<div class="tile"><b>(\d+)</b><span>([^<]+)', page))
    assert tiles["70000"] == "groups labelled" and tiles["2"] == "groups waiting" and tiles["50000"]
    headers = {"Authorization": f"Bearer {create_token(project, boss, 'n', ['read'])[1]}"}
    told = client.get("/api/v1/projects/stars/", headers=headers).json()
    assert (told["groups"]["done"], told["labelled_groups"], told["groups_with_signal"]) == (70_000, 60_000, 50_000)
    text = client.get("/metrics").content.decode()
    assert 'likestep_groups{project="stars",state="done"} 70000.0' in text
    assert 'likestep_groups{project="stars",state="ready"} 2.0' in text


def test_the_export_page_counts_no_further_than_it_says(client, project, large, boss, monkeypatch):
    client.force_login(boss)
    path = "/p/stars/export/?format=labels&container=jsonl"
    assert "4 groups." in client.get(path).content.decode()
    monkeypatch.setattr(records, "MOST_COUNTED", 3)
    monkeypatch.setattr("webapp.exports.views.MOST_COUNTED", 3)
    assert records.count(project, records.Filter()) == 4
    assert "More than 3 groups." in client.get(path).content.decode()


@pytest.fixture
def crowd(project, boss, monkeypatch):
    """More of everything than a page shows."""
    monkeypatch.setattr(options, "FLAGS_PER_HOUR", 30)
    people = User.objects.bulk_create(User(username=f"p{n:03}") for n in range(230))
    Membership.objects.bulk_create(Membership(user=u, project=project, role="annotator") for u in people)
    now = timezone.now()
    PersonQuality.objects.bulk_create(PersonQuality(project=project, user=u, measured_at=now) for u in people)
    ModelVersion.objects.bulk_create(
        ModelVersion(project=project, number=n, path=f"v{n}", parent=project.active_version) for n in range(2, 132)
    )
    for group in make_ready(project, 30):
        acting.flag_group(boss, project, group.pk, kind="broken", position=None, idempotency_key=f"f{group.pk}")
    for n in range(60):
        create_project(f"p{n}", f"P{n}", model_dir="x", student_dir="x", prompts=[{"prompt": "a star"}])
    Membership.objects.bulk_create(
        Membership(user=boss, project_id=pk, role="admin")
        for pk in Group._meta.get_field("project")
        .related_model.objects.exclude(pk=project.pk)
        .values_list("pk", flat=True)
    )
    for n in range(52):
        made = create_project(f"old{n}", f"Old {n}", model_dir="x", student_dir="x", prompts=[{"prompt": "a star"}])
        made.archived_at = now
        made.save()
        Membership.objects.create(user=boss, project=made, role="admin")
    ApiToken.objects.bulk_create(
        ApiToken(project=project, user=boss, name=f"t{n}", scopes=["read"], token_hash=f"{n}", hint="ls_")
        for n in range(60)
    )
    hooks = Webhook.objects.bulk_create(
        Webhook(project=project, url=f"https://example.org/{n}", secret="s", events=["round.finished"])
        for n in range(61)
    )
    Delivery.objects.bulk_create(
        Delivery(webhook=hooks[0], event="round.finished", key=f"{n}", payload={}, next_at=now) for n in range(62)
    )
    first, second = project.versions.order_by("number")[:2]
    Comparison.objects.bulk_create(
        Comparison(project=project, number=n, version_a=first, version_b=second, state="stopped") for n in range(1, 64)
    )
    TrainingRound.objects.bulk_create(
        TrainingRound(project=project, number=n, base_version=first, idempotency_key=f"{n}", state="failed")
        for n in range(1, 42)
    )
    gold = Group.objects.bulk_create(
        Group(project=project, prompt=project.prompts.first(), version=first, first_seed=n, size=4, state="done")
        for n in range(103)
    )
    GoldGroup.objects.bulk_create(GoldGroup(project=project, group=g, kind="review", answer={}) for g in gold)


@pytest.mark.parametrize(
    ("path", "row", "page", "everything", "name"),
    [
        ("/p/stars/people/", r"<bdi>p\d", 100, 230, "page"),
        ("/p/stars/quality/", r"<tr><td><bdi>p\d", 100, 230, "page"),
        ("/p/stars/quality/", r'<tr><td><a href="/p/stars/review/\d', 100, 103, "gold"),
        ("/p/stars/versions/", "download-lora|/lora/", 50, 131, "page"),
        ("/p/stars/versions/", r'href="/p/stars/comparisons/\d', 50, 63, "tests"),
        ("/p/stars/flags/", 'data-group="', 25, 30, "page"),
        ("/p/stars/api/", 'value="revoke"', 50, 60, "page"),
        ("/p/stars/api/", 'value="remove-webhook"', 50, 61, "webhooks"),
        ("/p/stars/api/", "<td>round.finished</td><td>pending", 50, 62, "messages"),
        ("/p/stars/", r'<tr><td><a href="/p/stars/rounds/\d', 20, 41, "rounds"),
        ("/", "project-row", 25, 61, "page"),
        ("/", r'<li><a href="/p/old', 50, 52, "archived"),
    ],
)
def test_every_list_has_pages(client, boss, crowd, path, row, page, everything, name):
    client.force_login(boss)
    seen, number = [], 1
    while True:
        text = client.get(path, {name: number}).content.decode()
        seen.append(len(re.findall(row, text)))
        if f"?{name}={number + 1}" not in text:
            break
        number += 1
    assert max(seen) <= page
    assert sum(seen) == everything


def test_the_home_page_asks_the_same_of_many_projects(client, boss, crowd, django_assert_max_num_queries):
    client.force_login(boss)
    with django_assert_max_num_queries(22):
        client.get("/")
