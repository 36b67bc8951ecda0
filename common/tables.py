"""Parquet that a stranger sent. A few hundred bytes may unpack to gigabytes, so it is judged by the sizes that it names and
then read by a process of its own, whose memory and time are limited: names may lie.

    python -m common.tables < file.parquet > rows.jsonl        what that process does
"""

from __future__ import annotations

import base64
import json
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from common.intake import Unreadable
from common.language import gettext_noop

ROOT = Path(__file__).resolve().parents[1]
MOST_FOOTER = 1_000_000  # bytes that tell what is in the file
MOST_COLUMNS = 1000
MEMORY = 768_000_000  # bytes that reading may take beyond what the reader itself does
SECONDS = 60
BATCH = 500  # rows at once
FEW = 10  # of rows with images
READER = [sys.executable, "-m", "common.tables"]
TURN = threading.Lock()  # one reader at once, or MEMORY would say little


@dataclass(frozen=True)
class Limits:
    """`rows` and `size` (bytes of the rows as JSON) that a table may have; of it only `columns` are read, None: all that
    hold no bytes. A text has at most `longest` characters. With `flat` no column may hold lists or objects. Columns of
    `binary`, bytes or `{bytes, path}` as `datasets` has images, come as base64."""

    rows: int
    size: int
    columns: tuple[str, ...] | None = None
    longest: int = 1_000_000
    flat: bool = False
    binary: tuple[str, ...] = ()


def read(data: bytes, limits: Limits) -> list[str]:
    """The table's rows, each a JSON object in a line; other columns of bytes are passed over, and an empty cell is a key
    that is not there. Raises Unreadable."""
    return list(each(data, limits))


def each(data: bytes, limits: Limits) -> Iterator[str]:
    """The same row by row: they wait on the disk. Raises Unreadable before the first."""
    footer = int.from_bytes(data[-8:-4], "little")
    if len(data) < 12 or data[-4:] != b"PAR1" or footer > len(data) - 12:
        raise Unreadable(gettext_noop("it does not end as Parquet does"))
    if footer > MOST_FOOTER:
        about = {"size": f"{footer:,}", "most": f"{MOST_FOOTER:,}"}
        raise Unreadable(gettext_noop("it takes %(size)s bytes to say what is in it; %(most)s are the most"), **about)
    if not TURN.acquire(timeout=SECONDS):
        raise Unreadable(gettext_noop("other files are being read; try again in a minute"))
    try:
        found = _rows(data, limits)
    finally:
        TURN.release()
    with found:
        for line in found:
            yield line.decode().removesuffix("\n")


