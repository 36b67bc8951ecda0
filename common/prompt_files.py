"""The one reader of prompt files, for the web form, the API and the command line: text, CSV, JSON, JSONL or Parquet in,
rows and errors by line out. Nothing is written here. Only Parquet and a model's tokenizers need packages."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from common import tables
from common.geneval_lines import LineError, checked_line
from common.intake import Unreadable, check_json, form
from common.language import gettext as _
from common.language import gettext_noop
from common.texts import LONGEST, canonical_prompt

SPLITS = ("train", "validation", "test")
FORMATS = ("text", "csv", "json", "jsonl", "parquet")
FIELDS = ("prompt", "split", "metadata")  # what a column map may name
ALSO_PROMPT = "prompt_en"  # what UniGenBench and OneIG call it
DELIMITERS = ",;\t|"
MOST_ROWS = 20_000
MOST_BYTES = 2_000_000
UNLIMITED = 2**62
SHOWN = 80  # characters of what is cut

Check = Callable[[str, dict], None]  # of a prompt and its metadata; raises ValueError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """A prompt as it will be added; `line` is where it stands in the file, from 1."""

    line: int
    prompt: str
    split: str
    metadata: dict

    @property
    def key(self) -> tuple[str, str]:
        """What makes it another prompt than others: its text, and the image that it changes."""
        return self.prompt, str(self.metadata.get("input_image") or "")

    def plain(self) -> dict:
        """What `services.add_prompts` takes."""
        return {"prompt": self.prompt, "split": self.split, "metadata": self.metadata}


@dataclass(frozen=True)
class Problem:
    """What is wrong with a line, in one sentence."""

    line: int
    message: str
    harmless: bool = False  # the line is left out, the others may come

    def __str__(self) -> str:
        return _("line %(line)s: %(message)s") % {"line": self.line, "message": self.message}


@dataclass(frozen=True)
class Parsed:
    """The outcome for a whole file. With `errors` nothing may be imported; `left_out` are lines that say nothing new, `cut`
    prompts that are longer than the model reads."""

    format: str
    rows: list[Row] = field(default_factory=list)
    errors: list[Problem] = field(default_factory=list)
    left_out: list[Problem] = field(default_factory=list)
    cut: list[Problem] = field(default_factory=list)
    delimiter: str = ""  # of CSV

    def splits(self) -> dict[str, int]:
        """Rows by split, every split present."""
        counts = Counter(row.split for row in self.rows)
        return {split: counts[split] for split in SPLITS}

    def read_as(self) -> str:
        """What the file was taken for, in words."""
        words = {",": _("commas"), ";": _("semicolons"), "\t": _("tabs"), "|": _("bars")}
        if self.delimiter:
            return _("CSV separated by %(delimiter)s") % {"delimiter": words[self.delimiter]}
        return {"text": _("text, a prompt a line"), "parquet": "Parquet"}.get(self.format, self.format.upper())


def split_of(prompt: str, validation: float, test: float = 0.0) -> str:
    """The split of a prompt by its hash: the same text is in the same split in every file, machine and order.

    `validation` and `test` are shares in 0..1; the rest is for training.
    """
    place = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") / 2**64
    if place < validation:
        return "validation"
    return "test" if place < validation + test else "train"


def guess_format(name: str, text: str, columns: Mapping[str, str] | None = None) -> str:
    """By what the text begins with where that is JSON, else by the file's name, else by a first line that names columns."""
    ending = name.lower().rpartition(".")[2]
    if ending == "parquet":
        return "parquet"
    start = text.lstrip()
    if start.startswith("[") and (ending in JSON_ENDINGS or JSON_LIST.match(start)):
        return "json"
    if JSON_OBJECT.match(start) or ending in JSON_ENDINGS:
        return "json" if _is_one_object(start) else "jsonl"
    if ending in ("csv", "tsv"):
        return "csv"
    wanted = (columns or {}).get("prompt", "prompt").lower()
    return "csv" if wanted in _header(text, wanted)[1] else "text"


