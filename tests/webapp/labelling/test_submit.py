"""Submitting, skipping and undoing: what was acknowledged is kept once, and only once."""

import json

import pytest
from django.db import connection

from tests.webapp import acting
from webapp.labelling.models import GroupDecision, Label, LabelEvent

ALL_LIKED = {"0": True, "1": True, "2": False, "3": True}


def test_it_works(post, ready, client, ann):
    (group,) = ready()
    assert client.get("/p/stars/groups/next/").json()["groups"][0]["group"] == acting.task(ann, group)
    answer = post(f"groups/{group.pk}/submit/", {"labels": ALL_LIKED, "seconds": 3.5, "key": "a"})
    assert answer.status_code == 200
    assert answer.json()["today"] == {"groups": 1, "images": 4}
    assert [label.liked for label in Label.objects.order_by("generation__position")] == [True, True, False, True]
    group.refresh_from_db()
    assert group.state == "done"


def test_a_replay_is_kept_once(post, ready):
    (group,) = ready()
    body = {"labels": ALL_LIKED, "seconds": 1, "key": "a"}
    for _ in range(3):
        assert post(f"groups/{group.pk}/submit/", body).status_code == 200
    assert Label.objects.count() == LabelEvent.objects.count() == 4


def test_the_same_key_with_another_answer_is_a_conflict(post, ready):
    (group,) = ready()
    post(f"groups/{group.pk}/submit/", {"labels": ALL_LIKED, "key": "a"})
    answer = post(f"groups/{group.pk}/submit/", {"labels": {**ALL_LIKED, "0": False}, "key": "a"})
    assert answer.status_code == 409
    assert "idempotency_key" in answer.json()["error"]
    assert Label.objects.get(generation__position=0).liked is True


