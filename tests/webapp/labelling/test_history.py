"""Whoever follows the history of labels comes to what the database has: nothing is missed, nothing comes late."""

import random
import threading
import time

import pytest
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.webapp import acting
from tests.webapp.conftest import make_ready
from webapp.accounts.models import User
from webapp.campaigns.models import Membership, Role
from webapp.campaigns.services import create_project
from webapp.exports.records import Filter, records
from webapp.labelling import decisions, history, scoring
from webapp.labelling.models import Cause, GroupState, Label, LabelEvent
from webapp.quality import services as quality


class Reader:
    """Keeps what the newest entry of each image and labeller says, as docs/api.md tells programs to."""

    def __init__(self, project, limit=7):
        self.project, self.limit, self.after = project, limit, 0
        self.labels, self.words, self.changes = {}, {}, []

    def read(self):
        following = self.after
        while following is not None:
            found, following = history.changes(self.project, after=self.after, limit=self.limit)
            for event in found:
                assert event.number > self.after and event.project_id == self.project.pk
                self.after = event.number
                self.changes.append(event.change)
                kept = self.words if event.change == "overruled" else self.labels
                kept[event.generation_id, event.annotator_id, event.oracle] = event.liked
        return {key: liked for key, liked in self.labels.items() if liked is not None}


def there(project):
    """The labels that count."""
    rows = Label.objects.filter(generation__group__project=project).exclude(generation__group__state=GroupState.FLAGGED)
    return {(v.generation_id, v.annotator_id, v.oracle): v.liked for v in rows}


def a_project(slug, groups, tmp_path, size=2, people=1, **fields):
    prompts = [{"prompt": f"{n} stars"} for n in range(4)]
    paths = {"model_dir": str(tmp_path), "student_dir": str(tmp_path)}
    project = create_project(slug, slug, prompts=prompts, group_size=size, **paths, **fields)
    members = [User.objects.create_user(f"{slug}-{n}") for n in range(people)]
    Membership.objects.bulk_create(Membership(user=u, project=project, role=Role.ADMIN) for u in members)
    return project, members, make_ready(project, groups)


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer at a time")
def test_what_is_committed_late_is_read_late(tmp_path):
    """Ids are given before the commit: the first label is committed last."""
    project, (user,), (first, second) = a_project("late", 2, tmp_path)
    written, read = threading.Event(), threading.Event()

    def slow():
        with transaction.atomic():
            acting.submit(user, project, first, [1, 0])
            written.set()
            read.wait(20)
        connection.close()

    thread = threading.Thread(target=slow)
    thread.start()
    assert written.wait(20)
    other = User.objects.create_user("quick")
    acting.submit(other, project, second, [0, 1])
    reader = Reader(project)
    assert {key[1] for key in reader.read()} == {other.pk}
    read.set()
    thread.join()
    assert reader.read() == there(project) and len(reader.changes) == 4


@pytest.mark.django_db(transaction=True)
def test_six_people_and_two_readers_at_once(tmp_path):
    """People label, undo and label again, some flag, while two programs follow."""
    project, people, groups = a_project("six", 12, tmp_path, people=6, overlap=6)
    errors, start, done = [], threading.Barrier(len(people) + 2), threading.Event()

    def rate(user):
        rng = random.Random(user.pk)
        try:
            start.wait()
            for group in rng.sample(groups, len(groups)):
                for again in range(2):
                    key, answer = f"{group.pk}-{again}", {n: rng.random() < 0.5 for n in range(2)}
                    acting.submit_group(user, project, group.pk, answer, seconds=1, idempotency_key=key)
                    if again or rng.random() < 0.5:
                        break
                    time.sleep(rng.random() / 100)
                    decisions.undo(user, project, key)
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    def follow(reader):
        try:
            start.wait()
            while not done.is_set():
                reader.read()
                time.sleep(0.01)
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    readers = [Reader(project), Reader(project, limit=3)]
    writing = [threading.Thread(target=rate, args=(u,)) for u in people]
    reading = [threading.Thread(target=follow, args=(r,)) for r in readers]
    for thread in writing + reading:
        thread.start()
    for thread in writing:
        thread.join()
    done.set()
    for thread in reading:
        thread.join()
    assert errors == []
    assert len(there(project)) == 6 * 12 * 2
    for reader in readers:
        assert reader.read() == there(project)
        assert len(reader.changes) == LabelEvent.objects.count()
        assert reader.changes.count("undone") == LabelEvent.objects.filter(liked=None).count() > 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "undo", "flag", "keep", "remove", "score", "overrule", "read"]),
        st.integers(0, 1),
        st.integers(0, 1),
        st.integers(0, 3),
    ),
    min_size=4,
    max_size=14,
)


@settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
@pytest.mark.django_db
def test_any_course_of_events_can_be_followed(steps, tmp_path_factory):
    with transaction.atomic():
        project, people, groups = a_project("any", 2, tmp_path_factory.mktemp("any"), people=2, overlap=2)
        reader = Reader(project)
        for number, (what, who, which, bits) in enumerate(steps):
            user, group, likes = people[who], groups[which], [bits & 1, bits >> 1]
            try:
                with transaction.atomic():
                    _do(what, user, project, group, likes, str(number))
            except (decisions.LabellingError, ValueError):
                pass  # as the people's own pages would be told
            if what == "read":
                assert reader.read() == there(project)
        assert reader.read() == there(project)
        exported = {
            (image.id, label.liked)
            for group in records(project, Filter())
            for image in group.images
            for label in image.labels
        }
        assert exported == {(key[0], liked) for key, liked in reader.read().items()}
        transaction.set_rollback(True)


def _do(what, user, project, group, likes, key):
    match what:
        case "submit":
            answer = {n: bool(v) for n, v in enumerate(likes)}
            acting.submit_group(user, project, group.pk, answer, seconds=1, idempotency_key=key)
        case "undo":
            decisions.undo(user, project)
        case "flag":
            acting.flag_group(user, project, group.pk, kind="broken", position=None, idempotency_key=key)
        case "keep" | "remove":
            decisions.resolve_flags(user, project, group.pk, restore=what == "keep")
        case "score":
            verdicts = [{"score": 0.25 + 0.5 * v, "liked": bool(v), "reason": ""} for v in likes]
            scoring.record_oracle_labels(group.pk, "scenes", verdicts)
        case "overrule":
            image = group.generations.first()
            quality.overrule(user, project, {image.pk: bool(likes[0])}, "look again")


def test_flags_and_reviewers_words_are_entries(project, ready, ann, boss):
    (group,) = ready()
    reader = Reader(project)
    acting.submit(ann, project, group, [1, 0, 0, 1])
    acting.flag_group(boss, project, group.pk, kind="broken", position=None, idempotency_key="f")
    assert len(reader.read()) == 4  # until a reviewer has looked
    decisions.resolve_flags(boss, project, group.pk, restore=False)
    assert reader.read() == {} and reader.changes == ["labelled"] * 4 + ["left_out"] * 4
    decisions.undo(boss, project)
    image = group.generations.first()
    quality.overrule(boss, project, {image.pk: False}, "look again")
    quality.overrule(boss, project, {image.pk: None}, "sorry")
    reader.read()
    assert reader.words == {(image.pk, boss.pk, ""): None}


def test_pages_and_people_can_be_left_out(project, ready, ann, boss, monkeypatch):
    monkeypatch.setattr(history, "BATCH", 3)
    first, second = ready(2)
    for user in (ann, boss):
        for group in (first, second):
            acting.submit(user, project, group, [1, 0, 0, 1])
    reader = Reader(project, limit=2)
    assert reader.read() == there(project) and len(reader.changes) == 16
    mine, after = [], 0
    while after is not None:
        found, after = history.changes(project, after=after, limit=3, annotators=[boss.pk])
        mine += found
    assert len(mine) == 8 and {event.annotator_id for event in mine} == {boss.pk}


def test_nobody_reads_anothers_project(project, ready, ann, tmp_path):
    other, (user,), (theirs,) = a_project("other", 1, tmp_path)
    (mine,) = ready()
    acting.submit(user, other, theirs, [1, 0])
    acting.submit(ann, project, mine, [1, 0, 0, 1])
    assert {key[1] for key in Reader(project).read()} == {ann.pk}
    assert {key[1] for key in Reader(other).read()} == {user.pk}


@pytest.mark.django_db(transaction=True)
def test_labels_of_before_get_entries(tmp_path):
    project, (user, late), (first, second, third) = a_project("old", 3, tmp_path, people=2)
    acting.submit(user, project, first, [1, 0])
    scoring.record_oracle_labels(
        second.pk, "scenes", [{"score": s, "liked": s > 0.5, "reason": ""} for s in (0.9, 0.2)]
    )
    acting.submit(user, project, third, [1, 1])
    acting.flag_group(late, project, third.pk, kind="broken", position=None, idempotency_key="f")
    decisions.resolve_flags(late, project, third.pk, restore=False)
    quality.overrule(late, project, {first.generations.first().pk: False}, "look again")
    before = there(project)
    executor = MigrationExecutor(connection)
    try:
        LabelEvent.objects.filter(generation__group=first).delete()
        LabelEvent.objects.exclude(cause="").delete()
        executor.migrate([("labelling", "0006_tasks")])
    finally:
        MigrationExecutor(connection).migrate(MigrationExecutor(connection).loader.graph.leaf_nodes())
    reader = Reader(project)
    assert reader.read() == before and len(before) == 4
    assert list(reader.words.values()) == [False]
    assert sorted(LabelEvent.objects.exclude(oracle="").values_list("score", flat=True)) == [0.2, 0.9]
    assert LabelEvent.objects.filter(cause=Cause.FLAGGED).count() == 2
