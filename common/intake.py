"""What somebody sent, judged before anything decodes it: what it is by its content, and the sizes that it names.

Every file of others comes through here. Texts and Parquet are told from all else (`form`); JSON is counted before Python
builds anything of it (`check_json`); an image's size is read from its header (`picture`). Parquet is then read by a process
of its own (`common.tables`), an archive member by member (`common.archives`), a stranger's image without anything but its
pixels (`common.own_pictures`).
"""

from __future__ import annotations

import io
import re
import struct
from typing import TYPE_CHECKING

from common.language import gettext, gettext_noop

if TYPE_CHECKING:
    from PIL import Image

# What files begin with; the names are for messages.
MAGIC = {
    b"PAR1": "Parquet",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"PK\x03\x04": "ZIP",
    b"PK\x05\x06": "ZIP",
    b"\x1f\x8b": "gzip",
    b"%PDF": "PDF",
}
MOST_PIXELS = 8192 * 8192  # of an image; no model makes larger ones
MOST_VALUES = 300_000  # of a JSON text: each takes 30 to 100 bytes of memory, whatever it takes in the text
DEEPEST = 100  # lists and objects within each other
STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
STRING_OF_BYTES = re.compile(STRING.pattern.encode(), re.DOTALL)
BRACKET = re.compile(r"[\[{]|[\]}]")
BRACKET_OF_BYTES = re.compile(BRACKET.pattern.encode())


class Unreadable(ValueError):
    """Why a file is not read, in a sentence: `template % about`, in the reader's language when it is shown."""

    def __init__(self, template: str, **about):
        super().__init__(template, about)
        self.template, self.about = template, about

    def __str__(self) -> str:
        return gettext(self.template) % self.about


class NotRows(Unreadable):
    """A file of another kind than one of rows."""

    def __init__(self, found: str):
        super().__init__(gettext_noop("its content is %(kind)s; send text, CSV, JSONL or Parquet"), kind=found)


def kind(data: bytes) -> str:
    """One of MAGIC's names, "binary" or "text"."""
    found = next((name for magic, name in MAGIC.items() if data.startswith(magic)), "")
    return found or ("binary" if b"\0" in data[:4096] else "text")


def form(data: bytes, name: str) -> str:
    """How a file of rows is to be read: "text", "binary" (in which another character set may be) or "Parquet"; its name
    counts only where its content tells nothing. Raises Unreadable with what else it is."""
    found = kind(data)
    if found in ("text", "binary"):
        return "Parquet" if name.lower().endswith(".parquet") else found
    if found != "Parquet":
        raise NotRows(found)
    return found


def check_json(text: str | bytes) -> None:
    """Raise Unreadable for JSON of more than MOST_VALUES values, or nested deeper than DEEPEST. Nothing is built of it: a
    list of empty lists takes thirty times its own size. What is no JSON is for its reader to say."""
    string, bracket = (STRING, BRACKET) if isinstance(text, str) else (STRING_OF_BYTES, BRACKET_OF_BYTES)
    opens, closes, comma, nothing = ("[{", "]}", ",", "") if isinstance(text, str) else (b"[{", b"]}", b",", b"")
    if _opened(text, opens) + text.count(comma) <= DEEPEST:  # strings count too: it is no more than that
        return
    bare = string.sub(nothing, text)
    opened = _opened(bare, opens)
    if opened + bare.count(comma) > MOST_VALUES:
        raise Unreadable(gettext_noop("it holds more than %(most)s values; split it"), most=f"{MOST_VALUES:,}")
    if opened <= DEEPEST:
        return
    depth = 0
    for found in bracket.findall(bare):
        depth += -1 if found in closes else 1
        if depth > DEEPEST:
            raise Unreadable(gettext_noop("it is nested too deep; %(most)s levels are the most"), most=DEEPEST)


def _opened(text: str | bytes, opens: str | bytes) -> int:
    return text.count(opens[:1]) + text.count(opens[1:])


def picture(data: bytes) -> Image.Image:
    """A PNG or WebP image, in RGB. Raises Unreadable for another file, or one that says it has more than MOST_PIXELS, and
    ValueError or OSError for a damaged one."""
    from PIL import Image

    width, height = declared_size(data)
    if width * height > MOST_PIXELS:
        about = {"width": width, "height": height, "most": f"{MOST_PIXELS:,}"}
        raise Unreadable(gettext_noop("it has %(width)s × %(height)s pixels; %(most)s are the most"), **about)
    with Image.open(io.BytesIO(data), formats=["PNG", "WEBP"]) as image:
        return image.convert("RGB")


def declared_size(data: bytes) -> tuple[int, int]:
    """(width, height) as the header of a PNG or WebP image says; pillow makes room for a WebP image when it is opened."""
    try:
        if kind(data) == "PNG":
            return struct.unpack(">II", data[16:24])
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp_size(data)
    except struct.error:
        pass
    raise Unreadable(gettext_noop("it is no whole PNG or WebP image"))


def _webp_size(data: bytes) -> tuple[int, int]:
    """By its first chunk: lossy, lossless, or with a canvas."""
    if data[12:16] == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return width, height
    if data[12:16] == b"VP8L":
        (bits,) = struct.unpack("<I", data[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", data[26:30])
    return width & 0x3FFF, height & 0x3FFF
