"""An archive that somebody made to get out of the data folder, or to bring what is no back-up's, is refused whole."""

import io
import json
import os
import tarfile
from hashlib import sha256

import pytest
from django.db import connection

from webapp.operations.backup import DATABASE, FORMAT, MANIFEST, BackupError, restore, restore_one

pytestmark = pytest.mark.django_db
DUMP = DATABASE["sqlite"]
NAME = "data/media/projects/1/groups/1/0.webp"


def entry(name: str, data: bytes = b"", **changes) -> tuple[tarfile.TarInfo, bytes]:
    found = tarfile.TarInfo(name)
    found.size = len(data)
    for key, value in changes.items():
        setattr(found, key, value)
    return found, data


@pytest.fixture
def archive(tmp_path, settings):
    """archive(entries, **manifest): a file with these entries and a manifest that names them, but for `manifest`."""
    settings.LIKESTEP_DATA = tmp_path / "home" / "data"

    def make(*entries, dump=True, compress="", **changes):
        entries = [*([entry(DUMP, b"database")] if dump else []), *entries]
        sums = {found.name: sha256(data).hexdigest() for found, data in entries}
        about = {"format": FORMAT, "database": "sqlite", "sha256": sums} | changes
        file = tmp_path / "hostile.tar"
        with tarfile.open(file, f"w:{compress}") as tar:
            for found, data in [*entries, entry(MANIFEST, json.dumps(about).encode())]:
                tar.addfile(found, io.BytesIO(data))
        return file

    return make


def left(folder) -> list:
    return [file for file in folder.rglob("*") if not file.is_dir() and file.name != "hostile.tar"]


LINKS = {
    "symbolic link": (entry(NAME, type=tarfile.SYMTYPE, linkname="/etc/passwd"),),
    "hard link": (entry(NAME, type=tarfile.LNKTYPE, linkname=DUMP),),
    "fifo": (entry(NAME, type=tarfile.FIFOTYPE),),
    "device": (entry(NAME, type=tarfile.CHRTYPE, devmajor=1, devminor=3),),
    "folder": (entry(NAME, type=tarfile.DIRTYPE),),
    "sparse": (entry(NAME, b"x", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**40)}),),
    "through a link": (
        entry("data/media/out", type=tarfile.SYMTYPE, linkname="../../../.."),
        entry("data/media/out/stolen", b"x"),
    ),
}


@pytest.mark.parametrize("kind", LINKS)
def test_only_regular_files_come_out(kind, archive, tmp_path):
    with pytest.raises(BackupError, match=r"no regular file|damaged"):
        restore(archive(*LINKS[kind]))
    assert left(tmp_path) == []


def test_links_beyond_what_a_path_may_hold_lead_nowhere(archive, tmp_path):
    """Older releases of Python 3.11 resolve such a chain wrongly in tar's own filter."""
    part, chain, at = "d" * 247, [], ""
    for letter in "abcdefghijklmnop":
        chain.append(entry(f"data/media/{at}{part}", type=tarfile.DIRTYPE))
        chain.append(entry(f"data/media/{at}{letter}", type=tarfile.SYMTYPE, linkname=part))
        at += f"{letter}/"
    chain.append(entry(f"data/media/{at}{'l' * 254}", type=tarfile.SYMTYPE, linkname="../" * 16))
    chain.append(entry("data/media/escape", type=tarfile.SYMTYPE, linkname=f"{at}{'l' * 254}/../../.."))
    with pytest.raises(BackupError, match="no regular file"):
        restore(archive(*chain, entry("data/media/escape/stolen", b"x")))
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    "/etc/passwd ../x data/../x data/media/../../x data/media/./x data/media//x data/media data/other/x data/media/ "
    "database.pgdump x.txt data/media/a\\b data/rounds/..".split(),
)
def test_names_that_are_no_files_of_a_backup(name, archive, tmp_path):
    with pytest.raises(BackupError, match="no file of a back-up"):
        restore(archive(entry(name, b"x")))
    assert left(tmp_path) == []


def test_what_the_manifest_does_not_name_or_the_archive_lacks(archive, tmp_path):
    whole = {DUMP: sha256(b"database").hexdigest()}
    with pytest.raises(BackupError, match="does not name"):
        restore(archive(entry(NAME, b"x"), sha256=whole))
    with pytest.raises(BackupError, match="does not name"):  # a second of one name
        restore(archive(entry(NAME, b"x"), entry(NAME, b"x")))
    with pytest.raises(BackupError, match=f"lacks {NAME.removeprefix('data/')}; use another one"):
        restore(archive(sha256={**whole, NAME: "0" * 64}))
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": {}}, f"has no {DUMP}"),
        ({"sha256": None}, "names no database or no files"),
        ({"sha256": {DUMP: 3}}, "no file of a back-up"),
        ({"database": "../x"}, "names no database or no files"),
        ({"database": ["sqlite"]}, "names no database or no files"),
        ({"format": 99}, "has format 99"),
        ({"database": "postgresql"}, "has no database.pgdump"),
    ],
)
def test_a_manifest_that_is_none(changes, message, archive, tmp_path):
    with pytest.raises(BackupError, match=message):
        restore(archive(**changes))
    with pytest.raises(BackupError, match=f"has no {DUMP}"):
        restore(archive(entry(NAME, b"x"), dump=False))
    assert left(tmp_path) == []


def test_archives_that_unpack_to_more_than_they_are(archive, tmp_path):
    file = archive(entry(NAME, bytes(10_000_000)), compress="gz")
    assert file.stat().st_size < 20_000
    with pytest.raises(BackupError, match="not a whole back-up"):
        restore(file)
    for data in (b"", b"[]", bytes(10240), os.urandom(2000)):
        file.write_bytes(data)
        with pytest.raises(BackupError, match="not a whole back-up"):
            restore(file)
    assert left(tmp_path) == []


def test_one_file_alone_is_as_well_looked_at(archive, tmp_path, settings):
    with pytest.raises(BackupError, match="no regular file"):
        restore_one(archive(*LINKS["symbolic link"]), NAME.removeprefix("data/"))
    with pytest.raises(BackupError, match=r"has no \.\./\.\./x"):
        restore_one(archive(), "../../x")
    assert left(tmp_path) == []
    restore_one(archive(entry(NAME, b"picture", mode=0o4777)), NAME.removeprefix("data/"))
    there = settings.LIKESTEP_DATA / NAME.removeprefix("data/")
    assert there.read_bytes() == b"picture" and not there.stat().st_mode & 0o7000


def test_the_other_kind_of_database_is_refused(archive, tmp_path):
    other = next(vendor for vendor in DATABASE if vendor != connection.vendor)
    file = archive(entry(DATABASE[other], b"database"), dump=False, database=other)
    with pytest.raises(BackupError, match=f"the back-up is of {other}"):
        restore(file)
    assert left(tmp_path) == []
