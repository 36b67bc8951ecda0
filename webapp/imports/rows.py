"""Tables with the images inside: pairs as Pick-a-Pic has them, or an image a row as `datasets` writes image folders.

A pair with a label is a group of two, since its label compares these two only; the better image is liked, the other one
disliked. Without labels the images of one prompt are grouped as those of an archive.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Iterator

from django.conf import settings
from django.utils.translation import gettext_noop

from common import own_pictures, tables
from common.intake import Unreadable, check_json, form
from webapp.imports.captions import COLUMNS
from webapp.imports.reading import Bunch, Picture, Reader
from webapp.imports.report import Line

PROMPTS = ("caption", *(name for name in COLUMNS if name != "caption"))
FIRST, SECOND, SINGLE = ("jpg_0", "image_0"), ("jpg_1", "image_1"), ("image", "jpg")
LABELS = ("label_0", "label_1", "has_label")
IMAGES = (*FIRST, *SECOND, *SINGLE)
MOST_ROWS = 50_000
LONGEST_LINE = 30_000_000  # characters of a row of JSONL
LONGEST_TEXT = 20_000


def read(reader: Reader, data: bytes, name: str, *, labels: bool) -> list[Bunch]:
    """The pictures of a table's rows; with `labels` pairs are groups with likes. Raises Unreadable."""
    found: dict[str, list[Picture]] = {}
    pairs = []
    for number, row in _rows(data, name):
        place = f"{name}, {number}"
        try:
            if not isinstance(row, dict):
                raise Unreadable(gettext_noop("it is no JSON object"))
            pictures, likes = _pictures(reader, row, place, labels)
        except Unreadable as error:
            reader.lines.append(Line.of(place, error))
            continue
        if likes is not None:
            pairs.append(Bunch(pictures[0].prompt, pictures, likes))
        else:
            for picture in pictures:
                found.setdefault(picture.prompt, []).append(picture)
    return [*pairs, *(Bunch(prompt, pictures) for prompt, pictures in found.items())]


def _pictures(reader: Reader, row: dict, place: str, labels: bool) -> tuple[list[Picture], dict[int, bool] | None]:
    """A row's new pictures, and the likes of a labelled pair."""
    prompt = next((row[name] for name in PROMPTS if isinstance(row.get(name), str) and row[name]), "")
    sides = [_image(row, names) for names in (FIRST, SECOND)]
    if all(side is None for side in sides):
        if (single := _image(row, SINGLE)) is None:
            raise Unreadable(gettext_noop("no image: jpg_0 and jpg_1, or image, hold its bytes"))
        return _some(reader, [single], prompt, place), None
    if any(side is None for side in sides):
        raise Unreadable(gettext_noop("one image of the pair is missing"))
    likes = _likes(row) if labels else None
    if likes is None:
        return _some(reader, sides, prompt, place), None
    for side in sides:  # both, before one of them counts as taken
        own_pictures.size_of(side)
    pictures = []
    for n, side in enumerate(sides):
        beside = f"{n}{sorted(likes.items())}{own_pictures.digest(sides[1 - n])}"
        pictures.append(reader.picture(f"{place}, {n}", side, prompt or reader.choices.prompt, beside=beside))
    if None in pictures:
        return [], None
    return pictures, likes


def _some(reader: Reader, images: list[bytes], prompt: str, place: str) -> list[Picture]:
    found = []
    for n, image in enumerate(images):
        name = place if len(images) == 1 else f"{place}, {n}"
        try:
            text, tool = prompt, ""
            if not text and (noted := own_pictures.noted_prompt(image)):
                text, tool = noted
            found.append(reader.picture(name, image, text or reader.choices.prompt, tool=tool))
        except Unreadable as error:
            reader.lines.append(Line.of(name, error))
    return [picture for picture in found if picture is not None]


def _likes(row: dict) -> dict[int, bool] | None:
    """Which image of the pair is better; None where that is not said, or neither is."""
    values = [row.get("label_0"), row.get("label_1")]
    numbers = all(isinstance(v, int | float) for v in values)
    if row.get("has_label") is False or not numbers or values[0] == values[1]:
        return None
    return {0: values[0] > values[1], 1: values[1] > values[0]}


def _image(row: dict, names: tuple[str, ...]) -> bytes | None:
    """The first column with an image: base64, or a data URI. Raises Unreadable for another text."""
    value = next((row[name] for name in names if row.get(name)), None)
    if value is None:
        return None
    if isinstance(value, dict):
        value = value.get("bytes")
    if not isinstance(value, str):
        raise Unreadable(gettext_noop("its image is no base64"))
    if value.startswith("data:"):
        value = value.partition(",")[2]
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unreadable(gettext_noop("its image is no base64")) from error


def _rows(data: bytes, name: str) -> Iterator[tuple[int, object]]:
    """(number, row) of Parquet or JSONL. Raises Unreadable."""
    if form(data, name) == "Parquet":
        limits = tables.Limits(
            MOST_ROWS,
            4 * settings.LIKESTEP_IMAGES_LIMIT,
            (*PROMPTS, *LABELS, *IMAGES),
            LONGEST_TEXT,
            flat=True,
            binary=IMAGES,
        )
        for number, line in enumerate(tables.each(data, limits), start=1):
            yield number, json.loads(line)
        return
    for number, line in enumerate(io.BytesIO(data), start=1):
        if not line.strip():
            continue
        if number > MOST_ROWS:
            raise Unreadable(gettext_noop("it has more than %(most)s rows; split the file"), most=f"{MOST_ROWS:,}")
        yield number, _json_row(line)


def _json_row(line: bytes) -> object:
    try:
        if len(line) > LONGEST_LINE:
            return None
        check_json(line)
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def is_table(found: str, name: str) -> bool:
    """Whether a file of that content and name is one of rows."""
    return found == "Parquet" or (found == "text" and name.lower().endswith((".jsonl", ".ndjson")))