def test_a_second_decision_is_a_conflict(post, ready):
    (group,) = ready()
    post(f"groups/{group.pk}/submit/", {"labels": ALL_LIKED, "key": "a"})
    assert post(f"groups/{group.pk}/submit/", {"labels": ALL_LIKED, "key": "b"}).status_code == 409


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"labels": {"0": True}, "key": "a"}, "image 2 is undecided"),
        ({"labels": {**ALL_LIKED, "9": True}, "key": "a"}, "image 10"),
        ({"labels": {**ALL_LIKED, "0": 1}, "key": "a"}, "labels: send an object"),
        ({"labels": {**ALL_LIKED, "x": True}, "key": "a"}, "labels: send a whole number from 0 to 23"),
        ({"labels": {**ALL_LIKED, "²": True}, "key": "a"}, "labels: send a whole number from 0 to 23"),
        ({"labels": ALL_LIKED, "key": ""}, "idempotency_key"),
        ({"labels": ALL_LIKED, "key": "a", "seconds": "soon"}, "seconds"),
        ([], "body"),
    ],
)
def test_bad_input_names_the_field(post, ready, body, message):
    (group,) = ready()
    answer = post(f"groups/{group.pk}/submit/", body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert not Label.objects.exists()


def test_a_skip_leaves_no_labels_and_never_comes_back(post, ready, client):
    (group,) = ready()
    client.get("/p/stars/groups/next/")
    assert post(f"groups/{group.pk}/skip/", {"reason": "unclear", "key": "s"}).status_code == 200
    assert not Label.objects.exists()
    assert client.get("/p/stars/groups/next/").json()["groups"] == []
    group.refresh_from_db()
    assert group.state == "ready"


def test_undo_gives_the_group_and_the_answer_back(post, ready, ann):
    first, second = ready(2)
    for group in (first, second):
        post(f"groups/{group.pk}/submit/", {"labels": ALL_LIKED, "key": str(group.pk)})
    assert post("undo/", {}).json()["group"]["group"] == acting.task(ann, second)
    answer = post("undo/", {}).json()
    assert answer["group"]["group"] == acting.task(ann, first)
    assert answer["labels"] == ALL_LIKED
    assert not Label.objects.exists()
    assert LabelEvent.objects.count() == 16  # history keeps what was given and what was taken back
    first.refresh_from_db()
    assert first.state == "ready"
    assert post("undo/", {}).json()["group"] is None


def test_after_an_undo_the_group_can_be_answered_differently(post, ready):
    (group,) = ready()
    post(f"groups/{group.pk}/submit/", {"labels": ALL_LIKED, "key": "a"})
    post("undo/", {})
    assert post(f"groups/{group.pk}/submit/", {"labels": {**ALL_LIKED, "0": False}, "key": "b"}).status_code == 200
    assert Label.objects.get(generation__position=0).liked is False
    assert GroupDecision.objects.count() == 1


def test_an_oracle_may_label_too_and_a_persons_word_wins(post, ready, project):
    from webapp.labelling.queries import labelled_groups, rewards
    from webapp.labelling.scoring import record_oracle_labels

    (group,) = ready()
    verdicts = [{"score": 0.25, "liked": False, "reason": "x"}] * 4
    record_oracle_labels(group.pk, "demo", verdicts)
    assert rewards(labelled_groups(project).get()) == [0.25] * 4
    post(f"groups/{group.pk}/submit/", {"labels": ALL_LIKED, "key": "a"})
    assert rewards(labelled_groups(project).get()) == [1, 1, 0, 1]


def test_an_ended_session_is_said_and_never_looks_like_success(ready, client):
    (group,) = ready()
    answer = client.post(
        f"/p/stars/groups/{group.pk}/submit/",
        json.dumps({"labels": ALL_LIKED, "key": "a"}),
        content_type="application/json",
        headers={"accept": "application/json"},
    )
    assert answer.status_code == 401
    assert "Log in again" in answer.json()["error"]
    assert not Label.objects.exists()


def test_losing_a_race_asks_to_try_again(post, ready, monkeypatch):
    from django.db import IntegrityError

    from webapp.labelling import decisions

    (group,) = ready()

    def lose(*args):
        raise IntegrityError

    monkeypatch.setattr(decisions, "_set_labels", lose)
    answer = post(f"groups/{group.pk}/submit/", {"labels": ALL_LIKED, "key": "a"})
    assert answer.status_code == 503  # which the page sends again, unlike 409
    monkeypatch.undo()
    assert post(f"groups/{group.pk}/submit/", {"labels": ALL_LIKED, "key": "a"}).status_code == 200
    assert Label.objects.count() == 4


@pytest.mark.parametrize("path", ["skip", "flag"])
def test_two_skips_or_flags_at_once_ask_to_try_again(post, ready, monkeypatch, path):
    from django.db import IntegrityError

    from webapp.labelling import decisions

    (group,) = ready()
    body = {"skip": {"reason": "unclear"}, "flag": {"kind": "broken"}}[path] | {"key": "a"}

    def lose(*args):
        raise IntegrityError

    monkeypatch.setattr(decisions, "_count", lose)
    assert post(f"groups/{group.pk}/{path}/", body).status_code == 503
    monkeypatch.undo()
    assert post(f"groups/{group.pk}/{path}/", body).status_code == 200
    assert GroupDecision.objects.count() == 1


def test_a_skip_keeps_its_reason(post, ready):
    first, second, third = ready(3)
    assert post(f"groups/{first.pk}/skip/", {"reason": "other", "note": "too dark", "key": "a"}).status_code == 200
    assert post(f"groups/{second.pk}/skip/", {"reason": "", "key": "b"}).status_code == 200
    assert [d.reason for d in GroupDecision.objects.order_by("pk")] == ["other: too dark", ""]
    answer = post(f"groups/{third.pk}/skip/", {"reason": "bored", "key": "c"})
    assert answer.status_code == 400
    assert "reason: send one of torn, unclear" in answer.json()["error"]


def test_a_skip_with_overlap_leaves_the_group_to_others(post, ready, project, person):
    from webapp.labelling import leases

    (group,) = ready()
    project.overlap = 2
    project.save()
    post(f"groups/{group.pk}/skip/", {"reason": "torn", "key": "a"})
    people = [person("bob"), person("cat")]
    for user in people:
        assert leases.lease_groups(user, project) == [group]
        acting.submit_group(user, project, group.pk, dict.fromkeys(range(4), True), seconds=1, idempotency_key="k")
    group.refresh_from_db()
    assert (group.state, group.decisions) == ("done", 2)


def test_undo_of_one_key_leaves_the_others(post, ready, ann):
    groups = ready(3)
    for group in groups:
        post(f"groups/{group.pk}/submit/", {"labels": ALL_LIKED, "key": f"k{group.pk}"})
    answer = post("undo/", {"key": f"k{groups[1].pk}"}).json()
    assert answer["group"]["group"] == acting.task(ann, groups[1])
    assert answer["today"] == {"groups": 2, "images": 8}
    assert Label.objects.count() == 8


def test_a_request_that_comes_after_its_undo_does_not_count(post, ready):
    (group,) = ready()
    body = {"labels": ALL_LIKED, "key": "a"}
    assert post("undo/", {"key": "a"}).json()["group"] is None  # it overtook the answer
    answer = post(f"groups/{group.pk}/submit/", body)
    assert answer.status_code == 409
    assert "taken back" in answer.json()["error"]
    assert post(f"groups/{group.pk}/submit/", {**body, "key": "b"}).status_code == 200
    post("undo/", {"key": "b"})
    post("undo/", {"key": "b"})  # twice changes nothing more
    assert post(f"groups/{group.pk}/submit/", {**body, "key": "b"}).status_code == 409
    assert not Label.objects.exists()


def test_an_answer_of_another_device_is_taken_back_by_its_group(post, ready, ann, person, project):
    first, second = ready(2)
    for group in (first, second):
        post(f"groups/{group.pk}/submit/", {"labels": ALL_LIKED, "key": str(group.pk)})
    answer = post(f"groups/{first.pk}/submit/", {"labels": ALL_LIKED, "key": "late"})
    assert (answer.status_code, answer.json()["decided"]) == (409, True)
    undone = post("undo/", {"group": acting.task(ann, first)}).json()
    assert (undone["group"]["group"], undone["labels"]) == (acting.task(ann, first), ALL_LIKED)
    assert post(f"groups/{first.pk}/submit/", {"labels": ALL_LIKED, "key": "later"}).status_code == 200
    bob = person("bob")
    acting.give(bob, second.pk)
    assert post("undo/", {"group": acting.task(bob, second)}).status_code == 400  # a name of somebody else's
    assert GroupDecision.objects.filter(user=ann).count() == 2


def test_undo_takes_only_ones_own(post, ready, person, project):

    (group,) = ready()
    answer = {0: True, 1: True, 2: True, 3: True}
    acting.submit_group(person("bob"), project, group.pk, answer, seconds=1, idempotency_key="b")
    assert post("undo/", {"key": "b"}).json()["group"] is None
    assert Label.objects.count() == 4


def test_counts_of_today_cost_one_row_however_many_decisions_there_are(post, ready, ann, project):
    from django.test.utils import CaptureQueriesContext

    from webapp.labelling import queries
    from webapp.labelling.models import Tally

    groups = ready(3)
    for group in groups[:2]:
        post(f"groups/{group.pk}/submit/", {"labels": ALL_LIKED, "seconds": 4, "key": str(group.pk)})
    post(f"groups/{groups[2].pk}/skip/", {"reason": "", "key": "s"})
    with CaptureQueriesContext(
        connection,
    ) as asked:
        assert queries.today(ann, project) == {"groups": 2, "images": 8}
    assert len(asked) == 1 and ("tally" in asked[0]["sql"] or asked[0]["sql"].startswith("EXECUTE today"))
    tally = Tally.objects.get()
    assert (tally.likes, tally.skips, tally.seconds) == (6, 1, 8)
    post("undo/", {})
    post("undo/", {})
    tally.refresh_from_db()
    assert (tally.groups, tally.images, tally.likes, tally.skips, tally.seconds) == (1, 4, 3, 0, 4)


def test_a_submit_of_24_images_takes_few_queries(post, ready, ann, project, django_assert_num_queries):
    project.group_size = 24
    project.save()
    (group,) = ready()
    acting.give(ann, group.pk)
    body = {"labels": {str(i): True for i in range(24)}, "key": "a"}
    with django_assert_num_queries(
        18 if connection.vendor == "postgresql" else 23
    ):  # the first of the day makes its tally
        assert post(f"groups/{acting.task(ann, group)}/submit/", body).status_code == 200
    assert Label.objects.count() == LabelEvent.objects.count() == 24


def test_an_answer_costs_few_queries(post, ready, ann, django_assert_num_queries):
    """However many images, people and answers there were: the session's, the person's, the membership's and the task's;
    of the answer itself five, one for all that it writes beside the decision, and the two of its transaction (in these
    tests a savepoint); and today's counts."""
    first, second = ready(2)
    post(f"groups/{first.pk}/submit/", {"labels": ALL_LIKED, "key": "a"})
    acting.give(ann, second.pk)
    with django_assert_num_queries(13 if connection.vendor == "postgresql" else 18):  # SQLite takes one at a time
        assert post(f"groups/{acting.task(ann, second)}/submit/", {"labels": ALL_LIKED, "key": "b"}).status_code == 200


def test_the_next_groups_cost_few_queries(client, ann, ready, django_assert_num_queries):
    ready(5)
    client.force_login(ann)
    path = "/p/stars/groups/next/"
    with django_assert_num_queries(11):  # three new ones at once; nothing was held
        first = client.get(path).json()
    assert len(first["groups"]) == 3
    with django_assert_num_queries(8):  # the same three again
        assert client.get(path).json() == first
