"""Queries that are asked all the time, compiled once.

Making SQL of a queryset takes Django longer than PostgreSQL takes to answer it. `ask` does it once a thread, with stand-ins
for the values, and from then on puts the values into their places. Rows are read anew each time: nothing is kept of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import Model, QuerySet

_kept = threading.local()
# Stand-ins: small enough for the smallest column, and nothing that a query says by itself.
NUMBER, MOMENT = 31_000, datetime(1971, 3, 5, 7, 11, 13, tzinfo=UTC)


class _Prepared:
    """A queryset with its SQL, of one thread: its compiler belongs to the thread's connection."""

    def __init__(self, build: Callable[..., QuerySet], values: dict[str, Any]):
        stands = {name: _stand_in(place, value) for place, (name, value) in enumerate(values.items())}
        names = {_adapted(stand): name for name, stand in stands.items()}
        self.rows = build(**stands)
        compiler = self.rows.query.get_compiler(connection=connection)
        self.sql, found = compiler.as_sql()
        self.places = [names.get(value) if isinstance(value, int | str | date) else None for value in found]
        self.found = list(found)
        if missing := set(values) - set(self.places):
            raise ValueError(f"{sorted(missing)}: the query does not ask for it")
        self.compiler = compiler
        self.rows.query.get_compiler = lambda *_, **__: compiler

    def ask(self, values: dict[str, Any]) -> list:
        params = tuple(
            known if name is None else _adapted(values[name])
            for name, known in zip(self.places, self.found, strict=True)
        )
        self.compiler.as_sql = lambda *_, **__: (self.sql, params)
        return list(self.rows._iterable_class(self.rows))


def _stand_in(place: int, value: Any) -> Any:
    if isinstance(value, datetime):
        return MOMENT + timedelta(days=place)
    if isinstance(value, date):
        return MOMENT.date() + timedelta(days=place)
    return f"stand-in {place}" if isinstance(value, str) else NUMBER + place


def _adapted(value: Any) -> Any:
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    return connection.ops.adapt_datefield_value(value) if isinstance(value, date) else value


def ask(name: Hashable, build: Callable[..., QuerySet], **values: int | str | date) -> list:
    """The rows of `build(**values)`, which must make the same query but for the values whenever `name` is the same: with
    no condition on them in Python, and no prefetching."""
    known = _kept.__dict__.setdefault(connection.vendor, {})
    if name not in known:
        known[name] = _Prepared(build, values)
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


def insert(rows: Sequence[Model], *, over: str = "") -> None:
    """Rows of one table, in one statement, with their new numbers; like `bulk_create` without its rounds. With `over`, the
    name of a unique field, a row that has its value already is replaced."""
    if not rows:
        return
    meta = rows[0]._meta
    numbered = meta.auto_field is not None
    fields = [field for field in meta.local_concrete_fields if field is not meta.auto_field]
    columns = [connection.ops.quote_name(field.column) for field in fields]
    place = f"({', '.join(['%s'] * len(fields))})"
    sql = f"INSERT INTO {meta.db_table} ({', '.join(columns)}) VALUES {', '.join([place] * len(rows))}"  # noqa: S608
    if over:
        unique = meta.get_field(over).column
        others = [column for field, column in zip(fields, columns, strict=True) if field.column != unique]
        sql += f" ON CONFLICT ({unique}) DO UPDATE SET {', '.join(f'{c} = EXCLUDED.{c}' for c in others)}"
    if numbered:
        sql += f" RETURNING {meta.auto_field.column}"
    values = [field.get_db_prep_save(field.pre_save(row, True), connection) for row in rows for field in fields]
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        numbers = cursor.fetchall() if numbered else [(row.pk,) for row in rows]
    for row, (number,) in zip(rows, numbers, strict=True):
        row.pk, row._state.adding, row._state.db = number, False, connection.alias


def run(sql: str, **values: Any) -> int:
    """An UPDATE in words of its own, with `%(name)s` for the values; how many rows it changed."""
    with connection.cursor() as cursor:
        cursor.execute(sql, {name: _adapted(value) for name, value in values.items()})
        return cursor.rowcount
