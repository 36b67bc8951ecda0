"""Prompts that stand beside images: a text file of the same name, or the rows of `metadata.jsonl` and `metadata.csv` as
Hugging Face's imagefolder has them (`file_name`, and `prompt`, `caption` or `text`)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from posixpath import basename, dirname, join, normpath, splitext

from django.utils.translation import gettext_noop

from common.archives import Member
from common.intake import Unreadable, check_json, kind
from webapp.imports.report import ImageOutcome, Line

TABLES = ("metadata.jsonl", "metadata.csv")
COLUMNS = ("prompt", "caption", "text")  # the first that is there
MOST_TABLE = 20_000_000  # bytes
MOST_LINE = 100_000  # bytes of a row
MOST_CAPTION = 20_000  # bytes of a text file
MOST_PROBLEMS = 20  # of a table


class Captions:
    """What the members say of each other."""

    def __init__(self, members: Sequence[Member]):
        self._texts = {m.name: m for m in members if m.name.lower().endswith(".txt") and m.wrong is None}
        self._prompts: dict[str, str] = {}
        self.lines: list[Line] = []  # of tables and texts that cannot be used
        for member in members:
            if self.is_table(member.name) and member.wrong is None:
                self._read_rows(member)

    @staticmethod
    def is_table(name: str) -> bool:
        """Whether a file of this name tells of others."""
        return basename(name).lower() in TABLES

    @staticmethod
    def is_caption(name: str) -> bool:
        """Whether it is a text, or another file that programs leave beside images."""
        return Captions.is_table(name) or splitext(name)[1].lower() in (".txt", ".json", ".yaml", ".yml", ".md", ".csv")

    def of(self, name: str) -> str | None:
        """The prompt of the image of that name; None where nothing names one. Raises Unreadable for a text that cannot be
        read."""
        if (prompt := self._prompts.get(name)) is not None:
            return prompt
        member = self._texts.get(f"{splitext(name)[0]}.txt") or self._texts.get(f"{name}.txt")
        if member is None:
            return None
        if member.size > MOST_CAPTION:
            raise Unreadable(gettext_noop("the text beside it has more than %(most)s bytes"), most=f"{MOST_CAPTION:,}")
        return _text(member.read())

    def _read_rows(self, member: Member) -> None:
        problems = []
        try:
            if member.size > MOST_TABLE:
                raise Unreadable(
                    gettext_noop("it has %(size)s bytes; %(most)s are the most"),
                    size=f"{member.size:,}",
                    most=f"{MOST_TABLE:,}",
                )
            rows = _csv_rows if member.name.lower().endswith(".csv") else _json_rows
            for number, row in rows(_text(member.read())):
                named, prompt = row.get("file_name"), next((row[c] for c in COLUMNS if row.get(c)), None)
                if not isinstance(named, str) or not isinstance(prompt, str):
                    problems.append(number)
                else:
                    self._prompts[normpath(join(dirname(member.name), named))] = prompt
        except Unreadable as error:
            self.lines.append(Line.of(member.name, error))
        if problems:
            about = {"lines": ", ".join(map(str, problems[:MOST_PROBLEMS])), "n": len(problems)}
            template = gettext_noop(
                "lines without file_name and prompt (or caption, or text): %(n)s, among them %(lines)s"
            )
            self.lines.append(Line(member.name, ImageOutcome.SKIPPED, template, about))


def _text(data: bytes) -> str:
    if kind(data) != "text":
        raise Unreadable(gettext_noop("its content is %(kind)s, no text"), kind=kind(data))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(gettext_noop("it is no UTF-8")) from error


def _json_rows(text: str) -> Iterator[tuple[int, dict]]:
    for number, line in enumerate(io.StringIO(text), start=1):
        if not line.strip():
            continue
        row = None
        if len(line) <= MOST_LINE:
            try:
                check_json(line)
                row = json.loads(line)
            except (ValueError, RecursionError):
                pass
        yield number, row if isinstance(row, dict) else {}


def _csv_rows(text: str) -> Iterator[tuple[int, dict]]:
    try:
        yield from enumerate(csv.DictReader(io.StringIO(text)), start=2)
    except csv.Error as error:
        raise Unreadable(gettext_noop("it cannot be read as CSV (%(error)s)"), error=error) from error
