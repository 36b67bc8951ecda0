"""PNG as a list of chunks: the texts that programs leave in it, and what is left without them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from common.intake import Unreadable
from common.language import gettext_noop

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PICTURE = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # the chunks that the pixels are made of
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
MOST_CHUNKS = 100_000
MOST_TEXT = 2_000_000  # bytes of a text; larger ones are passed over
MOST_TEXTS = 32  # that are looked at
DAMAGED = gettext_noop("it is no whole PNG image")


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start of what it holds, length) of each chunk up to the end. Raises Unreadable where it is cut off, or begins
    or goes on as no PNG does."""
    if not data.startswith(SIGNATURE):
        raise Unreadable(DAMAGED)
    place = len(SIGNATURE)
    for number in range(MOST_CHUNKS):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        # A second header would have another size than the one that was asked about.
        if len(kind) < 4 or place + 12 + length > len(data) or (kind == b"IHDR") != (number == 0):
            raise Unreadable(DAMAGED)
        yield kind, place + 8, length
        if kind == b"IEND":
            return
        place += 12 + length
    raise Unreadable(DAMAGED)


def bare(data: bytes) -> bytes:
    """The same image with nothing but its pixels. Raises Unreadable."""
    kept = [data[start - 8 : start + length + 4] for kind, start, length in chunks(data) if kind in PICTURE]
    return SIGNATURE + b"".join(kept)


def texts(data: bytes) -> dict[str, str]:
    """Its texts by their keywords, the first of each; those that are too long or cannot be read are not there. Raises
    Unreadable for what is no PNG."""
    found: dict[str, str] = {}
    looked = 0
    for kind, start, length in chunks(data):
        if kind not in TEXTS or looked >= MOST_TEXTS or length > MOST_TEXT:
            continue
        looked += 1
        keyword, _, rest = data[start : start + length].partition(b"\0")
        text = _text(kind, rest)
        if text is not None:
            found.setdefault(keyword.decode("latin-1"), text)
    return found


def _text(kind: bytes, rest: bytes) -> str | None:
    """What follows a text's keyword, read as its kind is."""
    try:
        if kind == b"tEXt":
            return _decoded(rest)
        if kind == b"zTXt":
            return _decoded(_inflated(rest[1:]))
        compressed, rest = rest[0], rest[2:]
        _language, _, rest = rest.partition(b"\0")
        _translated, _, rest = rest.partition(b"\0")
        return (_inflated(rest) if compressed else rest).decode()
    except (ValueError, IndexError, zlib.error):
        return None


def _decoded(data: bytes) -> str:
    """Latin-1, says the standard; many programs write UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _inflated(data: bytes) -> bytes:
    """Raises ValueError for more than MOST_TEXT bytes."""
    inflater = zlib.decompressobj()
    found = inflater.decompress(data, MOST_TEXT)
    if inflater.unconsumed_tail or not inflater.eof:
        raise ValueError("it is longer than it may be, or cut off")
    return found
