"""What a member cannot learn or change: what others said, which groups are gold, groups they never had."""

import random
import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.webapp import acting
from tests.webapp.conftest import make_ready
from webapp.campaigns.models import Role
from webapp.labelling import decisions, errors, leases, pictures, queries
from webapp.labelling.models import Flag, Group, GroupDecision, Lease
from webapp.lib import options, paths, storage
from webapp.quality import services as quality
from webapp.rounds.models import ModelVersion
from webapp.rounds.services import publish_version

LIKES = {0: True, 1: False, 2: False, 3: True}
LABELS = {str(k): v for k, v in LIKES.items()}
BODIES = {
    "submit": {"labels": LABELS, "key": "k"},
    "skip": {"reason": "", "key": "k"},
    "flag": {"kind": "broken", "position": None, "key": "k"},
}


# ---------------------------------------------------------------- only what they were given


@pytest.mark.parametrize("path", BODIES)
def test_nobody_decides_on_a_group_they_were_never_given(client, ann, person, project, ready, path):
    (group,) = ready()
    acting.give(person("bob"), group.pk)
    client.force_login(ann)
    for name in (group.pk, acting.task(ann, group), acting.task(person("cat"), group)):
        answer = client.post(f"/p/stars/groups/{name}/{path}/", BODIES[path], content_type="application/json")
        assert answer.status_code == 400 and "ask for the next group" in answer.json()["error"]
    calls = {
        "submit": lambda: decisions.submit_group(ann, project, group.pk, LIKES, seconds=1, idempotency_key="k"),
        "skip": lambda: decisions.skip_group(ann, project, group.pk, reason="", idempotency_key="k"),
        "flag": lambda: decisions.flag_group(ann, project, group.pk, kind="broken", position=None, idempotency_key="k"),
    }
    with pytest.raises(errors.NotGiven):
        calls[path]()
    assert not GroupDecision.objects.exists() and not Flag.objects.exists()


def test_a_lease_that_ran_out_still_lets_the_answer_in_and_it_may_be_sent_again(post, ready, ann, person, project):
    (group,) = ready()
    leases.lease_groups(ann, project)
    Lease.objects.update(expires_at=timezone.now())
    acting.submit_group(person("bob"), project, group.pk, LIKES, seconds=1, idempotency_key="b")
    for _ in range(2):
        assert post(f"groups/{group.pk}/submit/", BODIES["submit"]).status_code == 200
    assert post("undo/", {"key": "k"}).json()["group"]["group"] == acting.task(ann, group)


def test_what_somebody_left_comes_back_to_them_first_gold_or_not(project, ready, ann):
    gold = ready(4)[0]
    make_gold(project, gold)
    project.gold_rate = 0.5
    project.save()
    always = random.Random(1)
    always.random = lambda: 0.0
    first = leases.lease_groups(ann, project, 1, rng=always)
    first += leases.lease_groups(ann, project, 2)[1:]
    assert first[0] == gold and len(first) == 2
    Lease.objects.update(expires_at=timezone.now())
    project.gold_rate = 0
    assert leases.lease_groups(ann, project, 2) == first


# ---------------------------------------------------------------- what others said


def make_gold(project, group):
    """Somebody rated the group, and a reviewer made it gold."""
    from webapp.accounts.models import User

    maker, _new = User.objects.get_or_create(username="maker")
    acting.submit_group(maker, project, group.pk, LIKES, seconds=1, idempotency_key=f"m{group.pk}")
    group.refresh_from_db()
    quality.make_gold(group, "review", LIKES)


def test_agreement_tells_nothing_of_a_single_group(project, ready, ann, person):
    """Answer, read, undo, change one image, read again: the number stays, and it moves with whole blocks only."""
    groups, bob = ready(2 * queries.BLOCK + 1), person("bob")
    project.overlap = 2
    project.save()
    for group in groups:
        acting.submit_group(bob, project, group.pk, LIKES, seconds=1, idempotency_key=f"{group.pk}")
    acting.an_hour_passes()
    shown = []
    for n, group in enumerate(groups):
        for position in range(2):
            answer = LIKES if n % 2 else LIKES | {position: not LIKES[position]}
            acting.submit_group(ann, project, group.pk, answer, seconds=1, idempotency_key=f"{n}-{position}")
            shown.append(queries.agreement(ann, project))
            if position == 0:
                decisions.undo(ann, project)
    assert set(shown) == {None}  # they can all be undone
    acting.an_hour_passes()
    assert queries.agreement(ann, project) == {"groups": 2 * queries.BLOCK, "share": pytest.approx(0.9)}  # 0.875
    one = GroupDecision.objects.filter(user=ann)
    one.filter(group__in=groups[: 2 * queries.BLOCK - 1]).update(created_at=timezone.now())
    assert queries.agreement(ann, project) is None