# A list or an object of JSON, not a text like `{red|blue} cube` or `[sketch] a cat`.
JSON_ENDINGS = ("json", "jsonl", "ndjson")
JSON_LIST = re.compile(r"\[\s*[{\"].*\]\s*\Z", re.DOTALL)
JSON_OBJECT = re.compile(r'\{\s*("(\\.|[^"\\\n])*"\s*:|\})')


def _is_one_object(text: str) -> bool:
    """One object over several lines."""
    first = text.partition("\n")[0]
    if not first.startswith("{") or first.rstrip().endswith("}"):
        return False
    try:
        return isinstance(_json(text), dict)
    except ValueError:
        return False


def decode(data: bytes, name: str = "", *, most: int | None = MOST_BYTES, most_rows: int | None = MOST_ROWS) -> str:
    """The text of a file: UTF-8, with or without a byte order mark, or Parquet's rows as JSON lines, a line a row.

    Raises ValueError that names the line of the first bad byte, or says what is wrong with the Parquet file, or that there
    are more than `most` bytes (None: no limit; Parquet may unpack to five times as many).
    """
    check_size(len(data), most)
    try:
        if form(data, name) == "Parquet":
            return _parquet_text(data, most, most_rows)
    except Unreadable as error:
        raise ValueError(_("prompts: %(error)s") % {"error": error}) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            _("prompts: line %(line)s is not UTF-8; save the file as UTF-8 and upload it again") % {"line": line}
        ) from error


def check_size(size: int, most: int | None) -> None:
    """Raise ValueError for a file of so many bytes."""
    if most is not None and size > most:
        raise ValueError(
            _("prompts: the file has %(count)s bytes; split it into parts of at most %(most)s (LIKESTEP_PROMPTS_LIMIT)")
            % {"count": f"{size:,}", "most": f"{most:,}"}
        )


def parse(
    text: str,
    *,
    name: str = "",
    validation: float | None = 0.1,
    test: float = 0.0,
    columns: Mapping[str, str] | None = None,
    check: Check | None = None,
    model: Path | str | None = None,
    most_rows: int | None = MOST_ROWS,
) -> Parsed:
    """Read a prompt file of any of `FORMATS`, as `decode` gives it.

    Text is one prompt a line. CSV needs a column `prompt` and may have `split` and `metadata` (a JSON object); it is
    separated by whichever of `DELIMITERS` gives the first line these names, or by what an Excel line `sep=` says. JSONL
    lines, and the entries of a JSON list, are GenEval's (`evaluation_metadata.jsonl`: the whole line is the metadata) or
    `{prompt, split?, metadata?}`. Parquet's rows are read as JSONL's, and so are CSV's other columns. `columns` maps a
    field of `FIELDS` to the column (or key) that holds it where that is called otherwise. Metadata may be JSON in a
    string. UniGenBench's and OneIG's `prompt_en` is the prompt where nothing else is. Every prompt is in its canonical
    form. A row without a split gets one by `split_of`, or "" with `validation` None. Each prompt with its metadata is
    shown to `check`, which may raise ValueError on one that an oracle cannot judge; what of them the pipeline in the
    folder `model` does not read is told in `cut`. Blank lines are passed over.
    """
    columns = {k: v.strip() for k, v in (columns or {}).items() if v and v.strip()}
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    kind = guess_format(name, text, columns)
    delimiter = _header(text, columns.get("prompt", "prompt").lower())[0] if kind == "csv" else ""
    read = {"text": _text_lines, "csv": _csv_lines, "json": _json_entries, "jsonl": _json_lines, "parquet": _json_lines}
    parsed, first_line = Parsed(kind, delimiter=delimiter), {}
    for line, found in read[kind](text, columns):
        row = found if isinstance(found, Problem) else _row(line, found, validation, test, check)
        if isinstance(row, Problem):
            (parsed.left_out if row.harmless else parsed.errors).append(row)
        elif row.key in first_line:
            sentence = _("the same prompt as line %(first)s; left out") % {"first": first_line[row.key]}
            parsed.left_out.append(Problem(line, sentence))
        else:
            first_line[row.key] = line
            parsed.rows.append(row)
    if most_rows is not None and len(parsed.rows) > most_rows:
        over = parsed.rows[most_rows].line
        parsed.errors.append(
            Problem(over, _("more than %(most)s prompts; split the file here") % {"most": f"{most_rows:,}"})
        )
    elif model is not None:
        parsed.cut.extend(cut_prompts(model, [(row.line, row.prompt) for row in parsed.rows]))
    return parsed


