"""Annotators practise on known groups before they get real ones."""

import random
from datetime import timedelta

import pytest
from django.db.models import F
from django.utils import timezone

from tests.webapp.raters.conftest import LIKES
from webapp.labelling import errors, leases
from webapp.labelling.models import Label
from webapp.quality import services as quality
from webapp.raters import practice
from webapp.raters.models import Practice

RIGHT = {i: bool(v) for i, v in enumerate(LIKES)}
WRONG = {i: not v for i, v in RIGHT.items()}
URL = "/p/stars/practice/"


@pytest.fixture
def asked(project, gold, ready):
    """A project that wants 3 of 4 right, with six known groups and two real ones."""
    gold(6)
    ready(2)
    project.practice_groups, project.practice_right, project.practice_tries = 4, 3, 2
    project.save()
    return project


def answer(user, project, answers):
    for turn, given in enumerate(answers):
        practice.answer(user, project, turn, given)


def send(client, turn, given):
    words = {f"image-{p}": "like" if liked else "dislike" for p, liked in given.items()}
    return client.post(URL, {"action": "answer", "turn": turn, **words}, follow=True)


def test_it_works_and_says_after_each_group_what_was_right(client, asked, ann):
    client.force_login(ann)
    assert client.get("/p/stars/annotate/").url == URL
    waiting = client.get("/p/stars/groups/next/").json()
    assert waiting["groups"] == [] and waiting["go"] == "/p/stars/annotate/"
    page = client.post(URL, {"action": "begin"}, follow=True).content.decode()
    assert "group 1 of 4" in page
    assert client.get("/p/stars/practice/0/1.webp")["Content-Type"] == "image/webp"
    assert client.get("/p/stars/practice/1/1.webp").status_code == 404  # not its turn
    told = send(client, 0, {**RIGHT, 2: True}).content.decode()
    assert "Right." in told and told.count("✓") == 3 and told.count("✗") == 1  # three of four are enough
    told = send(client, 1, WRONG).content.decode()
    assert "Not right." in told and "Right so far: 1" in told
    send(client, 2, RIGHT)
    send(client, 3, RIGHT)
    assert "Passed" in client.get(URL).content.decode()
    assert client.get("/p/stars/annotate/").status_code == 200
    assert client.get("/p/stars/groups/next/").json()["groups"]
    assert not Label.objects.filter(annotator=ann).exists()  # practice is no label


def test_who_fails_may_try_again_after_a_time_and_not_for_ever(client, asked, ann):
    client.force_login(ann)
    practice.begin(ann, asked)
    answer(ann, asked, [RIGHT, WRONG, RIGHT, WRONG])
    page = client.get(URL).content.decode()
    assert "You may try again from" in page and "begin" not in page
    with pytest.raises(practice.PracticeError):
        practice.begin(ann, asked)
    first = set(Practice.objects.get().asked)
    Practice.objects.update(ended_at=F("ended_at") - timedelta(hours=24, minutes=1))
    assert "You may try again." in client.get(URL).content.decode()
    again = practice.begin(ann, asked)
    assert len(first & set(again.asked)) == 2  # those that they have not practised on come first
    answer(ann, asked, [WRONG] * 4)
    Practice.objects.update(ended_at=timezone.now() - timedelta(days=30))
    assert "no more tries" in client.get(URL).content.decode()
    with pytest.raises(practice.PracticeError):
        practice.begin(ann, asked)
    with pytest.raises(errors.Stopped):
        leases.lease_groups(ann, asked)


def test_it_is_asked_of_annotators_only(asked, boss, person):
    assert leases.lease_groups(boss, asked)
    assert leases.lease_groups(person("rev", "reviewer"), asked)


def test_an_answer_counts_once_and_in_its_order(asked, ann):
    practice.begin(ann, asked)
    practice.answer(ann, asked, 0, WRONG)
    assert not practice.answer(ann, asked, 0, RIGHT).right  # the first answer stays, whatever comes after its result
    with pytest.raises(practice.PracticeError, match="not the group"):
        practice.answer(ann, asked, 3, RIGHT)
    with pytest.raises(practice.PracticeError, match="every image"):
        practice.answer(ann, asked, 1, {0: True})
    assert practice.begin(ann, asked).number == 1  # the one that runs


def test_groups_of_the_practice_are_never_given_as_hidden_gold(asked, ann):
    asked.gold_rate = 0.5
    asked.save()
    running = practice.begin(ann, asked)
    answer(ann, asked, [RIGHT] * 4)
    always = random.Random(1)
    picked = {group.gold.pk for group in quality.pick_gold(ann, asked, 6, rng=always)}
    assert len(picked) == 2 and not picked & set(running.asked)


def test_gold_that_somebody_had_among_real_groups_is_not_practised(asked, ann):
    group = asked.gold_groups.first().group
    leases.give(ann, group.pk, lasts=True)
    for seed in range(5):
        Practice.objects.all().delete()
        assert group.gold.pk not in practice.begin(ann, asked, rng=random.Random(seed)).asked


def test_without_enough_known_groups_nobody_begins_and_nobody_gets_real_ones(client, asked, ann, boss):
    asked.practice_groups = 9
    asked.save()
    client.force_login(ann)
    assert "not ready" in client.get(URL).content.decode()
    assert "not enough" in client.post(URL, {"action": "begin"}, follow=True).content.decode()
    assert client.get("/p/stars/groups/next/").json()["groups"] == []
    client.force_login(boss)
    assert "too few for the practice" in client.get("/p/stars/studies/").content.decode()


def test_a_practice_that_nobody_can_pass_is_refused(client, project, boss):
    client.force_login(boss)
    answer = client.post("/p/stars/settings/", {"name": "Stars", "practice_groups": 5, "practice_right": 6})
    assert answer.status_code == 400 and "more than the 5 groups" in answer.content.decode()