# ---------------------------------------------------------------- flags


def test_open_flags_are_bounded_by_person_and_hour(post, ready, monkeypatch, ann, person, project):
    monkeypatch.setattr(options, "FLAGS_PER_HOUR", 2)
    groups = ready(4)
    body = BODIES["flag"]
    statuses = [post(f"groups/{g.pk}/flag/", {**body, "key": f"{g.pk}"}).status_code for g in groups[:3]]
    assert statuses == [200, 200, 400]
    answer = post(f"groups/{groups[2].pk}/flag/", {**body, "key": "x"}).json()
    assert answer["error"].startswith("flag: you flagged 2 groups within an hour; skip this one")
    assert post(f"groups/{groups[2].pk}/skip/", {"reason": "", "key": "y"}).status_code == 200
    decisions.resolve_flags(person("rev", Role.REVIEWER), project, groups[0].pk, restore=True)
    assert post(f"groups/{groups[3].pk}/flag/", {**body, "key": "z"}).status_code == 200


def test_a_flag_on_a_finished_group_takes_no_labels_out_until_a_reviewer_has_looked(post, ready, person, project):
    (group,) = ready()
    acting.submit_group(person("bob"), project, group.pk, LIKES, seconds=1, idempotency_key="b")
    assert post(f"groups/{group.pk}/flag/", BODIES["flag"]).status_code == 200
    assert queries.labelled_groups(project).get() == group
    assert queries.flagged_groups(project).get() == group
    decisions.resolve_flags(person("rev", Role.REVIEWER), project, group.pk, restore=False)
    assert not queries.labelled_groups(project).exists()


def test_an_unsafe_image_is_shown_to_nobody_but_reviewers(client, post, ready, ann, person, project):
    (group,) = ready()
    bob = person("bob")
    for user in (ann, bob):
        acting.give(user, group.pk)
    post(f"groups/{group.pk}/flag/", {**BODIES["flag"], "kind": "unsafe"})
    for user in (ann, bob):
        client.force_login(user)
        assert client.get(f"/p/stars/groups/{acting.task(user, group)}/0.webp").status_code == 404
    client.force_login(person("rev", Role.REVIEWER))
    assert client.get(f"/p/stars/images/{group.generations.first().pk}.webp").status_code == 200


# ---------------------------------------------------------------- which groups are gold


@pytest.fixture
def mixed(project, ready, ann):
    """Old gold groups and ordinary ones of a newer version: {task: whether it is gold} of those that ann was given, and
    what the page was told."""
    gold = ready(6)
    for group in gold:
        make_gold(project, group)
    version = ModelVersion.objects.create(project=project, number=2, path="versions/2")
    publish_version(project, version.pk)
    project.refresh_from_db()
    make_ready(project, 12)
    project.gold_rate = 0.5
    project.save()
    known = {acting.task(ann, g): g in gold for g in Group.objects.all()}
    return lambda told: {g["group"]: known[g["group"]] for g in told}


def given(client, count):
    """What the page is told of the next groups, each answered before the next is asked for."""
    told = []
    while len(told) < count:
        for group in client.get("/p/stars/groups/next/").json()["groups"]:
            told.append(group)
            body = {"labels": LABELS, "key": group["group"]}
            path = f"/p/stars/groups/{group['group']}/submit/"
            assert client.post(path, body, content_type="application/json").status_code == 200
    return told


def test_a_group_is_told_by_an_opaque_name_and_nothing_that_tells_gold(client, ann, mixed):
    client.force_login(ann)
    told = given(client, 12)
    assert len(set(mixed(told).values())) == 2  # there was gold among them
    assert {frozenset(g) for g in told} == {frozenset({"group", "prompt", "images", "input"})}
    assert {frozenset(i) for g in told for i in g["images"]} == {frozenset({"position", "url", "width", "height"})}
    for group in told:
        assert re.fullmatch("[0-9a-f]{32}", group["group"])
        assert [i["url"] for i in group["images"]] == [f"/p/stars/groups/{group['group']}/{n}.webp" for n in range(4)]