def cut_prompts(model: Path | str, prompts: Iterable[tuple[int, str]]) -> list[Problem]:
    """Which prompts (each with its line) are longer than the text encoders of the pipeline in `model` read, and what is
    cut of them; none where that cannot be said."""
    from common.reading import unread  # its package is loaded where prompts are read

    prompts = list(prompts)
    rest = unread(model, [prompt for _line, prompt in prompts])
    return [Problem(line, _cut(end), harmless=True) for (line, _prompt), end in zip(prompts, rest, strict=True) if end]


def _cut(end: str) -> str:
    shown = end if len(end) <= SHOWN else end[: SHOWN - 1].rstrip() + "…"
    return _("prompt: it is longer than the model reads; cut is “%(cut)s”") % {"cut": shown}


def read_prompts(
    path: Path, *, split: str, only_marked: bool = False, check: Check | None = None, model: Path | None = None
) -> list[dict]:
    """The command line's `--prompts`: each line's metadata with its `prompt`, of the lines whose split is `split`; those
    without a split count unless `only_marked`. Those that count are shown to `check(prompt, line)`, which may raise
    ValueError on one that it cannot use. Lines that are left out are logged, and what the pipeline in `model` does not
    read.

    Raises ValueError that names the file's first bad lines, or says that there is none.
    """
    try:
        text = decode(path.read_bytes(), path.name, most=None, most_rows=None)
    except OSError as error:
        raise ValueError(f"prompts: {path} cannot be read ({error})") from error
    except ValueError as error:
        raise ValueError(f"{error} ({path})") from error
    parsed = parse(text, name=path.name, validation=None, most_rows=None)
    if parsed.errors:
        told = "; ".join(str(problem) for problem in parsed.errors[:5])
        more = f"; and {len(parsed.errors) - 5} more" if len(parsed.errors) > 5 else ""
        raise ValueError(f"prompts: {path}, {told}{more}")
    found = [row for row in parsed.rows if (row.split or (None if only_marked else split)) == split]
    cut = [] if model is None else cut_prompts(model, [(row.line, row.prompt) for row in found])
    for problems, what in ((parsed.left_out, "left out"), (cut, "cut")):
        for problem in problems[:20]:
            log.warning("%s, %s", path, problem)
        if len(problems) > 20:
            log.warning("%s, and %s lines more are %s", path, len(problems) - 20, what)
    if not found:
        raise ValueError(f"prompts: {path} has none" + (f" with the split {split}" if parsed.rows else ""))
    return [_checked(path, row, check) for row in found]


def _checked(path: Path, row: Row, check: Check | None) -> dict:
    line = {**row.metadata, "prompt": row.prompt}
    if check is not None:
        try:
            check(row.prompt, line)
        except ValueError as error:
            raise ValueError(f"prompts: {path}, line {row.line}: {error}") from error
    return line


def _row(line: int, found: dict, validation: float | None, test: float, check: Check | None) -> Row | Problem:
    given, split, metadata = found.get("prompt"), found.get("split"), found.get("metadata")
    if not isinstance(given, str) or not given.strip():
        return Problem(line, _("prompt: give a text"))
    try:
        prompt = canonical_prompt(given)
    except ValueError as error:
        return Problem(line, _("prompt: %(error)s") % {"error": error})
    if not prompt:
        return Problem(line, _("nobody can see a character of it; left out"), harmless=True)
    if isinstance(metadata, str):
        try:
            metadata = _json(metadata) if metadata.strip() else None
        except ValueError:
            return Problem(line, _("metadata: not JSON"))
    if wrong := _cannot_be_kept(metadata):
        return Problem(line, wrong)
    if len(prompt) > LONGEST:
        return Problem(
            line, _("prompt: %(count)s characters; %(most)s is the most") % {"count": len(prompt), "most": LONGEST}
        )
    if split in (None, ""):
        split = "" if validation is None else split_of(prompt, validation, test)
    elif split not in SPLITS:
        return Problem(
            line, _("split: %(split)s is not one of %(values)s") % {"split": repr(split), "values": ", ".join(SPLITS)}
        )
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict):
        return Problem(line, _("metadata: give a JSON object"))
    try:
        metadata = checked_line(metadata)
        if check is not None:
            check(prompt, metadata)
    except LineError as error:
        return Problem(line, _(error.template) % error.about)
    except ValueError as error:
        return Problem(line, str(error))
    return Row(line, prompt, split, metadata | ({"prompt": prompt} if "prompt" in metadata else {}))


