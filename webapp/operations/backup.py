"""Back-up and restore: one tar file with the database and every file that its rows name.

The database is copied first. Files are written before the rows that name them, so every file of the copied rows is there
when the files are copied. The manifest comes last: a back-up without one was cut off.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.db import connection
from django.utils import timezone

from common import round_folder
from common.files import sha256_of
from webapp.labelling.models import Generation, Group
from webapp.lib import paths, storage
from webapp.rounds.models import ModelVersion

FORMAT = 1
MANIFEST = "manifest.json"
DATABASE = {"postgresql": "database.pgdump", "sqlite": "database.sqlite3"}
MOST_MANIFEST = 2_000_000_000  # bytes: about 15 million files


class BackupError(ValueError):
    """A back-up that cannot be made or used; the message says why and what to do."""


# ---------------------------------------------------------------- back-up


def back_up(target: Path) -> dict[str, int]:
    """Write everything to `target` (a tar file that is not there yet), whole or not at all; returns counts by folder."""
    if target.exists():
        raise BackupError(f"file: {target} exists; choose another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch, temporary.open("wb") as file:
            counts = _write(file, Path(scratch))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except (storage.Unreachable, storage.Damaged) as error:
        raise BackupError(str(error)) from error
    except OSError as error:
        raise BackupError(f"file: {target} cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return counts


def _write(file, scratch: Path) -> dict[str, int]:
    sums: dict[str, str] = {}
    counts = dict.fromkeys(paths.FOLDERS, 0)
    with tarfile.open(fileobj=file, mode="w") as tar:

        def add(source: Path, name: str) -> None:
            sums[name] = sha256_of(source)
            tar.add(source, name, recursive=False)

        dump = scratch / DATABASE[connection.vendor]
        _dump(dump)
        add(dump, dump.name)
        for name, copy in storage.store().copies(scratch / "files"):
            add(copy, f"data/{name}")
            counts[name.split("/")[0]] += 1
        about = {"format": FORMAT, "made_at": timezone.now().isoformat(), "database": connection.vendor, "sha256": sums}
        data = json.dumps(about, indent=1).encode()
        entry = tarfile.TarInfo(MANIFEST)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return counts


# ---------------------------------------------------------------- restore


def restore(source: Path) -> dict[str, int]:
    """Bring a back-up into an empty place: a database without people and a data folder without files.

    Everything is checked before anything is changed. Returns counts by folder; run the migrations afterwards.
    """
    root = settings.LIKESTEP_DATA
    root.mkdir(parents=True, exist_ok=True)
    _refuse_unless_empty(root)
    with tempfile.TemporaryDirectory(dir=root, prefix=".restore-") as scratch:
        about = _unpack(source, Path(scratch))
        if about["database"] != connection.vendor:
            raise BackupError(
                f"DATABASE_URL: the back-up is of {about['database']}, this is {connection.vendor}; restore into the same"
            )
        unpacked, brought = Path(scratch) / "data", []
        try:
            storage.store().bring_in(unpacked, brought)
            _load(Path(scratch) / DATABASE[connection.vendor])
        except BaseException as error:
            storage.store().take_out(brought)
            if isinstance(error, storage.Unreachable):
                raise BackupError(str(error)) from error
            raise
    return {f: sum(name.startswith(f"data/{f}/") for name in about["sha256"]) for f in paths.FOLDERS}


def restore_one(source: Path, name: str) -> None:
    """Bring one file back, over a damaged one or where there is none; `name` is as rows and errors have it, for example
    `trajectories/1/7.safetensors`. The database stays as it is."""
    with tempfile.TemporaryDirectory() as scratch:
        with _opened(source) as (tar, about):
            try:
                entry, digest = tar.getmember(f"data/{name}"), about["sha256"][f"data/{name}"]
            except KeyError as error:
                raise BackupError(f"file: {source} has no {name}; look for it in another back-up") from error
            _take(tar, entry, digest, Path(scratch), source)
        try:
            storage.store().keep(name, Path(scratch) / "data" / name)
        except OSError as error:
            raise BackupError(f"{name}: it cannot be written: {error}") from error


def _refuse_unless_empty(root: Path) -> None:
    user = apps.get_model(settings.AUTH_USER_MODEL)
    if user._meta.db_table in connection.introspection.table_names() and user.objects.exists():
        raise BackupError("DATABASE_URL: the database has people in it; restore into an empty one")
    for folder in paths.FOLDERS:
        if next(storage.store().walk(folder), None) is not None:
            where = storage.store().place(folder)
            raise BackupError(f"LIKESTEP_DATA: {where} has files in it; restore into an empty folder or bucket")


def _unpack(source: Path, scratch: Path) -> dict:
    """Unpack the files that the manifest names, each checked against it; returns the manifest."""
    with _opened(source) as (tar, about):
        wanted = dict(about["sha256"])
        for entry in tar:
            if entry.name == MANIFEST:
                continue
            _take(tar, entry, wanted.pop(entry.name, None), scratch, source)
    if wanted:
        raise BackupError(f"file: {source} lacks {_known_as(min(wanted))}; use another one")
    return about


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[tuple[tarfile.TarFile, dict]]:
    """A back-up and its manifest, which is checked. Only what `_take` reads comes out of the archive."""
    try:
        with tarfile.open(source, mode="r:") as tar:
            yield tar, _manifest(tar, source)
    except BackupError:
        raise
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise BackupError(f"file: {source} is not a whole back-up ({error}); use another one") from error


def _manifest(tar: tarfile.TarFile, source: Path) -> dict:
    try:
        entry = tar.getmember(MANIFEST)
    except KeyError as error:
        raise BackupError(f"file: {source} is not a whole back-up (it has no {MANIFEST}); use another one") from error
    if not entry.isreg() or entry.size > MOST_MANIFEST:
        raise BackupError(f"file: {source}: {MANIFEST} is no file of at most {MOST_MANIFEST:,} bytes; use another one")
    about = json.load(tar.extractfile(entry))
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else None
        raise BackupError(f"file: {source} has format {found}, this version reads {FORMAT}")
    sums, vendor = about.get("sha256"), about.get("database")
    if not isinstance(vendor, str) or vendor not in DATABASE or not isinstance(sums, dict):
        raise BackupError(f"file: {source}: {MANIFEST} names no database or no files; use another one")
    dump = DATABASE[vendor]
    if dump not in sums:
        raise BackupError(f"file: {source} has no {dump}; use another one")
    for name, digest in sums.items():
        if not (name == dump or _is_data(name)) or not isinstance(digest, str):
            raise BackupError(f"file: {source} names {name!r}, which is no file of a back-up; use another one")
    return about


def _is_data(name: str) -> bool:
    """Whether a name is of a file in one of the data folder's folders, and cannot lead out of it."""
    folder, *rest = name.removeprefix("data/").split("/")
    parts_sound = all(part not in ("", ".", "..") for part in rest) and "\\" not in name and "\0" not in name
    return name.startswith("data/") and folder in paths.FOLDERS and bool(rest) and parts_sound