def test_a_group_has_another_name_for_another_person(ann, person, ready):
    (group,) = ready()
    assert acting.task(ann, group) != acting.task(person("bob"), group)


def test_while_an_update_runs_the_old_versions_leases_know_their_groups_by_number(client, ann, person, ready):
    groups, until = ready(2), timezone.now() + timedelta(minutes=5)
    for group in groups:
        Lease.objects.create(group=group, user=ann, expires_at=until)  # the columns that there were
    client.force_login(ann)
    told = client.get("/p/stars/groups/next/").json()
    assert [g["group"] for g in told["groups"]] == told["held"] == [str(g.pk) for g in groups]
    assert client.get(told["groups"][0]["images"][0]["url"]).status_code == 200
    path = f"/p/stars/groups/{groups[0].pk}/submit/"
    assert client.post(path, BODIES["submit"], content_type="application/json").status_code == 200
    client.force_login(person("bob"))
    assert client.get(told["groups"][1]["images"][0]["url"]).status_code == 404


def test_the_names_are_in_no_order(ann, project):
    names = [leases.task_name(ann.pk, n) for n in range(200)]
    assert names != sorted(names) and len({name[:1] for name in names}) == 16


def test_a_reload_shows_the_same_order_wherever_gold_is(client, ann, mixed):
    client.force_login(ann)
    for _ in range(6):
        told = client.get("/p/stars/groups/next/").json()
        again = client.get("/p/stars/groups/next/").json()
        assert again == told and told["held"] == [g["group"] for g in told["groups"]]
        path = f"/p/stars/groups/{told['groups'][0]['group']}/skip/"
        client.post(path, {"reason": "", "key": path[-38:-6]}, content_type="application/json")


def test_answers_about_gold_take_the_same_queries_headers_and_bytes(client, ann, mixed, project):
    """What takes time is what is asked of the database and the files; both are the same for every group."""
    client.force_login(ann)
    acting.submit_group(ann, project, make_ready(project, 1)[0].pk, LIKES, seconds=1, idempotency_key="first")
    seen = {True: [], False: []}

    def ask(method, path, **values):
        with CaptureQueriesContext(connection) as asked:
            answer = getattr(client, method)(path, **values)
        assert answer.status_code == 200, path
        return len(asked), sorted(set(answer.headers) - {"Content-Length"}), answer.headers.get("Cache-Control")

    for _ in range(10):
        _queries, *headers = ask("get", "/p/stars/groups/next/")  # counted below, with known dice
        told = client.get("/p/stars/groups/next/").json()["groups"]
        group, is_gold = told[0], mixed(told)[told[0]["group"]]
        path = f"/p/stars/groups/{group['group']}"
        work = [ask("get", f"{path}/1.webp")]
        for n, (kind, body) in enumerate(BODIES.items()):
            body = {**body, "key": f"{group['group'][:16]}-{n}"}
            work.append(ask("post", f"{path}/{kind}/", data=body, content_type="application/json"))
            work.append(ask("post", "/p/stars/undo/", data={"key": body["key"]}, content_type="application/json"))
        client.post(f"{path}/skip/", {"reason": "", "key": group["group"]}, content_type="application/json")
        seen[is_gold].append((headers, work))
    assert seen[True] and seen[False]
    assert len({str(work) for works in seen.values() for work in works}) == 1


def test_whether_gold_is_among_the_next_groups_changes_no_query(ann, mixed, project):
    counts = set()
    for roll in (0.0, 0.99):
        Lease.objects.all().delete()
        rng = random.Random(1)
        rng.random = lambda roll=roll: roll
        with CaptureQueriesContext(connection) as asked:
            groups = leases.lease_groups(ann, project, 3, rng=rng)
        assert len(groups) == 3 and all((g.version.number == 1) == (roll == 0.0) for g in groups)
        counts.add(len(asked) - 1)
    assert len(counts) == 1


def test_small_images_are_there_before_anybody_looks(project):
    """Else the first look at an ordinary group would take longer than one at gold, which others have seen."""
    from PIL import Image

    name = paths.image(project.pk, 1, 0)
    pictures.write(name, Image.new("RGB", (600, 600), (40, 200, 120)))
    there = [width for width in pictures.WIDTHS if storage.store().exists(paths.small_image(name, width))]
    assert there == [256, 512]