def _cannot_be_kept(metadata: object) -> str | None:
    """What no database takes: NUL, half a surrogate pair, numbers beyond all bounds."""
    try:
        text = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:
        return _("metadata: it holds half a character; write the whole one")
    except ValueError:
        return _("metadata: a number is too large, or it is nested too deeply")
    if "\\u0000" in text:
        return _("metadata: it holds a NUL character; remove it")
    return None


def _json(text: str):
    """JSON without NaN and Infinity, which no database keeps, and without a key that is there twice. Raises ValueError."""
    check_json(text)
    return DECODER.decode(text)


def _refuse(name: str):
    raise ValueError(_("%(name)s is not JSON") % {"name": name})


def _object(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _value in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise ValueError(_("the key %(key)s is there twice; remove one") % {"key": repr(twice)})
    return found


DECODER = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_object)


def _parquet_text(data: bytes, most: int | None, most_rows: int | None) -> str:
    """JSON lines, a line a row."""
    limits = tables.Limits(most_rows or UNLIMITED, 5 * most if most else UNLIMITED)
    try:
        return "\n".join(tables.read(data, limits))
    except Unreadable as error:
        raise Unreadable(gettext_noop("not Parquet that can be read: %(error)s"), error=error) from error


def _renamed(row: dict, columns: Mapping[str, str]) -> dict:
    """The row with each mapped column under its field's name; a column that is mapped away is not there twice."""
    taken = {column: row.get(column) for column in columns.values()}
    rest = {k: v for k, v in row.items() if k not in taken and k not in columns}
    return rest | {field: taken[column] for field, column in columns.items() if taken[column] is not None}


def _text_lines(text: str, columns: Mapping[str, str]):
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            yield line, {"prompt": content}


def _header(text: str, wanted: str) -> tuple[str, list[str]]:
    """(delimiter, names of the columns in lower case) of CSV: the delimiter by which `wanted` is one of the names, of
    several the one with the most names; Excel's own line `sep=` decides before that."""
    lines = [line for line in text.split("\n", 20)[:20] if line.strip()]
    if not lines:
        return ",", []
    if separator := _told_separator(lines[0]):
        return separator, _names(next(iter(lines[1:]), ""), separator)
    found = [(delimiter, _names(lines[0], delimiter)) for delimiter in DELIMITERS]
    return max(found, key=lambda pair: (wanted in pair[1], len(pair[1])))


def _told_separator(line: str) -> str:
    match = re.fullmatch(r"\s*\"?sep=(.)\"?\s*", line, re.IGNORECASE)
    return match[1] if match and match[1] in DELIMITERS else ""


def _names(line: str, delimiter: str) -> list[str]:
    try:
        cells = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []
    return [cell.strip().lower() for cell in cells]


def _csv_lines(text: str, mapped: Mapping[str, str]):
    mapped = {field: column.lower() for field, column in mapped.items()}
    wanted = {"prompt": "prompt"} | mapped
    delimiter, names = _header(text, wanted["prompt"])
    if "prompt" not in mapped and "prompt" not in names and ALSO_PROMPT in names:
        mapped["prompt"] = wanted["prompt"] = ALSO_PROMPT
    columns = None
    for line, cells in _csv_records(text, delimiter):
        if isinstance(cells, Problem):
            yield line, cells
        elif columns is None:
            columns = [cell.strip().lower() for cell in cells]
            if wrong := _wrong_header(columns, wanted):
                yield line, Problem(line, wrong)
                return
        else:
            while len(cells) > len(columns) and not cells[-1].strip():  # a spreadsheet's empty columns
                cells.pop()
            if len(cells) == len(columns):
                yield line, _with_metadata(_renamed(_cells(columns, cells), mapped))
            else:
                sentence = _("%(count)s cells where the first line names %(columns)s columns")
                yield line, Problem(line, sentence % {"count": len(cells), "columns": len(columns)})


