"""Rows to bytes, a piece at a time: JSONL, CSV, Parquet, a JSON list, and a zip archive with the images."""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
from zipstream import ZIP_STORED, ZipStream

from webapp.exports.formats import Format, in_archive
from webapp.exports.records import GroupRecord, ImageRecord
from webapp.exports.rows import Reference
from webapp.lib import storage

ROWS = 1000  # of a Parquet row group, and of a piece of CSV
EMBEDDED_ROWS = 50  # the same where rows hold images
PIECE = 1 << 16  # bytes of a file read at once
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a spreadsheet may take for a formula begins with one of these


def _plain(value):
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")


def jsonl(rows: Iterable[dict]) -> Iterator[bytes]:
    """One JSON object a line."""
    for row in rows:
        yield json.dumps(row, ensure_ascii=False, default=_plain).encode() + b"\n"


def json_list(rows: Iterable[dict]) -> Iterator[bytes]:
    """One JSON list."""
    before = b"[\n"
    for line in jsonl(rows):
        yield before + line.rstrip(b"\n")
        before = b",\n"
    yield b"\n]\n" if before == b",\n" else b"[]\n"


def csv_table(rows: Iterable[dict], names: list[str]) -> Iterator[bytes]:
    """CSV for spreadsheets: UTF-8 with the mark by which they know it, and no text that they would run as a formula."""
    rows, out = iter(rows), io.StringIO("\ufeff")
    out.seek(0, io.SEEK_END)
    writer = csv.writer(out)
    writer.writerow(names)
    while True:
        yield out.getvalue().encode()
        out = io.StringIO()
        writer = csv.writer(out)
        if not (part := list(itertools.islice(rows, ROWS))):
            return
        writer.writerows([_cell(row[name]) for name in names] for row in part)


def _cell(value) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bool):
        return str(value).lower()
    # The apostrophe makes it a text: OWASP, "CSV injection".
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


class _Sink:
    """A file that only remembers what was written since it was last drained."""

    def __init__(self):
        self.parts: list[bytes] = []
        self.at, self.closed = 0, False

    def write(self, data) -> int:
        """Keep the bytes."""
        self.parts.append(bytes(data))
        self.at += len(data)
        return len(data)

    def tell(self) -> int:
        """Where the next byte goes."""
        return self.at

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """For pyarrow."""
        self.closed = True

    def drain(self) -> bytes:
        """What was written since the last time."""
        data, self.parts = b"".join(self.parts), []
        return data


def parquet(rows: Iterable[dict], schema: pa.Schema, *, size: int = ROWS) -> Iterator[bytes]:
    """A Parquet file in row groups of `size` rows; no more than one of them is in memory."""
    sink, rows = _Sink(), iter(rows)
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        while part := list(itertools.islice(rows, size)):
            writer.write_table(pa.Table.from_pylist(part, schema=schema))
            yield sink.drain()
    yield sink.drain()


def one_file(format: Format, container: str, groups: Iterable[GroupRecord], reference: Reference) -> Iterator[bytes]:
    """The export as one file, its images by reference, or inside with a container that ends with `-images`."""
    if container == "json-images":
        return json_list(_inline(format, groups))
    if container == "parquet-images":
        rows = _embedded(format, groups, reference)
        return parquet(rows, format.schema_of(container), size=EMBEDDED_ROWS)
    return _data(format, container, groups, reference)


def _data(format: Format, container: str, groups: Iterable[GroupRecord], reference: Reference) -> Iterator[bytes]:
    rows = (row for group in groups for row in format.rows(group, reference))
    if format.schema is None:
        return json_list(rows)
    columns = format.columns(container)
    named = ({name: row[old] for old, name in columns.items()} for row in rows)
    kind = container.removeprefix("zip-")
    if kind == "parquet":
        return parquet(named, format.schema_of(container))
    return csv_table(named, list(columns.values())) if kind == "csv" else jsonl(named)


def _loaded(format: Format, groups: Iterable[GroupRecord]) -> Iterator[tuple[GroupRecord, dict[int, bytes]]]:
    """Groups with their images' bytes by id. Images that are gone are left out, unless the format keeps their rows."""
    store = storage.store()
    for group in groups:
        held = {}
        for image in group.images:
            with suppress(FileNotFoundError):
                held[image.id] = store.read(image.file)
        kept = group.images if format.whole else [i for i in group.images if i.id in held]
        yield replace(group, images=kept), held


def _embedded(format: Format, groups: Iterable[GroupRecord], reference: Reference) -> Iterator[dict]:
    """Rows with bytes in place of references."""
    for group, held in _loaded(format, groups):
        data = {reference(group, image): held.get(image.id) for image in group.images}

        def inside(name: str, data: dict = data) -> bytes | dict | None:
            found = data[name]
            return found if format.binary or found is None else {"bytes": found, "path": name}

        for row in format.rows(group, reference):
            yield row | {name: inside(row[name]) for name in format.images}


def _inline(format: Format, groups: Iterable[GroupRecord]) -> Iterator[dict]:
    """Rows whose images are data URIs."""
    for group, held in _loaded(format, groups):
        texts = {n: "data:image/webp;base64," + base64.b64encode(data).decode() for n, data in held.items()}

        def reference(_group: GroupRecord, image: ImageRecord, texts: dict = texts) -> str:
            return texts[image.id]

        yield from format.rows(group, reference)


def _present(format: Format, groups: Iterable[GroupRecord], missing: list[str]) -> Iterator[GroupRecord]:
    """Groups with the images that are there; `missing` is told of the others, which are left out, or, where the format
    keeps their rows, without a file."""
    store = storage.store()
    for group in groups:
        gone = [image for image in group.images if not store.exists(image.file)]
        missing.extend(in_archive(group, image) for image in gone)
        lost = {image.id for image in gone}
        kept = [replace(i, file="") if i.id in lost else i for i in group.images if format.whole or i.id not in lost]
        yield replace(group, images=kept)


def archive(format: Format, container: str, groups: Iterable[GroupRecord]) -> Iterator[bytes]:
    """A zip of the images and one data file that names them by their paths in it. Images that are gone are listed in
    `missing.txt`. The data file grows in a temporary file, not in memory, and comes last."""
    packed, store = ZipStream(compress_type=ZIP_STORED), storage.store()
    missing: list[str] = []
    waiting: list[tuple[str, str]] = []  # (file, name in the archive)

    def seen() -> Iterator[GroupRecord]:
        for group in _present(format, groups, missing):
            waiting.extend((i.file, in_archive(group, i)) for i in group.images if i.file and not format.inline)
            yield group

    parts = json_list(_inline(format, seen())) if format.inline else _data(format, container, seen(), format.reference)
    with tempfile.TemporaryFile() as data:
        for part in parts:
            data.write(part)
            for file, name in waiting:
                packed.add(store.pieces(file), name)
            waiting.clear()
            yield from packed.all_files()
        data.seek(0)
        packed.add(iter(lambda: data.read(PIECE), b""), f"{format.file}.{container.removeprefix('zip-')}")
        yield from packed.all_files()
    for name, text in format.beside().items():
        packed.add(text.encode(), name)
    if missing:
        packed.add(("\n".join(missing) + "\n").encode(), "missing.txt")
    yield from packed.finalize()