def _known_as(name: str) -> str:
    """A file of the archive as rows, errors and `--only` name it."""
    return name.removeprefix("data/")


def _take(tar: tarfile.TarFile, entry: tarfile.TarInfo, digest: str | None, scratch: Path, source: Path) -> None:
    """Write one regular file of the archive below `scratch`, which holds nothing but what this wrote. `digest` is the
    SHA-256 that the manifest names; None: it does not name the file, or it came already."""
    if digest is None or not entry.isreg() or entry.issparse():
        kind = "a file that its manifest does not name" if digest is None else "no regular file"
        raise BackupError(f"file: {source}: {entry.name!r} is {kind}; use another one")
    target = scratch / entry.name
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        shutil.copyfileobj(tar.extractfile(entry), file, 1 << 20)
    if target.stat().st_size != entry.size or sha256_of(target) != digest:
        raise BackupError(f"file: {source} is damaged at {_known_as(entry.name)}; use another one")


def missing_files() -> list[str]:
    """Files that rows name and that are not there."""
    named = [g.trajectory_file for g in Group.objects.exclude(trajectory_file="").only("trajectory_file").iterator()]
    named += Generation.objects.values_list("image", flat=True).iterator()
    named += [f"{v.path}/{round_folder.VERSION}" for v in ModelVersion.objects.all() if not Path(v.path).is_absolute()]
    there = {entry.name for folder in paths.FOLDERS for entry in storage.store().walk(folder)}
    return [name for name in named if name not in there]


# ---------------------------------------------------------------- databases


def _dump(target: Path) -> None:
    if connection.vendor == "sqlite":
        connection.ensure_connection()
        with sqlite3.connect(target) as copy:
            connection.connection.backup(copy)
        copy.close()
        return
    _run(["pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--file", str(target)])


def _load(source: Path) -> None:
    if connection.vendor == "sqlite":
        connection.ensure_connection()
        with sqlite3.connect(source) as copy:
            copy.backup(connection.connection)
        copy.close()
        return
    options = ["--no-owner", "--no-privileges", "--clean", "--if-exists", "--single-transaction", "--exit-on-error"]
    _run(["pg_restore", *options, "--dbname", connection.settings_dict["NAME"], str(source)])


def _run(command: list[str]) -> None:
    """A program of PostgreSQL's; how to reach the database goes through its environment, where nobody else reads it."""
    connection.close()
    wanted = connection.get_connection_params()
    names = {"dbname": "PGDATABASE", "user": "PGUSER", "password": "PGPASSWORD", "host": "PGHOST", "port": "PGPORT"}
    names |= {"sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}
    environment = {**os.environ, **{names[k]: str(v) for k, v in wanted.items() if k in names and v}}
    try:
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise BackupError(
            f"{command[0]}: not found; install PostgreSQL's client programs, the server's version"
        ) from error
    if run.returncode:
        raise BackupError(f"{command[0]} failed: {run.stderr.strip()[-2000:]}")