def _rows(data: bytes, limits: Limits) -> BinaryIO:
    """A temporary file of the rows, at its start."""
    found = tempfile.TemporaryFile()  # noqa: SIM115 - closed by who reads it
    try:
        try:
            run = subprocess.run(  # noqa: S603 - this module, by this Python
                [*READER, json.dumps(asdict(limits))],
                input=data,
                stdout=found,
                stderr=subprocess.PIPE,
                cwd=ROOT,
                env={"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"},
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise Unreadable(TOO_LONG, most=SECONDS) from error
        if run.returncode == REFUSED:
            template, about = json.loads(run.stderr)
            raise Unreadable(template, **about)
        if run.returncode:  # out of memory or time, or a fault of the library
            raise Unreadable(TOO_MUCH, most=f"{MEMORY // 1_000_000:,}")
        found.seek(0)
    except BaseException:
        found.close()
        raise
    return found


TOO_LONG = gettext_noop("reading it takes more than %(most)s seconds; split the file")
TOO_MUCH = gettext_noop("reading it takes more than %(most)s MB of memory; split the file")
TWICE = gettext_noop("columns %(first)s and %(second)s are both called %(name)s; rename or remove one of them")
TOO_LARGE = gettext_noop("its rows have more than %(most)s bytes; split the file")

# ---------------------------------------------------------------- in the process that reads

REFUSED = 3  # exit status; what `Unreadable` is made of is on stderr, as JSON


def _confine() -> None:
    """From here on this process gets no more memory than `MEMORY` and no more time than `SECONDS`."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    if pages:
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _lines(data: bytes, limits: Limits) -> Iterator[str]:
    """The rows as JSON. Raises Unreadable for sizes that the file names itself, before anything is unpacked."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pa.set_memory_pool(pa.system_memory_pool())
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    _confine()
    file = pq.ParquetFile(
        pa.BufferReader(data), thrift_string_size_limit=MOST_FOOTER, thrift_container_size_limit=MOST_FOOTER
    )
    about = file.metadata
    if about.num_rows > limits.rows:
        raise Unreadable(gettext_noop("it has more than %(most)s rows; split the file"), most=f"{limits.rows:,}")
    if about.num_columns > MOST_COLUMNS:
        told = {"count": f"{about.num_columns:,}", "most": f"{MOST_COLUMNS:,}"}
        raise Unreadable(gettext_noop("it has %(count)s columns; %(most)s are the most"), **told)
    check_names([f.name for f in file.schema_arrow])
    fields = [f for f in file.schema_arrow if limits.columns is None or f.name in limits.columns]
    binary = {f.name for f in fields if f.name in limits.binary and _is_image(f.type)}
    names = [f.name for f in fields if f.name in binary or not _holds_bytes(f.type)]
    for field in fields:
        if limits.flat and pa.types.is_nested(field.type) and field.name not in binary:
            raise Unreadable(gettext_noop("%(name)s: it is a list or an object"), name=field.name)
    _check_chunks(about, set(names), limits)
    size = 0
    for batch in file.iter_batches(batch_size=FEW if binary else BATCH, columns=names, use_threads=False):
        if batch.nbytes > limits.size:
            raise Unreadable(TOO_LARGE, most=f"{limits.size:,}")
        for row in batch.to_pylist():
            for name in binary & row.keys():
                row[name] = _coded(row[name])
            for name, value in row.items():
                if name not in binary and isinstance(value, str) and len(value) > limits.longest:
                    told = {"name": name, "most": f"{limits.longest:,}"}
                    raise Unreadable(gettext_noop("%(name)s: more than %(most)s characters"), **told)
            line = json.dumps(_without_empty(row), ensure_ascii=False, default=str)
            size += len(line)
            if size > limits.size:
                raise Unreadable(TOO_LARGE, most=f"{limits.size:,}")
            yield line


def check_names(names: Sequence[str]) -> None:
    """Raise Unreadable that names two columns with one name."""
    seen: dict[str, int] = {}
    for place, name in enumerate(names, start=1):
        if name and name in seen:
            sentence = gettext_noop(
                "columns %(first)s and %(second)s are both called %(name)s; rename or remove one of them"
            )
            raise Unreadable(sentence, first=seen[name], second=place, name=name)
        seen[name] = place


def _without_empty(value: object) -> object:
    """Parquet has every key in every row; GenEval's lines have only those that say something."""
    if isinstance(value, dict):
        return {k: _without_empty(v) for k, v in value.items() if v is not None}
    return [_without_empty(v) for v in value] if isinstance(value, list) else value


def _check_chunks(about, names: set[str], limits: Limits) -> None:
    size = values = 0
    for group in range(about.num_row_groups):
        for column in range(about.num_columns):
            chunk = about.row_group(group).column(column)
            if chunk.path_in_schema.split(".")[0] in names:
                size += chunk.total_uncompressed_size
                values += chunk.num_values
    if size > limits.size or values > limits.size:
        told = {"size": f"{max(size, values):,}", "most": f"{limits.size:,}"}
        raise Unreadable(gettext_noop("it unpacks to %(size)s bytes; %(most)s are the most, so split the file"), **told)


def _is_image(kind) -> bool:
    """Whether a column's type is that of images: bytes, or an object with them."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_image(kind.field(index).type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _coded(value: bytes | dict | None) -> str | None:
    found = value.get("bytes") if isinstance(value, dict) else value
    return base64.b64encode(found).decode() if isinstance(found, bytes) else None


def _holds_bytes(kind) -> bool:
    import pyarrow as pa

    if pa.types.is_nested(kind):
        return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def main() -> int:
    """Rows on stdout, or why not on stderr."""
    values = json.loads(sys.argv[1])
    columns = values["columns"] and tuple(values["columns"])
    limits = Limits(**{**values, "columns": columns, "binary": tuple(values["binary"])})
    data = sys.stdin.buffer.read()
    try:
        for line in _lines(data, limits):
            print(line)
    except MemoryError:
        return 1
    except Exception as error:  # of the library, of many types
        known = error if isinstance(error, Unreadable) else Unreadable("%(error)s", error=str(error)[-500:])
        print(json.dumps([known.template, known.about]), file=sys.stderr)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
