"""Prompt files: text, CSV, JSONL or Parquet in, rows and errors by line out. Pure functions; nothing is written here."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
from django.conf import settings
from django.utils.translation import gettext as _

from common.geneval_lines import LineError, checked_line
from webapp.lib import filetypes

SPLITS = ("train", "validation", "test")
FORMATS = ("text", "csv", "jsonl", "parquet")
FIELDS = ("prompt", "split", "metadata")  # what a column map may name
MOST_ROWS = 20_000
LONGEST = 1000  # characters of a prompt


@dataclass(frozen=True)
class Row:
    """A prompt as it will be added; `line` is where it stands in the file, from 1."""

    line: int
    prompt: str
    split: str
    metadata: dict

    def plain(self) -> dict:
        """What `services.add_prompts` takes."""
        return {"prompt": self.prompt, "split": self.split, "metadata": self.metadata}


@dataclass(frozen=True)
class Problem:
    """What is wrong with a line, in one sentence."""

    line: int
    message: str

    def __str__(self) -> str:
        return _("line %(line)s: %(message)s") % {"line": self.line, "message": self.message}


@dataclass(frozen=True)
class Parsed:
    """The outcome for a whole file. With `errors` nothing may be imported; `duplicates` are only left out."""

    format: str
    rows: list[Row] = field(default_factory=list)
    errors: list[Problem] = field(default_factory=list)
    duplicates: list[Problem] = field(default_factory=list)

    def splits(self) -> dict[str, int]:
        """Rows by split, every split present."""
        counts = Counter(row.split for row in self.rows)
        return {split: counts[split] for split in SPLITS}


def split_of(prompt: str, validation: float, test: float = 0.0) -> str:
    """The split of a prompt by its hash: the same text is in the same split in every file, machine and order.

    `validation` and `test` are shares in 0..1; the rest is for training.
    """
    place = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") / 2**64
    if place < validation:
        return "validation"
    return "test" if place < validation + test else "train"


def guess_format(name: str, text: str, columns: Mapping[str, str] | None = None) -> str:
    """By the file's name, and by its first line where the name does not tell."""
    ending = name.lower().rpartition(".")[2]
    if ending == "parquet":
        return "parquet"
    if ending in ("jsonl", "ndjson", "json"):
        return "jsonl"
    if ending in ("csv", "tsv"):
        return "csv"
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if first.startswith("{"):
        return "jsonl"
    cells = [cell.strip(' "').lower() for cell in first.replace("\t", ",").split(",")]
    wanted = (columns or {}).get("prompt", "prompt").lower()
    return "csv" if wanted in cells and len(cells) > 1 else "text"


def check_size(size: int) -> None:
    """Raise ValueError for a file of so many bytes."""
    if size > settings.LIKESTEP_PROMPTS_LIMIT:
        raise ValueError(
            _("prompts: the file has %(count)s bytes; split it into parts of at most %(most)s (LIKESTEP_PROMPTS_LIMIT)")
            % {"count": f"{size:,}", "most": f"{settings.LIKESTEP_PROMPTS_LIMIT:,}"}
        )


def decode(data: bytes, name: str = "") -> str:
    """The text of a file: UTF-8, with or without a byte order mark, or Parquet's rows as JSON lines, a line a row.

    Raises ValueError that names the line of the first bad byte, or says what is wrong with the Parquet file.
    """
    check_size(len(data))
    kind = filetypes.kind(data)
    if kind == "Parquet" or (kind in ("text", "binary") and name.lower().endswith(".parquet")):
        return _parquet_text(data)
    if kind not in ("text", "binary"):
        raise ValueError(
            _("prompts: the file's content is %(kind)s; send text, CSV, JSONL or Parquet") % {"kind": kind}
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            _("prompts: line %(line)s is not UTF-8; save the file as UTF-8 and upload it again") % {"line": line}
        ) from error


def parse(
    text: str,
    *,
    name: str = "",
    validation: float = 0.1,
    test: float = 0.0,
    columns: Mapping[str, str] | None = None,
) -> Parsed:
    """Read a prompt file of any of `FORMATS`, as `decode` gives it.

    Text is one prompt a line. CSV needs a column `prompt` and may have `split` and `metadata` (a JSON object). JSONL
    lines are GenEval's (`evaluation_metadata.jsonl`: the whole line is the metadata) or `{prompt, split?, metadata?}`.
    Parquet's rows are read as JSONL's. `columns` maps a field of `FIELDS` to the column (or key) that holds it where that
    is called otherwise. Metadata may be JSON in a string. A row without a split gets one by `split_of`. Blank lines are
    passed over.
    """
    columns = {k: v.strip() for k, v in (columns or {}).items() if v and v.strip()}
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    kind = guess_format(name, text, columns)
    read = {"text": _text_lines, "csv": _csv_lines, "jsonl": _json_lines, "parquet": _json_lines}[kind]
    parsed, first_line = Parsed(kind), {}
    for line, found in read(text, columns):
        row = found if isinstance(found, Problem) else _row(line, found, validation, test)
        if isinstance(row, Problem):
            parsed.errors.append(row)
        elif row.prompt in first_line:
            parsed.duplicates.append(
                Problem(line, _("the same prompt as line %(first)s; left out") % {"first": first_line[row.prompt]})
            )
        else:
            first_line[row.prompt] = line
            parsed.rows.append(row)
    if len(parsed.rows) > MOST_ROWS:
        over = parsed.rows[MOST_ROWS].line
        parsed.errors.append(
            Problem(over, _("more than %(most)s prompts; split the file here") % {"most": f"{MOST_ROWS:,}"})
        )
    return parsed


