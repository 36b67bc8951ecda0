"""Parquet that a stranger sent. A few hundred bytes may unpack to gigabytes, so it is judged by the sizes that it names and
then read by a process of its own, whose memory and time are limited: names may lie.

    python -m common.tables < file.parquet > rows.jsonl        what that process does
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST_FOOTER = 1_000_000  # bytes that tell what is in the file
MOST_COLUMNS = 1000
MEMORY = 768_000_000  # bytes that reading may take beyond what the reader itself does
SECONDS = 60
BATCH = 500  # rows at once
READER = [sys.executable, "-m", "common.tables"]


class Unreadable(ValueError):
    """Why a table is not read, in a sentence."""


@dataclass(frozen=True)
class Limits:
    """`rows` and `size` (bytes of the rows as JSON) that a table may have; of it only `columns` are read, None: all that
    hold no bytes. A text has at most `longest` characters."""

    rows: int
    size: int
    columns: tuple[str, ...] | None = None
    longest: int = 1_000_000


def read(data: bytes, limits: Limits) -> list[str]:
    """The table's rows, each a JSON object in a line; columns of bytes are passed over. Raises Unreadable."""
    footer = int.from_bytes(data[-8:-4], "little")
    if len(data) < 12 or data[-4:] != b"PAR1" or footer > len(data) - 12:
        raise Unreadable("it does not end as Parquet does")
    if footer > MOST_FOOTER:
        raise Unreadable(f"it takes {footer:,} bytes to say what is in it; {MOST_FOOTER:,} are the most")
    with tempfile.TemporaryFile() as found:
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
            raise Unreadable(f"reading it takes more than {SECONDS} seconds; split the file") from error
        if run.returncode == REFUSED:
            raise Unreadable(run.stderr.decode(errors="replace").strip()[-500:])
        if run.returncode:  # out of memory or time, or a fault of the library
            raise Unreadable(f"reading it takes more than {MEMORY // 1_000_000:,} MB of memory; split the file")
        found.seek(0)
        return found.read().decode().split("\n")[:-1]


# ---------------------------------------------------------------- in the process that reads

REFUSED = 3  # exit status; the sentence is on stderr


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
        raise Unreadable(f"it has more than {limits.rows:,} rows; split the file")
    if about.num_columns > MOST_COLUMNS:
        raise Unreadable(f"it has {about.num_columns:,} columns; {MOST_COLUMNS:,} are the most")
    fields = [f for f in file.schema_arrow if limits.columns is None or f.name in limits.columns]
    names = [f.name for f in fields if not _holds_bytes(f.type)]
    _check_chunks(about, set(names), limits)
    size = 0
    for batch in file.iter_batches(batch_size=BATCH, columns=names, use_threads=False):
        if batch.nbytes > limits.size:
            raise Unreadable(f"its rows have more than {limits.size:,} bytes; split the file")
        for row in batch.to_pylist():
            for name, value in row.items():
                if isinstance(value, str) and len(value) > limits.longest:
                    raise Unreadable(f"{name}: more than {limits.longest:,} characters")
            line = json.dumps(row, ensure_ascii=False, default=str)
            size += len(line)
            if size > limits.size:
                raise Unreadable(f"its rows have more than {limits.size:,} bytes; split the file")
            yield line


def _check_chunks(about, names: set[str], limits: Limits) -> None:
    size = values = 0
    for group in range(about.num_row_groups):
        for column in range(about.num_columns):
            chunk = about.row_group(group).column(column)
            if chunk.path_in_schema.split(".")[0] in names:
                size += chunk.total_uncompressed_size
                values += chunk.num_values
    if size > limits.size or values > limits.size:
        raise Unreadable(f"it unpacks to {max(size, values):,} bytes; {limits.size:,} are the most, so split the file")


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
    limits = Limits(**{**values, "columns": values["columns"] and tuple(values["columns"])})
    data = sys.stdin.buffer.read()
    try:
        for line in _lines(data, limits):
            print(line)
    except Exception as error:  # of the library, of many types; MemoryError is no Exception's fault of the file's
        print("out of memory" if isinstance(error, MemoryError) else error, file=sys.stderr)
        return 1 if isinstance(error, MemoryError) else REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
