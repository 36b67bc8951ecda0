"""The reviewers' pages: who labels how, and a last word with a reason."""

import pytest

from tests.webapp.acting import submit
from webapp.campaigns.models import Role
from webapp.quality import queries, services
from webapp.quality.models import Consensus, GoldAnswer, GoldGroup, PersonQuality, ProjectQuality


@pytest.fixture
def reviewer(client, person):
    user = person("rev", Role.REVIEWER)
    client.force_login(user)
    return user


@pytest.fixture
def group(ready, project, ann):
    (made,) = ready()
    submit(ann, project, made, [1, 0, 0, 1])
    made.refresh_from_db()
    return made


def test_a_reviewer_overrules_on_the_page(client, reviewer, group):
    first, second, *_ = group.generations.all()
    address = f"/p/stars/review/{group.pk}/"
    answer = client.post(address, {f"word-{first.pk}": "dislike", f"word-{second.pk}": "", "reason": ""})
    assert answer.status_code == 400 and "say why in a few words" in answer.content.decode()
    client.post(address, {f"word-{first.pk}": "dislike", f"word-{second.pk}": "", "reason": "<i>blurry</i>"})
    assert Consensus.objects.get().rewards == [0, 0, 0, 1]
    page = client.get(address).content.decode()
    assert (
        "<bdi>rev</bdi> overruled" in page
        and "&lt;i&gt;blurry&lt;/i&gt;" in page
        and "<bdi>ann</bdi>: <b>like</b>" in page
    )
    client.post(address, {f"word-{first.pk}": "back", "reason": "I looked again"})
    assert Consensus.objects.get().rewards == [1, 0, 0, 1]
    assert client.post(address, {"reason": "nothing chosen"}).status_code == 400


def test_a_reviewed_group_becomes_gold_and_is_retired(client, reviewer, group):
    client.post(f"/p/stars/review/{group.pk}/gold/", {"action": "make"})
    assert GoldGroup.objects.get().answer == {"0": True, "1": False, "2": False, "3": True}
    assert "Show it to nobody" in client.get(f"/p/stars/review/{group.pk}/").content.decode()
    client.post(f"/p/stars/review/{group.pk}/gold/", {"action": "retire"})
    assert not GoldGroup.objects.get().active


def test_the_list_is_paged_and_filtered(client, reviewer, project, ready, ann):
    for made in ready(26):
        submit(ann, project, made, [1, 0, 0, 1])
    page = client.get("/p/stars/review/?show=signal").content.decode()
    assert page.count("<article") == 24 and "before=" in page
    older = page.partition("before=")[2].partition('"')[0]
    assert client.get(f"/p/stars/review/?show=signal&before={older}").content.decode().count("<article") == 2
    assert client.get("/p/stars/review/?show=ties").content.decode().count("<article") == 0
    assert client.get("/p/stars/review/?show=nonsense").status_code == 404


def test_people_to_look_at_come_first_with_the_reason(client, reviewer, project, group, ann, person):
    now = group.created_at
    bob = person("bob")
    good = {"labels": 400, "likes": 200, "groups": 50, "shared": 200, "agreement": 0.8, "seconds_per_image": 2.0}
    PersonQuality.objects.create(project=project, user=ann, measured_at=now, **good)
    bad = {"labels": 400, "likes": 400, "groups": 50, "shared": 200, "agreement": 0.4, "hasty": 30}
    PersonQuality.objects.create(project=project, user=bob, measured_at=now, **bad)
    known = services.make_gold(group, "attention", {0: True, 1: False, 2: False})
    GoldAnswer.objects.create(gold=known, user=bob, right=0, total=6)
    first, second = queries.people(project)
    assert (first.quality.user, second.concerns()) == (bob, [])
    assert first.concerns() == [
        "right on 0% of the known images",
        "agrees with others on 40%",
        "answered 30 of 50 groups too fast to have looked",
        "gave the same answer to every image",
    ]
    assert first.attention_failed == 1
    ProjectQuality.objects.create(project=project, alpha=0.5, labels=10, shared=10, people=2)
    page = client.get("/p/stars/quality/").content.decode()
    assert "agrees with others on 40%" in page and "0.50" in page
    assert client.get("/p/stars/quality/agreement/").json()["points"][0]["alpha"] == 0.5
