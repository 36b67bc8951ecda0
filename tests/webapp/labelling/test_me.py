"""A person's own numbers, their language, and images at the size of the page."""

import io
import json
from datetime import UTC, datetime

import pytest
from django.utils import timezone
from PIL import Image

from tests.webapp import acting
from tests.webapp.conftest import make_ready
from webapp.campaigns.models import Role
from webapp.labelling import errors, guidelines, queries
from webapp.labelling.models import Tally
from webapp.lib import options


def submit(user, project, group, likes, seconds=8.0):
    answer = {i: i in likes for i in range(group.size)}
    acting.submit_group(user, project, group.pk, answer, seconds=seconds, idempotency_key=f"{user.pk}-{group.pk}")


def test_it_shows_today_pace_and_agreement(client, ann, person, project, ready, monkeypatch):
    monkeypatch.setattr(queries, "BLOCK", 1)
    project.overlap = 3
    project.save()
    first, second = ready(2)
    bob, cat = person("bob"), person("cat")
    submit(ann, project, first, {0, 1}, seconds=8)
    submit(ann, project, second, {0}, seconds=4)
    acting.an_hour_passes()
    assert queries.agreement(ann, project) is None
    submit(bob, project, first, {0})
    assert queries.agreement(ann, project) is None
    acting.an_hour_passes()
    assert queries.agreement(ann, project) == {"groups": 1, "share": 0.75}
    submit(cat, project, first, {1})  # now two images are a tie between the others
    acting.an_hour_passes()
    assert queries.agreement(ann, project) == {"groups": 1, "share": 1.0}
    assert queries.pace(ann, project) == 1.5
    client.force_login(ann)
    html = client.get("/p/stars/me/").content.decode()
    assert "<b>2</b><span>groups today" in html
    assert "1.5 s" in html and "100 %" in html
    assert "no quota and no ranking" in html


def test_nobody_reads_anothers_numbers(client, ann, person, project, ready):
    (group,) = ready()
    submit(ann, project, group, {0})
    client.force_login(person("rev", Role.REVIEWER))
    assert "<b>0</b><span>groups today" in client.get("/p/stars/me/").content.decode()


def test_the_language_is_kept_in_the_browser(client, ann, project):
    client.force_login(ann)
    assert client.post("/p/stars/me/language/", {"language": "de"}).status_code == 302
    assert '<html lang="de">' in client.get("/p/stars/me/").content.decode()
    assert client.post("/p/stars/me/language/", {"language": "xx"}).status_code == 400


@pytest.mark.parametrize(("asked", "width"), [("256", 256), ("512", 300), ("9", 300), ("x", 300), ("", 300)])
def test_images_come_at_the_asked_size_and_are_kept_by_the_browser_alone(client, ann, project, asked, width):
    (group,) = make_ready(project, 1, pixels=300)
    acting.give(ann, group.pk)
    client.force_login(ann)
    for _ in range(2):
        answer = client.get(f"/p/stars/groups/{acting.task(ann, group)}/0.webp", {"w": asked})
        image = Image.open(io.BytesIO(answer.content))
        assert (image.format, image.size) == ("WEBP", (width, width))
        assert answer["Cache-Control"] == "private, max-age=604800, immutable"


def test_the_list_of_groups_is_never_cached(client, ann, project, ready):
    client.force_login(ann)
    cache = client.get("/p/stars/groups/next/")["Cache-Control"]
    assert "no-store" in cache and "private" in cache


def test_examples_are_chosen_by_reviewers_and_seen_beside_the_work(client, ann, person, project, ready):
    (group,) = ready()
    submit(ann, project, group, {0})
    image = group.generations.get(position=0)
    new = {"image": image.pk, "good": "yes", "note": "<b>clean</b> edges"}
    client.force_login(ann)
    assert client.post("/p/stars/guidelines/", new).status_code == 404
    client.force_login(person("rev", Role.REVIEWER))
    assert f'name="image" value="{image.pk}"' in client.get("/p/stars/guidelines/").content.decode()
    assert client.post("/p/stars/guidelines/", new).status_code == 302
    client.post("/p/stars/guidelines/", {"image": 10**9, "good": "yes"})
    client.force_login(ann)
    html = client.get("/p/stars/annotate/").content.decode()
    assert f"guidelines/{image.example.pk}.webp?w=256" in html and "&lt;b&gt;clean" in html
    client.force_login(person("rev2", Role.REVIEWER))
    client.post("/p/stars/guidelines/", {"remove": image.example.pk})
    assert not queries.examples(project)


def test_a_small_image_asked_for_by_many_at_once_is_made_once_and_whole(project):
    from concurrent.futures import ThreadPoolExecutor

    from webapp.labelling import pictures

    (group,) = make_ready(project, 1, pixels=600)
    generation = group.generations.first()
    with ThreadPoolExecutor(8) as pool:
        files = set(pool.map(lambda _: pictures.read_at(generation, "256"), range(24)))
    assert len(files) == 1
    assert Image.open(io.BytesIO(files.pop())).size == (256, 256)


def test_a_day_begins_at_midnight_where_the_browser_is(client, ann, project, ready, monkeypatch):
    late = datetime(2026, 3, 10, 23, 30, tzinfo=UTC)
    monkeypatch.setattr(timezone, "now", lambda: late)
    first, second, third = ready(3)
    client.force_login(ann)

    def send(group, zone):
        client.cookies["time_zone"] = zone
        acting.give(ann, group.pk)
        body = json.dumps({"labels": dict.fromkeys("0123", True), "key": f"{group.pk}"})
        return client.post(
            f"/p/stars/groups/{acting.task(ann, group)}/submit/", body, content_type="application/json"
        ).json()["today"]

    assert send(first, "America/New_York") == {"groups": 1, "images": 4}
    assert send(second, "Europe%2FBerlin") == {"groups": 1, "images": 4}  # half past midnight there
    assert send(third, "Mars/Phobos") == {"groups": 2, "images": 8}  # nowhere: UTC
    days = [str(t.day) for t in Tally.objects.order_by("day")]
    assert days == ["2026-03-10", "2026-03-11"]
    # Taken back on the day it was counted in, wherever the browser is by then.
    client.cookies["time_zone"] = "America/New_York"
    body = json.dumps({"key": f"{second.pk}"})
    assert client.post("/p/stars/undo/", body, content_type="application/json").json()["today"]["groups"] == 2
    assert [t.groups for t in Tally.objects.order_by("day")] == [2, 0]


def test_examples_are_no_more_than_people_look_at(project, ready, monkeypatch):
    (group,) = ready()
    first, second = group.generations.all()[:2]
    monkeypatch.setattr(options, "EXAMPLES", 1)
    guidelines.add_example(project, first.pk, good=True, note="")
    guidelines.add_example(project, first.pk, good=False, note="changed")
    with pytest.raises(errors.LabellingError, match=r"examples: there are 1, .* remove one first"):
        guidelines.add_example(project, second.pk, good=True, note="")
