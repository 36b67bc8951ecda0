"""Migrations can run on a live database: the old version goes on working, and nobody waits behind them."""

import threading
import time

import psycopg2
import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django_migration_linter import MigrationLinter

from tests.servers import database_url
from webapp.operations import services

APPS = ["accounts", "campaigns", "imports", "labelling", "quality", "raters", "rounds", "api", "operations"]
# Of before the first release: no old version can meet them.
EARLY = ["0002_initial", "0004_prompt_shown", "0005_hour_costs_and_first_label", "0007_quarter_counts"]
# Their constraint takes the place of a narrower one, so all that is there and all that the old version writes fit.
WIDER = ["0020_sizes_and_input_images"]

postgres_only = pytest.mark.skipif(
    connection.vendor != "postgresql", reason="SQLite takes one writer at a time, whatever it changes"
)


@postgres_only
@pytest.mark.django_db
def test_the_old_version_works_until_it_is_replaced(capsys):
    linter = MigrationLinter(no_cache=True, include_apps=APPS, ignore_name=EARLY + WIDER)
    linter.lint_all_migrations()
    said = capsys.readouterr().out
    assert linter.nb_valid + linter.nb_warnings > 10, said
    assert not linter.has_errors, f"give new columns a db_default, and drop or rename nothing in use:\n{said}"


@postgres_only
@pytest.mark.django_db(transaction=True)
def test_a_migration_that_waits_for_a_table_lets_others_pass(monkeypatch):
    executor = MigrationExecutor(connection)
    executor.migrate([("labelling", "0002_annotators"), ("quality", "0001_initial")])
    monkeypatch.setattr(services, "LOCK_WAIT", 0.4)
    asked, read = "SELECT count(*) FROM labelling_groupdecision", []
    holder, reader = psycopg2.connect(database_url()), psycopg2.connect(database_url())
    holder.cursor().execute(asked)  # an export of minutes, for example

    def read_and_let_go():
        cursor = reader.cursor()
        cursor.execute("SET statement_timeout = 3000")
        try:
            for _ in range(4):
                time.sleep(0.5)
                cursor.execute(asked)
                read.append(cursor.fetchone())
                reader.commit()
        except psycopg2.errors.QueryCanceled:
            pass  # waited behind the migration
        finally:
            holder.rollback()

    thread = threading.Thread(target=read_and_let_go)
    try:
        thread.start()
        services.migrate()
        thread.join()
    finally:
        holder.close()
        reader.close()
        MigrationExecutor(connection).migrate(MigrationExecutor(connection).loader.graph.leaf_nodes())
    assert len(read) == 4, "somebody waited behind the migration"
    executor = MigrationExecutor(connection)
    assert executor.migration_plan(executor.loader.graph.leaf_nodes()) == []
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("0",)