def _csv_records(text: str, delimiter: str) -> Iterator[tuple[int, list[str] | Problem]]:
    """(line where it starts, cells) of every record that is not blank, read as spreadsheets do: a quote within a text is
    a quote. One that opens a text must be closed, or lines would run into each other."""
    lines = text.split("\n")
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
            if reader.line_num > start or reader.line_num >= len(lines) - 1:
                list(csv.reader(_ended(lines[start - 1 : reader.line_num]), delimiter=delimiter, strict=True))
        except StopIteration:
            return
        except csv.Error as error:
            if reader.line_num == start and "end of data" not in str(error) and "field larger" not in str(error):
                pass  # a single line with a quote in a text
            else:
                yield start, Problem(start, _("a quote that opens here is not closed (%(error)s)") % {"error": error})
                return
        if any(cell.strip() for cell in cells) and not (start == 1 and _told_separator(lines[0])):
            yield start, cells


def _ended(lines: list[str]) -> list[str]:
    return [f"{line}\n" for line in lines[:-1]] + lines[-1:]


def _wrong_header(columns: list[str], wanted: Mapping[str, str]) -> str | None:
    try:
        tables.check_names(columns)
    except Unreadable as error:
        return str(error)
    for name in wanted.values():
        if name not in columns:
            return _("no column is called %(name)s; name the columns in the first line") % {"name": name}
    return None


def _cells(columns: list[str], cells: list[str]) -> dict:
    """A record as a dict; what is empty, or has no name, is not there. Lists of GenEval and GenEval 2, and what UniGenBench
    says of a prompt, are JSON in their cells."""
    found: dict = {name: cell for name, cell in zip(columns, cells, strict=True) if name and cell.strip()}
    for name in ("include", "exclude", "vqa_list", "sub_dims"):
        with suppress(ValueError):
            if name in found:
                found[name] = _json(found[name])
    return found


def _json_lines(text: str, columns: Mapping[str, str]):
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            found = _json(content.strip())
        except ValueError as error:
            yield line, Problem(line, _("not JSON: %(error)s") % {"error": getattr(error, "msg", error)})
            continue
        yield line, _entry(line, found, columns)


def _json_entries(text: str, columns: Mapping[str, str]):
    """The entries of a JSON list (objects, or prompts alone), or one object, each with the line it starts on."""
    at, line, counted = 0, 1, 0
    try:
        check_json(text)
        if text.lstrip().startswith("["):
            _json(text)  # as a whole, so that no entry of a broken list counts
            at = text.index("[") + 1
        while True:
            while at < len(text) and (text[at].isspace() or text[at] == ","):
                at += 1
            if at >= len(text) or text[at] == "]":
                return
            line, counted = line + text.count("\n", counted, at), at
            found, at = DECODER.raw_decode(text, at)
            yield line, _entry(line, {"prompt": found} if isinstance(found, str) else found, columns)
    except ValueError as error:
        line = getattr(error, "lineno", line)
        yield line, Problem(line, _("not JSON: %(error)s") % {"error": getattr(error, "msg", error)})


def _entry(line: int, found: object, columns: Mapping[str, str]) -> dict | Problem:
    if not isinstance(found, dict):
        return Problem(line, _("not a JSON object"))
    if "prompt" not in columns and "prompt" not in found and ALSO_PROMPT in found:
        columns = {**columns, "prompt": ALSO_PROMPT}
    return _with_metadata(_renamed(found, columns))


def _with_metadata(found: dict) -> dict:
    """GenEval's line is its own metadata; what stands beside a `metadata` of one's own belongs to it."""
    rest = {k: v for k, v in found.items() if k not in ("split", "metadata")}
    own = found.get("metadata")
    if own in (None, ""):
        return {**found, "metadata": rest if len(rest) > 1 else None}
    if isinstance(own, dict):
        return {**found, "metadata": {k: v for k, v in rest.items() if k != "prompt"} | own}
    return found