def _row(line: int, found: dict, validation: float, test: float) -> Row | Problem:
    prompt, split, metadata = found.get("prompt"), found.get("split"), found.get("metadata")
    if not isinstance(prompt, str) or not (prompt := " ".join(prompt.split())):
        return Problem(line, _("prompt: give a text"))
    if isinstance(metadata, str):
        try:
            metadata = _json(metadata) if metadata.strip() else None
        except (ValueError, RecursionError):
            return Problem(line, _("metadata: not JSON"))
    if wrong := _cannot_be_kept(prompt, metadata):
        return Problem(line, wrong)
    if len(prompt) > LONGEST:
        return Problem(
            line, _("prompt: %(count)s characters; %(most)s is the most") % {"count": len(prompt), "most": LONGEST}
        )
    if split in (None, ""):
        split = split_of(prompt, validation, test)
    elif split not in SPLITS:
        return Problem(
            line, _("split: %(split)s is not one of %(values)s") % {"split": repr(split), "values": ", ".join(SPLITS)}
        )
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict):
        return Problem(line, _("metadata: give a JSON object"))
    try:
        return Row(line, prompt, split, checked_line(metadata))
    except LineError as error:
        return Problem(line, _(error.template) % error.about)


def _cannot_be_kept(prompt: str, metadata: object) -> str | None:
    """What no database takes: NUL, half a surrogate pair, numbers beyond all bounds."""
    try:
        text = prompt + json.dumps(metadata, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:
        return _("prompt: it holds half a character; write the whole one")
    except (ValueError, RecursionError):
        return _("metadata: a number is too large, or it is nested too deeply")
    if "\0" in text or "\\u0000" in text:
        return _("prompt: it holds a NUL character; remove it")
    return None


def _json(text: str):
    """JSON without NaN and Infinity, which no database keeps."""
    return json.loads(text, parse_constant=_refuse)


def _refuse(name: str):
    raise ValueError(_("%(name)s is not JSON") % {"name": name})


def _parquet_text(data: bytes) -> str:
    """JSON lines, a line a row. Columns of bytes (images) are passed over; an empty cell is a key that is not there."""
    lines, size = [], 0
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        if file.metadata.num_rows > MOST_ROWS:
            raise ValueError(_("more than %(most)s prompts; split the file") % {"most": f"{MOST_ROWS:,}"})
        names = [f.name for f in file.schema_arrow if not _holds_bytes(f.type)]
        for batch in file.iter_batches(batch_size=100, columns=names):
            for row in batch.to_pylist():
                lines.append(json.dumps(_without_empty(row), ensure_ascii=False, default=str))
                size += len(lines[-1])
            if size > 5 * settings.LIKESTEP_PROMPTS_LIMIT:  # a small file may hold one long text many times
                raise ValueError(
                    _("more than %(most)s bytes of text; split the file")
                    % {"most": f"{5 * settings.LIKESTEP_PROMPTS_LIMIT:,}"}
                )
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(_("prompts: not Parquet that can be read: %(error)s") % {"error": error}) from error
    return "\n".join(lines)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_nested(kind):
        return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _without_empty(value: object) -> object:
    """Parquet has every key in every row; GenEval's lines have only those that say something."""
    if isinstance(value, dict):
        return {k: _without_empty(v) for k, v in value.items() if v is not None}
    return [_without_empty(v) for v in value] if isinstance(value, list) else value


def _renamed(row: dict, columns: Mapping[str, str]) -> dict:
    """The row with each mapped column under its field's name; a column that is mapped away is not there twice."""
    taken = {column: row.get(column) for column in columns.values()}
    rest = {k: v for k, v in row.items() if k not in taken and k not in columns}
    return rest | {field: taken[column] for field, column in columns.items() if taken[column] is not None}


def _text_lines(text: str, columns: Mapping[str, str]):
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            yield line, {"prompt": content}


def _csv_lines(text: str, mapped: Mapping[str, str]):
    first = next((line for line in text.split("\n") if line.strip()), "")
    reader = csv.reader(io.StringIO(text), strict=True, delimiter="\t" if "\t" in first and "," not in first else ",")
    mapped = {field: column.lower() for field, column in mapped.items()}
    wanted = {"prompt": "prompt"} | mapped
    columns, start = None, 1
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield start, Problem(start, _("not CSV: %(error)s") % {"error": error})
            return
        if not any(cell.strip() for cell in cells):
            continue
        if columns is None:
            columns = [cell.strip().lower() for cell in cells]
            for name in wanted.values():
                if name not in columns:
                    message = _("no column is called %(name)s; name the columns in the first line") % {"name": name}
                    yield start, Problem(start, message)
                    return
            continue
        if len(cells) != len(columns):
            yield (
                start,
                Problem(
                    start,
                    _("%(count)s cells where the first line names %(columns)s columns")
                    % {"count": len(cells), "columns": len(columns)},
                ),
            )
            continue
        yield start, _renamed(dict(zip(columns, cells, strict=True)), mapped)


def _json_lines(text: str, columns: Mapping[str, str]):
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            found = _json(content)
        except (ValueError, RecursionError) as error:
            yield line, Problem(line, _("not JSON: %(error)s") % {"error": getattr(error, "msg", error)})
            continue
        if not isinstance(found, dict):
            yield line, Problem(line, _("not a JSON object"))
            continue
        found = _renamed(found, columns)
        if "metadata" not in found:  # GenEval's line is its own metadata
            rest = {k: v for k, v in found.items() if k != "split"}
            found = {**found, "metadata": rest if len(rest) > 1 else None}
        yield line, found
