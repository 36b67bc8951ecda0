"""Many files of somebody's at once: an archive (ZIP) or a folder, read file by file.

An archive is judged by its directory before anything is unpacked. As a whole it is refused for what no program writes by
accident: a directory that is not where the file ends, too many members, members that lie over each other, more bytes than
`MOST_TOTAL`. A member alone is named and passed over: a place outside, a link, a second one of its name, encryption,
another compression, a size or ratio beyond the bounds, a wrong checksum. Nothing is written under a name that came in.
"""

from __future__ import annotations

import itertools
import os
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from common.intake import Unreadable
from common.language import gettext_noop

MOST_MEMBERS = 5_000
MOST_DIRECTORY = 2_000_000  # bytes that name the members
MOST_MEMBER = 64_000_000  # bytes of a file
MOST_TOTAL = 500_000_000  # bytes of all files of an archive
MOST_RATIO = 100  # of a file to what it is packed into; images hardly shrink, and texts by ten
SMALL = 20_000  # bytes of a file whose ratio is not asked about
LONGEST_NAME = 300
END = struct.Struct("<4s4H2LH")
HEADER = 30  # bytes before a member's name

TOO_MANY = gettext_noop("it holds more than %(most)s files; split it")


@dataclass(frozen=True)
class Member:
    """A file by its name with slashes; `wrong` says why it is not read."""

    name: str
    size: int
    read: Callable[[], bytes]  # raises Unreadable
    wrong: Unreadable | None = None


def members_of_zip(file: BinaryIO) -> list[Member]:
    """The files of an archive in their order, without folders. `file` must stay open while they are read. Raises Unreadable
    for an archive of which nothing is read."""
    entries = _check_directory(file)
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, UnicodeDecodeError) as error:
        raise Unreadable(gettext_noop("it is no whole ZIP archive (%(error)s)"), error=error) from error
    infos = archive.infolist()
    if len(infos) != entries:
        raise Unreadable(gettext_noop("its directory names %(n)s files and holds %(m)s"), n=entries, m=len(infos))
    _check_places(infos, archive.start_dir)
    if sum(info.file_size for info in infos) > MOST_TOTAL:
        raise Unreadable(gettext_noop("it unpacks to more than %(most)s bytes; split it"), most=f"{MOST_TOTAL:,}")
    files = [info for info in infos if not info.is_dir()]
    names = Counter(_folded(info.filename) for info in files)
    found = []
    for info in files:
        wrong = _wrong(info)
        if wrong is None and names[_folded(info.filename)] > 1:
            wrong = Unreadable(gettext_noop("two files have this name"))
        found.append(Member(info.filename, info.file_size, partial(_unpacked, archive, info), wrong))
    return found


def members_of_folder(folder: Path) -> list[Member]:
    """The regular files below a folder by their names in it, in order; links are not followed. Raises Unreadable for too
    many."""
    found = []
    for place, folders, files in os.walk(folder, followlinks=False):
        folders.sort()
        for file in sorted(files):
            path = Path(place, file)
            about = path.lstat()
            wrong = None
            if not stat.S_ISREG(about.st_mode):
                wrong = Unreadable(gettext_noop("it is no regular file"))
            elif about.st_size > MOST_MEMBER:
                wrong = _too_large(about.st_size)
            found.append(Member(path.relative_to(folder).as_posix(), about.st_size, path.read_bytes, wrong))
            if len(found) > 100 * MOST_MEMBERS:
                raise Unreadable(TOO_MANY, most=f"{100 * MOST_MEMBERS:,}")
    return found


def _check_directory(file: BinaryIO) -> int:
    """How many members the archive's last record promises; nothing of what it promises is read yet."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - END.size))
    data = file.read(END.size)
    file.seek(0)
    if len(data) < END.size or data[:4] != b"PK\x05\x06":
        raise Unreadable(gettext_noop("it does not end as a ZIP archive does; it is cut off, or has a comment"))
    _, disk, first, here, entries, length, start, comment = END.unpack(data)
    if disk or first or here != entries or comment:
        raise Unreadable(gettext_noop("it is a part of a ZIP archive; send a whole one"))
    if entries > MOST_MEMBERS or length > MOST_DIRECTORY:  # ZIP64 has its greatest numbers here
        raise Unreadable(TOO_MANY, most=f"{MOST_MEMBERS:,}")
    if start + length != size - END.size:
        raise Unreadable(gettext_noop("its directory is not at its end"))
    return entries


def _check_places(infos: list[zipfile.ZipInfo], end: int) -> None:
    """Raise Unreadable for members that share bytes: so a small archive unpacks to a huge one."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    starts = [info.header_offset for info in ordered]
    for info, (start, following) in zip(ordered, itertools.pairwise([*starts, end]), strict=True):
        if start + HEADER + info.compress_size > following:
            raise Unreadable(gettext_noop("its files lie over each other"))


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _wrong(info: zipfile.ZipInfo) -> Unreadable | None:
    name, mode = info.orig_filename, info.external_attr >> 16
    parts = name.split("/")
    if "\0" in name or "\\" in name or ":" in parts[0] or any(part in ("", ".", "..") for part in parts):
        return Unreadable(gettext_noop("its name leads out of the archive, or to nowhere"))
    if len(name) > LONGEST_NAME:
        return Unreadable(gettext_noop("its name has more than %(most)s characters"), most=LONGEST_NAME)
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return Unreadable(gettext_noop("it is no regular file"))
    if info.flag_bits & 0x41:
        return Unreadable(gettext_noop("it is encrypted"))
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return Unreadable(gettext_noop("it is compressed in a way that is not read; use deflate"))
    if info.file_size > MOST_MEMBER:
        return _too_large(info.file_size)
    if info.file_size > SMALL and info.file_size > MOST_RATIO * info.compress_size:
        return Unreadable(gettext_noop("it unpacks to more than %(most)s times its size"), most=MOST_RATIO)
    return None


def _too_large(size: int) -> Unreadable:
    return Unreadable(
        gettext_noop("it has %(size)s bytes; %(most)s are the most"), size=f"{size:,}", most=f"{MOST_MEMBER:,}"
    )


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The member's bytes, as many as it promises and no more, whatever is in the archive."""
    try:
        with archive.open(info) as member:
            data = member.read(info.file_size + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise Unreadable(gettext_noop("it is damaged in the archive (%(error)s)"), error=error) from error
    if len(data) != info.file_size:
        raise Unreadable(gettext_noop("it is cut off in the archive"))
    return data
