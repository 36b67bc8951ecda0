"""What came in a request as files: one archive, one table, or loose images with the texts beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from django.core.files.uploadedfile import UploadedFile
from django.utils.translation import gettext_noop

from common.archives import Member, members_of_zip
from common.intake import Unreadable, kind
from webapp.imports import rows
from webapp.imports.reading import Bunch, Reader


def name_of(files: Sequence[UploadedFile]) -> str:
    """What an import of these files is called."""
    return ", ".join(str(file.name) for file in files)


def read(reader: Reader, files: Sequence[UploadedFile]) -> list[Bunch]:
    """The pictures of uploaded files. Raises Unreadable."""
    archives = [file for file in files if _kind(file) == "ZIP"]
    if archives and len(files) > 1:
        raise Unreadable(gettext_noop("send an archive alone, one at a time"))
    if archives:
        return reader.read(members_of_zip(archives[0].file))
    if len(files) == 1 and rows.is_table(_kind(files[0]), files[0].name or ""):
        return rows.read(reader, files[0].read(), files[0].name or "", labels=bool(reader.choices.rater))
    return reader.read(_loose(files))


def _kind(file: UploadedFile) -> str:
    file.seek(0)
    found = kind(file.read(4096))
    file.seek(0)
    return found


def _loose(files: Sequence[UploadedFile]) -> list[Member]:
    names = Counter(file.name for file in files)
    twice = Unreadable(gettext_noop("two files have this name"))
    return [Member(f.name, f.size, f.read, twice if names[f.name] > 1 else None) for f in files]
