"""Queries that are compiled once answer as Django's do, with the values of each call and the rows of that moment."""

import asyncio

import pytest
from django.db import NotSupportedError, connection, transaction
from django.db.backends.postgresql import base
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.servers import wait_for
from tests.webapp import acting
from webapp.campaigns.models import Membership
from webapp.labelling.models import Label, Lease, Tally
from webapp.lib.prepared import ask, ask_for, insert, read, run, together
from webapp.quality.models import Consensus


def members(user, slug):
    return Membership.objects.filter(user=user, project__slug=slug).select_related("project")


def test_each_call_has_its_own_values(project, person, django_assert_num_queries):
    ann, bob = person("ann"), person("bob")
    for user in (ann, bob, ann):
        with django_assert_num_queries(1):
            (found,) = ask("members", members, user=user.pk, slug="stars")
            assert (found.user_id, found.project) == (user.pk, project)
    assert ask("members", members, user=ann.pk, slug="moons") == []
    Membership.objects.filter(user=ann).update(role="admin")
    assert ask("members", members, user=ann.pk, slug="stars")[0].role == "admin"  # nothing is kept of the rows


def test_days_moments_and_lists(project, ann, ready):
    group, other = ready(2)
    acting.submit(ann, project, group, [1, 0, 0, 1])
    today = timezone.localdate()
    assert len(ask("tallies", lambda day: Tally.objects.filter(day=day), day=today)) == 1
    now = timezone.now()
    assert len(ask("labels", lambda now: Label.objects.filter(created_at__lt=now), now=now)) == 4
    for groups, n in (([group.pk], 4), ([other.pk], 0), ([other.pk, group.pk], 4)):
        assert len(ask_for("of", lambda ids: Label.objects.filter(generation__group__in=ids), groups)) == n


def test_a_value_that_the_query_does_not_ask_for_is_an_error(project):
    with pytest.raises(ValueError, match="slug"):
        ask("forgotten", lambda user, slug: Membership.objects.filter(user=user), user=1, slug="stars")


def test_rows_are_inserted_with_their_numbers_and_replaced(project, ann, ready):
    (group,) = ready()
    images = list(group.generations.all())
    labels = [Label(generation=image, annotator=ann, liked=True) for image in images]
    insert(labels)
    assert list(Label.objects.order_by("pk").values_list("pk", "generation")) == [
        (v.pk, v.generation_id) for v in labels
    ]
    for people in (1, 2):
        row = Consensus(
            group=group, project=project, rewards=[1], signal=False, people=people, labelled_at=timezone.now()
        )
        insert([row], over=["group"])
    assert Consensus.objects.get().people == 2
    insert([])


ON_POSTGRESQL = pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite keeps no statements by name")
LIKED = "UPDATE labelling_label SET liked = %(liked)s WHERE id = %(label)s RETURNING id, liked"


def test_a_row_that_is_there_has_only_what_is_named_replaced(ann, ready):
    (group,) = ready()
    now = timezone.now()
    for task, decided in (("a", True), ("b", False)):
        row = Lease(group=group, user=ann, task=task, decided=decided, expires_at=now)
        insert([row], over=["group", "user"], replaced=["task"])
    assert Lease.objects.values_list("task", "decided").get() == ("b", True)


def test_what_is_done_together_is_kept_in_its_order(project, ann, ready):
    (group,) = ready()
    acting.submit(ann, project, group, [1, 0, 0, 1])
    label = Label.objects.order_by("id").first()
    with CaptureQueriesContext(connection) as asked, together() as sent:
        for liked in (False, True, False):
            assert run(LIKED, label=label.pk, liked=liked) == 0
        assert read("SELECT liked FROM labelling_label WHERE id = %(label)s", label=label.pk) == [(True,)]  # not yet
    assert sent.rows == [(label.pk, False)]
    assert len(asked) == (2 if connection.vendor == "postgresql" else 4)
    label.refresh_from_db()
    assert label.liked is False

    def fail_half_way():
        with together():
            run(LIKED, label=label.pk, liked=True)
            run(LIKED, label=label.pk)

    with pytest.raises(KeyError):
        fail_half_way()
    assert Label.objects.get(pk=label.pk).liked is False
    assert run(LIKED, label=label.pk, liked=False) == 1
    with together() as sent:
        pass
    assert sent.rows == []


def test_text_with_signs_that_mean_something_to_sql(project, ann):
    for text in ("100%", "%s", "it's; EXECUTE", "$1"):
        with together():
            run("UPDATE campaigns_project SET name = %(name)s WHERE id = %(project)s", name=text, project=project.pk)
        project.refresh_from_db()
        assert project.name == text


@ON_POSTGRESQL
@pytest.mark.django_db(transaction=True)
def test_statements_survive_a_new_connection_and_a_column_that_changes(project, ann):
    def asked():
        return ask("members", members, user=ann.pk, slug="stars")

    assert len(asked()) == 1
    connection.close()
    assert len(asked()) == 1
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")  # as a pooler may
    with pytest.raises(Exception, match="does not exist"):
        asked()
    assert len(asked()) == 1
    change = "ALTER TABLE campaigns_project ALTER COLUMN name TYPE varchar({})"
    try:
        with connection.cursor() as cursor:
            cursor.execute(change.format(130))
        assert len(asked()) == 1  # as a migration does while this version still serves
        with connection.cursor() as cursor:
            cursor.execute(change.format(140))
        with pytest.raises(NotSupportedError), transaction.atomic():  # the transaction is lost, as with any error
            asked()
        assert len(asked()) == 1
    finally:
        with connection.cursor() as cursor:
            cursor.execute(change.format(120))


@ON_POSTGRESQL
@pytest.mark.django_db(transaction=True)
def test_a_connection_that_the_server_ended_is_noticed_without_asking_it(project, ann, monkeypatch):
    assert len(ask("members", members, user=ann.pk, slug="stars")) == 1
    with monkeypatch.context() as patched:
        patched.setattr(base.DatabaseWrapper, "is_usable", None)  # Django's, which asks
        assert connection.is_usable()
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [connection.connection.info.backend_pid])
    other.close()
    assert wait_for(lambda: not connection.is_usable(), 20)
    connection.errors_occurred = True  # as the health check at the start of a request does
    connection.close_if_unusable_or_obsolete()
    assert len(ask("members", members, user=ann.pk, slug="stars")) == 1


@pytest.mark.django_db(transaction=True)
def test_a_threads_connection_inside_of_an_event_loop_is_another_one(project, person):
    """What a thread asks inside of a running loop goes over a connection of that loop, with names of its own."""
    ann = person("ann")

    def asked():
        return [found.user_id for found in ask("by turns", members, user=ann.pk, slug="stars")], connection.connection

    async def inside():
        try:
            return [asked() for _ in range(2)], ask("only inside", members, user=ann.pk, slug="stars")
        finally:
            connection.close()

    before, outside = asked()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        (first, second), alone = asyncio.run(inside())
    assert before == first[0] == second[0] == asked()[0] == [ann.pk]
    assert first[1] is second[1] is not outside is asked()[1]
    assert [found.user_id for found in alone + ask("only inside", members, user=ann.pk, slug="stars")] == [ann.pk] * 2
