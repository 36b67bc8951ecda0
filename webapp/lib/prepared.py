"""Queries that are asked all the time: Django makes their SQL and PostgreSQL plans them once a connection.

Making SQL of a queryset takes Django longer than PostgreSQL takes to answer it, and planning a query longer than finding
its few rows. `ask` does the first once, with stand-ins for the values, and from then on puts the values into their places;
PostgreSQL keeps the statement by a name (PREPARE, EXECUTE). Rows are read anew each time: nothing is kept of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

from django.db import DEFAULT_DB_ALIAS, NotSupportedError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field, Model, QuerySet
from django.db.models.query import FlatValuesListIterable, ValuesIterable, get_related_populators
from django.db.models.sql.compiler import SQLCompiler

# Stand-ins: small enough for the smallest column, and nothing that a query says by itself.
NUMBER, MOMENT = 31_000, datetime(1971, 3, 5, 7, 11, 13, tzinfo=UTC)
KEPT_ROWS = 64  # an insert of more is made anew each time: there would be a statement for each number of rows
_numbers = count(1)


class _Names:
    """The statements that a PostgreSQL connection (`link`, psycopg2's) knows by name."""

    def __init__(self, link):
        self.link, self.known, self.clean = link, set(), True

    def add(self, name: str, sql: Callable[[Any], str]) -> None:
        """PREPARE it, unless it is known; `sql` makes its text with a cursor of psycopg2's."""
        if name in self.known:
            return
        with self.link.cursor() as cursor:
            if not self.clean:
                cursor.execute("DEALLOCATE ALL")
                self.clean = True
            cursor.execute(f"PREPARE {name} AS {sql(cursor)}")
        self.known.add(name)

    def forget(self) -> None:
        """Prepare all of them again: a migration changed a column's type, or somebody else threw them away."""
        self.known.clear()
        self.clean = False


class _Kept:
    """What a connection of Django's has: its queries and statements, and the names that PostgreSQL knows over it.

    It hangs on the connection, not on the thread: where an event loop runs, a thread has a connection inside of the loop
    and another one outside.
    """

    def __init__(self):
        self.queries: dict[Hashable, Any] = {}
        self.names: _Names | None = None
        self.together: Together | None = None


def _kept(database: BaseDatabaseWrapper) -> _Kept:
    kept = database.__dict__.get("_likestep_kept")
    if kept is None:
        kept = database._likestep_kept = _Kept()
    return kept


class _Statement:
    """SQL with `%s` for each value. `constants` are the values that never change, by their places."""

    def __init__(self, about: Hashable, sql: str, constants: dict[int, Any], places: int):
        self.sql, self.constants, self.places = sql, constants, places
        self.name = f"{re.sub('[^a-z0-9]+', '_', str(about).lower()).strip('_')[:40]}_{next(_numbers)}"
        given = places - len(constants)
        self.call = f"EXECUTE {self.name}" + (f" ({', '.join(['%s'] * given)})" if given else "")

    def execute(self, database: BaseDatabaseWrapper, cursor, values: Sequence) -> None:
        """With a value for each place that is no constant's."""
        if database.vendor != "postgresql":
            cursor.execute(self.sql, self._all(values))
            return
        try:
            cursor.execute(self.called(database, cursor), values or None)
        except (NotSupportedError, OperationalError) as error:
            _kept(database).names.forget()
            if database.in_atomic_block or not isinstance(error, NotSupportedError):
                raise
            cursor.execute(self.called(database, cursor), values or None)

    def called(self, database: BaseDatabaseWrapper, cursor) -> str:
        """What calls it by its name, which PostgreSQL then knows."""
        kept = _kept(database)
        if kept.names is None or kept.names.link is not database.connection:  # it was opened anew and knows none
            kept.names = _Names(database.connection)
        with database.wrap_database_errors:
            kept.names.add(self.name, self._numbered)
        return self.call

    def _numbered(self, cursor) -> str:
        """PostgreSQL's own form: $1 and so on for the values, and the constants in words."""
        given = count(1)
        return self.sql % tuple(
            cursor.mogrify("%s", [self.constants[n]]).decode() if n in self.constants else f"${next(given)}"
            for n in range(self.places)
        )

    def _all(self, values: Sequence) -> list:
        given = iter(values)
        return [self.constants[n] if n in self.constants else next(given) for n in range(self.places)]


class _Prepared:
    """A queryset with its SQL, of one connection: its compiler belongs to it."""

    def __init__(self, name: Hashable, build: Callable[..., QuerySet], values: dict[str, Any]):
        self.database = _database()
        stands = {key: _stand_in(place, value) for place, (key, value) in enumerate(values.items())}
        keys = {_adapted(self.database, stand): key for key, stand in stands.items()}
        rows = build(**stands)
        compiler = rows.query.get_compiler(connection=self.database)
        sql, found = compiler.as_sql()
        keys_of = [keys.get(value) if isinstance(value, int | float | str | date) else None for value in found]
        if missing := set(values) - set(keys_of):
            raise ValueError(f"{sorted(missing)}: the query does not ask for it")
        self.keys = [key for key in keys_of if key is not None]
        constants = {n: value for n, (key, value) in enumerate(zip(keys_of, found, strict=True)) if key is None}
        self.statement = _Statement(name, sql, constants, len(keys_of))
        self.compiler = compiler
        self.converters = compiler.get_converters([column[0] for column in compiler.select[: compiler.col_count]])
        self.made = _maker(rows, compiler)

    def ask(self, values: dict[str, Any]) -> list:
        """The rows now."""
        database = self.database
        with database.cursor() as cursor:
            self.statement.execute(database, cursor, [_adapted(database, values[key]) for key in self.keys])
            found = cursor.fetchall()
        return self.made(self.compiler.apply_converters(found, self.converters) if self.converters else found)


def _maker(rows: QuerySet, compiler: SQLCompiler) -> Callable[[Iterator[Sequence]], list]:
    """What makes rows of the database into those of the queryset: the loop of Django's iterables, with all that is the same
    each time done beforehand."""
    if rows._iterable_class is FlatValuesListIterable:
        return lambda found: [row[0] for row in found]
    if rows._iterable_class is ValuesIterable:
        names = rows.query.selected or rows.query.values_select
        return lambda found: [dict(zip(names, row, strict=True)) for row in found]
    info, alias = compiler.klass_info, compiler.connection.alias
    model, first, end = info["model"], info["select_fields"][0], info["select_fields"][-1] + 1
    fields = [column[0].target.attname for column in compiler.select[first:end]]
    related = get_related_populators(info, compiler.select, alias)
    more = list((compiler.annotation_col_map or {}).items())

    def made(found: Iterator[Sequence]) -> list:
        objects = []
        for row in found:
            one = model.from_db(alias, fields, row[first:end])
            for populator in related:
                populator.populate(row, one)
            for name, place in more:
                setattr(one, name, row[place])
            objects.append(one)
        return objects

    return made


def _database() -> BaseDatabaseWrapper:
    """The thread's own: `django.db.connection` looks it up for each attribute."""
    return connections[DEFAULT_DB_ALIAS]


def _stand_in(place: int, value: Any) -> Any:
    if isinstance(value, datetime):
        return MOMENT + timedelta(days=place)
    if isinstance(value, date):
        return MOMENT.date() + timedelta(days=place)
    return f"stand-in {place}" if isinstance(value, str) else NUMBER + place


def _adapted(database: BaseDatabaseWrapper, value: Any) -> Any:
    if isinstance(value, datetime):
        return database.ops.adapt_datetimefield_value(value)
    return database.ops.adapt_datefield_value(value) if isinstance(value, date) else value


def _queries() -> dict[Hashable, Any]:
    return _kept(_database()).queries


def ask(name: Hashable, build: Callable[..., QuerySet], **values: int | float | str | date) -> list:
    """The rows of `build(**values)`, which must make the same query but for the values whenever `name` is the same: with
    no condition on them in Python, and no prefetching."""
    known = _queries()
    if name not in known:
        known[name] = _Prepared(name, build, values)
    return known[name].ask(values)


def ask_for(name: Hashable, build: Callable[..., QuerySet], numbers: list[int], **values: int | str | date) -> list:
    """The same with a list of numbers, which `build` takes as its first argument."""
    each = {f"number_{n}": number for n, number in enumerate(numbers)}

    def with_list(**given):
        return build([given.pop(name) for name in each], **given)

    return ask((name, len(numbers)), with_list, **each, **values)


def keep_related(row: Model, name: str, related: list[Model]) -> None:
    """`row.<name>.all()` is these rows, as if they had been prefetched."""
    rows = type(related[0])._base_manager.all() if related else getattr(row, name).none()
    rows._result_cache, rows._prefetch_done = related, True
    row.__dict__.setdefault("_prefetched_objects_cache", {})[name] = rows


class Together:
    """What was done inside of `together`; `rows` are those that the last statement returned."""

    def __init__(self):
        self.waiting: list[tuple[_Statement, Sequence]] = []
        self.rows: list[tuple] = []


@contextmanager
def together() -> Iterator[Together]:
    """All `insert` and `run` inside are sent at its end, in their order, to PostgreSQL in one message. Rows get no numbers
    and `run` tells nothing; a query inside does not see them yet. Inside of a transaction."""
    database = _database()
    kept = _kept(database)
    sent = kept.together = Together()
    try:
        yield sent
    finally:
        kept.together = None
    if not sent.waiting:
        return
    with database.cursor() as cursor:
        if database.vendor == "postgresql":
            texts = [cursor.mogrify(s.called(database, cursor), values).decode() for s, values in sent.waiting]
            try:
                cursor.execute("; ".join(texts))
            except (NotSupportedError, OperationalError):
                kept.names.forget()
                raise
        else:
            for statement, values in sent.waiting:
                statement.execute(database, cursor, values)
        sent.rows = cursor.fetchall() if cursor.description else []


class _Insert:
    """An insert of so many rows of a model."""

    def __init__(self, model: type[Model], rows: int, over: Sequence[str], replaced: Sequence[str]):
        meta, quoted = model._meta, _database().ops.quote_name
        self.numbered = meta.auto_field is not None
        self.fields: list[Field] = [field for field in meta.local_concrete_fields if field is not meta.auto_field]
        place = f"({', '.join(['%s'] * len(self.fields))})"
        columns = ", ".join(quoted(field.column) for field in self.fields)
        sql = f"INSERT INTO {meta.db_table} ({columns}) VALUES {', '.join([place] * rows)}"  # noqa: S608
        if over:
            unique = [meta.get_field(name).column for name in over]
            fresh = [meta.get_field(name).column for name in replaced]
            fresh = [quoted(c) for c in fresh or [f.column for f in self.fields if f.column not in unique]]
            sql += f" ON CONFLICT ({', '.join(map(quoted, unique))}) DO UPDATE SET "
            sql += ", ".join(f"{column} = EXCLUDED.{column}" for column in fresh)
        if self.numbered:
            sql += f" RETURNING {meta.auto_field.column}"
        self.statement = _Statement(f"insert {rows} {meta.db_table}", sql, {}, rows * len(self.fields))


def insert(rows: Sequence[Model], *, over: Sequence[str] = (), replaced: Sequence[str] = ()) -> None:
    """Rows of one table, in one statement, with their new numbers; like `bulk_create` without its rounds. With `over`, the
    names of fields that are unique together, a row that has their values already is changed: its fields `replaced`, or all
    of them."""
    if not rows:
        return
    database, known, model = _database(), _queries(), type(rows[0])
    key = ("insert", model, len(rows), tuple(over), tuple(replaced))
    made = known.get(key) or _Insert(model, len(rows), over, replaced)
    if len(rows) <= KEPT_ROWS:
        known[key] = made
    values = [field.get_db_prep_save(field.pre_save(row, True), database) for row in rows for field in made.fields]
    if (sent := _kept(database).together) is not None:
        sent.waiting.append((made.statement, values))
        return
    with database.cursor() as cursor:
        if key in known:
            made.statement.execute(database, cursor, values)
        else:
            cursor.execute(made.statement.sql, values)
        numbers = cursor.fetchall() if made.numbered else [(row.pk,) for row in rows]
    for row, (number,) in zip(rows, numbers, strict=True):
        row.pk, row._state.adding, row._state.db = number, False, database.alias


NAMED = re.compile(r"%\((\w+)\)s")


def _said(sql: str, values: dict[str, Any]) -> tuple[_Statement, list]:
    """A statement in words of its own, with `%(name)s` for the values, and these in the order of their places."""
    known = _queries()
    if sql not in known:
        keys = NAMED.findall(sql)
        known[sql] = keys, _Statement(" ".join(sql.split()[:2]), NAMED.sub("%s", sql), {}, len(keys))
    keys, statement = known[sql]
    database = _database()
    return statement, [_adapted(database, values[key]) for key in keys]


def run(sql: str, **values: Any) -> int:
    """An UPDATE in words of its own; how many rows it changed."""
    statement, given = _said(sql, values)
    database = _database()
    if (sent := _kept(database).together) is not None:
        sent.waiting.append((statement, given))
        return 0
    with database.cursor() as cursor:
        statement.execute(database, cursor, given)
        return len(cursor.fetchall()) if cursor.description else cursor.rowcount


def read(sql: str, **values: Any) -> list[tuple]:
    """The rows of a SELECT in words of its own."""
    statement, given = _said(sql, values)
    database = _database()
    with database.cursor() as cursor:
        statement.execute(database, cursor, given)
        return cursor.fetchall()
