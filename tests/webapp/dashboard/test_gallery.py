"""The gallery: what each filter leaves, pages without gaps, who sees it, and the export of what is filtered."""

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from tests.webapp import acting
from webapp.dashboard import gallery
from webapp.dashboard.gallery import Wanted
from webapp.labelling.models import Group
from webapp.quality.models import Consensus
from webapp.rounds.models import ModelVersion


@pytest.fixture
def rated(project, ready, ann, boss):
    """Three groups of four: both rate the first and disagree on its image 2; ann alone the second; nobody the third."""
    project.overlap = 2
    project.save()
    first, second, third = ready(3)
    acting.submit(ann, project, first, [1, 1, 0, 0])
    acting.submit_group(boss, project, first.pk, {0: True, 1: True, 2: True, 3: False}, seconds=1, idempotency_key="b")
    acting.submit(ann, project, second, [0, 0, 0, 1])
    return first, second, third


def found(project, **wanted):
    return [(shown.group.pk, shown.image.position) for shown in gallery.page(project, Wanted(**wanted)).images]


def test_what_each_filter_leaves(project, rated, ann, boss):
    first, second, third = (group.pk for group in rated)
    assert [group for group, _ in found(project)] == [third] * 4 + [second] * 4 + [first] * 4
    assert found(project, verdict="liked") == [(second, 3), (first, 0), (first, 1)]
    assert found(project, verdict="undecided") == [*((third, n) for n in range(4)), (first, 2)]
    assert found(project, disagree=True) == [(first, 2)]
    assert found(project, person=boss.pk) == [(first, n) for n in range(4)]
    assert found(project, person=ann.pk, verdict="disliked") == [
        *((second, n) for n in range(3)),
        (first, 2),
        (first, 3),
    ]
    assert found(project, person=boss.pk, verdict="liked", disagree=True) == [(first, 2)]
    version = ModelVersion.objects.create(project=project, number=2, path="x")
    Group.objects.filter(pk=second).update(version=version)
    assert found(project, version=version.pk, verdict="liked") == [(second, 3)]
    prompt = rated[0].prompt
    prompt.metadata = {"tag": "counting"}
    prompt.save()
    assert {group for group, _ in found(project, tag="counting")} == {first}
    assert {group for group, _ in found(project, text=prompt.text.upper())} == {first}
    assert found(project, text="nothing like it") == []
    old = timezone.now() - timedelta(days=9)
    Group.objects.filter(pk=first).update(created_at=old)
    Consensus.objects.filter(group=first).update(labelled_at=old)
    assert {group for group, _ in found(project, until=timezone.now() - timedelta(days=8))} == {first}
    assert {group for group, _ in found(project, since=timezone.now() - timedelta(days=8))} == {second}
    Group.objects.filter(pk=first).update(state="flagged")
    assert first not in {group for group, _ in found(project)}


def test_pages_have_everything_once(project, rated, monkeypatch):
    monkeypatch.setattr(gallery, "IMAGES", 4)
    seen, before = [], None
    for _ in range(3):
        part = gallery.page(project, Wanted(), before)
        seen += [shown.image.pk for shown in part.images]
        before = part.next
    assert len(seen) == len(set(seen)) == 12
    assert gallery.page(project, Wanted(), before).images == []


def test_a_request_looks_at_so_many_groups_and_offers_to_go_on(client, project, rated, boss, monkeypatch):
    monkeypatch.setattr(gallery, "WINDOWS", (1,))
    monkeypatch.setattr(gallery, "MOST", 2)
    part = gallery.page(project, Wanted(since=timezone.now() + timedelta(days=1)))
    assert (part.images, part.looked, part.full) == ([], 2, False) and part.next == rated[1].pk
    client.force_login(boss)
    page = client.get("/p/stars/gallery/?since=2999-01-01").content.decode()
    assert "None among the newest 2 groups" in page
    assert f"?since=2999-01-01&amp;before={rated[1].pk}" in page


def test_an_old_date_is_found_without_looking_at_everything_since(project, rated, monkeypatch):
    first = rated[0]
    old = timezone.now() - timedelta(days=9)
    Group.objects.filter(pk=first.pk).update(created_at=old)
    Consensus.objects.filter(group=first.pk).update(labelled_at=old)
    monkeypatch.setattr(gallery, "WINDOWS", (1,))
    part = gallery.page(project, Wanted(until=timezone.now() - timedelta(days=8)))
    assert {shown.group.pk for shown in part.images} == {first.pk} and part.looked == 1
    assert gallery.page(project, Wanted(until=old - timedelta(days=1))).looked == 0


def test_reviewers_see_it_and_admins_export_what_is_filtered(client, project, rated, ann, boss, person):
    client.force_login(person("rea", "reviewer"))
    page = client.get("/p/stars/gallery/?verdict=liked").content.decode()
    assert page.count("<figure>") == 3 and f"/p/stars/review/{rated[0].pk}/" in page
    assert "gallery/download" not in page
    assert client.get("/p/stars/gallery/download/").status_code == 404
    client.force_login(boss)
    assert (
        "gallery/download/?verdict=liked&amp;container=jsonl"
        in client.get("/p/stars/gallery/?verdict=liked").content.decode()
    )
    answer = client.get("/p/stars/gallery/download/?disagree=on&container=jsonl")
    rows = [json.loads(line) for line in b"".join(answer.streaming_content).splitlines()]
    assert [(row["group"], row["position"], row["liked"]) for row in rows] == [
        (rated[0].pk, 2, v) for v in (False, True)
    ]
    assert client.get("/p/stars/gallery/?since=1").status_code == 400
    client.force_login(ann)
    assert client.get("/p/stars/gallery/").status_code == 404
