"""Rows to bytes, a piece at a time: JSONL, a JSON list, Parquet, and a zip archive with the images."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
from zipstream import ZIP_STORED, ZipStream

from webapp.exports.formats import FORMATS, Format, Reference, labelstudio_config
from webapp.exports.records import GroupRecord, ImageRecord
from webapp.lib import storage

ROWS = 1000  # of a Parquet row group
EMBEDDED_ROWS = 50  # the same where rows hold images
PIECE = 1 << 16  # bytes of a file read at once


def _plain(value):
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")


def jsonl(rows: Iterable[dict]) -> Iterator[bytes]:
    """One JSON object a line."""
    for row in rows:
        yield json.dumps(row, ensure_ascii=False, default=_plain).encode() + b"\n"


def json_list(rows: Iterable[dict]) -> Iterator[bytes]:
    """One JSON list, as Label Studio's importer takes it."""
    before = b"[\n"
    for line in jsonl(rows):
        yield before + line.rstrip(b"\n")
        before = b",\n"
    yield b"\n]\n" if before == b",\n" else b"[]\n"


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


def embedded(format: Format, rows: Iterable[dict], files: dict[str, str]) -> Iterator[dict]:
    """Rows with their images' bytes in place of the references; `files` maps a reference to its file."""
    store = storage.store()
    for row in rows:
        full = dict(row)
        for name in format.images:
            try:
                full[name] = {"bytes": store.read(files[row[name]]), "path": row[name]}
            except FileNotFoundError:
                full[name] = None
        yield full


def in_archive(group: GroupRecord, image: ImageRecord) -> str:
    """An image's path in an archive."""
    return f"images/{group.id}/{image.position}.webp"


def one_file(format: Format, container: str, groups: Iterable[GroupRecord], reference: Reference) -> Iterator[bytes]:
    """The export as one file, images by reference, or inside it with container `parquet-images`."""
    if container == "parquet-images":
        return parquet(_embedded_rows(format, groups, reference), format.embedded_schema(), size=EMBEDDED_ROWS)
    rows = (row for group in groups for row in format.rows(group, reference))
    if format.schema is None:
        return json_list(rows)
    return parquet(rows, format.schema) if container == "parquet" else jsonl(rows)


def _embedded_rows(format: Format, groups: Iterable[GroupRecord], reference: Reference) -> Iterator[dict]:
    for group in groups:
        files = {reference(group, image): image.file for image in group.images}
        yield from embedded(format, format.rows(group, reference), files)


def archive(format: Format, container: str, groups: Iterable[GroupRecord]) -> Iterator[bytes]:
    """A zip of the images and one data file that names them by their paths in it. Images that are gone are listed in
    `missing.txt`. The data file grows in a temporary file, not in memory, and comes last."""
    packed = ZipStream(compress_type=ZIP_STORED)
    store = storage.store()
    missing: list[str] = []
    largest = 0
    ending = {"jsonl": "jsonl", "parquet": "parquet"}[container] if format.schema is not None else "json"
    with tempfile.TemporaryFile() as data:
        pieces: list[ImageRecord] = []

        def seen() -> Iterator[GroupRecord]:
            for group in groups:
                pieces.extend(group.images)
                names.extend(in_archive(group, image) for image in group.images)
                yield group

        names: list[str] = []
        for part in one_file(format, container, seen(), in_archive):
            data.write(part)
            for name, image in zip(names, pieces, strict=True):
                largest = max(largest, image.position + 1)
                if not store.exists(image.file):
                    missing.append(name)
                    continue
                packed.add(store.pieces(image.file), name)
            names.clear()
            pieces.clear()
            yield from packed.all_files()
        data.seek(0)
        packed.add(iter(lambda: data.read(PIECE), b""), f"data.{ending}")
        yield from packed.all_files()
    if format is FORMATS["labelstudio"]:
        packed.add(labelstudio_config(largest).encode(), "labelling-interface.xml")
    if missing:
        packed.add(("\n".join(missing) + "\n").encode(), "missing.txt")
    yield from packed.finalize()
