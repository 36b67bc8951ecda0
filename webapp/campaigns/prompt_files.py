"""Prompt files: text, CSV or JSONL in, rows and errors by line out. Pure functions; nothing is written here."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from dataclasses import dataclass, field

from django.utils.translation import gettext as _

SPLITS = ("train", "validation", "test")
FORMATS = ("text", "csv", "jsonl")
MOST_BYTES = 2_000_000
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


def guess_format(name: str, text: str) -> str:
    """By the file's name, and by its first line where the name does not tell."""
    ending = name.lower().rpartition(".")[2]
    if ending in ("jsonl", "ndjson", "json"):
        return "jsonl"
    if ending in ("csv", "tsv"):
        return "csv"
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if first.startswith("{"):
        return "jsonl"
    if "prompt" in [cell.strip(' "').lower() for cell in first.split(",")] and "," in first:
        return "csv"
    return "text"


def decode(data: bytes) -> str:
    """UTF-8, with or without a byte order mark. Raises ValueError that names the line of the first bad byte."""
    if len(data) > MOST_BYTES:
        raise ValueError(
            _("prompts: the file has %(count)s bytes; split it into parts of at most %(most)s")
            % {"count": f"{len(data):,}", "most": f"{MOST_BYTES:,}"}
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            _("prompts: line %(line)s is not UTF-8; save the file as UTF-8 and upload it again") % {"line": line}
        ) from error


def parse(text: str, *, name: str = "", validation: float = 0.1, test: float = 0.0) -> Parsed:
    """Read a prompt file of any of `FORMATS`.

    Text is one prompt a line. CSV needs a column `prompt` and may have `split` and `metadata` (a JSON object). JSONL
    lines are GenEval's (`evaluation_metadata.jsonl`: the whole line is the metadata) or `{prompt, split?, metadata?}`.
    A row without a split gets one by `split_of`. Blank lines are passed over.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    kind = guess_format(name, text)
    read = {"text": _text_lines, "csv": _csv_lines, "jsonl": _json_lines}[kind]
    parsed, first_line = Parsed(kind), {}
    for line, found in read(text):
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
    if "\0" in prompt or "\\u0000" in json.dumps(metadata):
        return Problem(line, _("prompt: it holds a NUL character; remove it"))
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
    if wrong := _geneval_problem(metadata):
        return Problem(line, wrong)
    return Row(line, prompt, split, metadata)


def _geneval_problem(metadata: dict) -> str | None:
    """What an oracle could not read in GenEval's `include` and `exclude`."""
    for name in ("include", "exclude"):
        items = metadata.get(name, [])
        if not isinstance(items, list):
            return _("%(name)s: give a list") % {"name": name}
        for item in items:
            if not isinstance(item, dict) or not isinstance(item.get("class"), str):
                return _("%(name)s: every entry needs a `class`") % {"name": name}
            if not isinstance(item.get("count"), int):
                return _("%(name)s: `count` of %(class)s is not a whole number") % {
                    "name": name,
                    "class": item["class"],
                }
    return None


def _json(text: str):
    """JSON without NaN and Infinity, which no database keeps."""
    return json.loads(text, parse_constant=_refuse)


def _refuse(name: str):
    raise ValueError(_("%(name)s is not JSON") % {"name": name})


def _text_lines(text: str):
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            yield line, {"prompt": content}


def _csv_lines(text: str):
    reader = csv.reader(io.StringIO(text), strict=True)
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
            if "prompt" not in columns:
                yield start, Problem(start, _("no column is called prompt; name the columns in the first line"))
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
        found = dict(zip(columns, cells, strict=True))
        try:
            found["metadata"] = _json(found["metadata"]) if found.get("metadata") else None
        except (ValueError, RecursionError):
            yield start, Problem(start, _("metadata: not JSON"))
            continue
        yield start, found


def _json_lines(text: str):
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
        if "metadata" not in found:  # GenEval's line is its own metadata
            rest = {k: v for k, v in found.items() if k != "split"}
            found = {**found, "metadata": rest if len(rest) > 1 else None}
        yield line, found
