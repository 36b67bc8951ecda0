"""Where files are kept: in this machine's data folder, or in an S3 bucket that every machine reaches.

Files have the names of `webapp.lib.paths` in both. With a bucket the data folder is each machine's own: it holds copies by
hash in `cache/` and the rounds that are being trained. A row names a file only after `write` or `keep` has returned.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import itertools
import json
import mimetypes
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from common import round_folder
from common.cards import LORA_NAME
from common.files import sha256_of, write_atomic
from webapp.lib import paths

PIECE = 1 << 20  # bytes read at once
AT_ONCE = 16  # transfers of one task
COPIES = 256  # of a bucket's files that lie on this machine at once, for a back-up
CHECKPOINT_TRIES = 10
HASH = "sha256"  # of an object's metadata
TRIM_EVERY = 60  # seconds; copies that were used within them are in use
CUT_OFF = 86_400  # seconds after which nobody is writing an unfinished copy any more


class Unreachable(OSError):
    """The bucket cannot be used now; nothing is wrong with what was asked of it."""


class Damaged(ValueError):
    """A file is not what was written."""


@dataclass(frozen=True)
class Entry:
    """A file: `modified` in seconds since 1970."""

    name: str
    size: int
    modified: float


class Folder:
    """The data folder. A file is used where it lies, so fetching and keeping cost nothing."""

    origin = ""  # where browsers get files from, beside this site

    def write(self, name: str, data: bytes) -> None:
        """Keep `data`, whole or not at all. Raises OSError."""
        write_atomic(paths.data(name), data)

    def keep(self, name: str, file: Path) -> None:
        """Keep a file of this machine. Raises OSError."""
        target = paths.data(name)
        if file.resolve() == target:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_native_id()}.tmp")
        try:
            shutil.copyfile(file, temporary)
            with temporary.open("rb") as copy:
                os.fsync(copy.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, name: str) -> bytes:
        """A file's bytes. Raises FileNotFoundError, other OSErrors, and Damaged where a checksum tells."""
        return paths.data(name).read_bytes()

    def pieces(self, name: str) -> Iterator[bytes]:
        """The same a piece at a time."""
        with paths.data(name).open("rb") as file:
            while piece := file.read(PIECE):
                yield piece

    def fetch(self, name: str) -> Path:
        """The file on this machine. Raises FileNotFoundError, other OSErrors, and Damaged."""
        path = paths.data(name)
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return path

    def version(self, path: str, sha256: str = "") -> Path:
        """The folder of a version's LoRA on this machine. Raises Damaged when the LoRA is not the one of the row's hash,
        and OSError. A version that a project began with lies where the operator put it, at the same path everywhere."""
        folder = paths.model_version(path)
        if sha256 and not Path(path).is_absolute():
            about = (folder / LORA_NAME).stat()
            if _known_hash(folder / LORA_NAME, about.st_size, about.st_mtime_ns) != sha256:
                raise Damaged(
                    f"storage: {path}/{LORA_NAME} in the data folder is damaged (its checksum is wrong); bring it back "
                    "from a back-up"
                )
        return folder

    def exists(self, name: str) -> bool:
        """Whether the file is there. Raises OSError when that cannot be said."""
        return self.entry(name) is not None

    def entry(self, name: str) -> Entry | None:
        """What is known of a file; None when it is not there. Raises OSError."""
        path = paths.data(name)
        try:
            about = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Entry(name, about.st_size, about.st_mtime) if path.is_file() else None

    def walk(self, prefix: str) -> Iterator[Entry]:
        """The files below a folder, with what a killed process was writing."""
        root = paths.data("")
        for parent, folders, names in os.walk(paths.data(prefix)):
            folders.sort()
            for file in (Path(parent) / name for name in sorted(names)):
                try:
                    about = file.stat()
                except FileNotFoundError:  # it went while the folder was read
                    continue
                yield Entry(str(file.relative_to(root)), about.st_size, about.st_mtime)

    def delete(self, names: Iterable[str]) -> None:
        """Delete files that are there, and folders that are empty then."""
        root = paths.data("")
        for name in names:
            path = paths.data(name)
            path.unlink(missing_ok=True)
            for parent in path.parents:
                if parent.parent == root or parent == root or not parent.exists() or any(parent.iterdir()):
                    break
                parent.rmdir()

    def signed(self, name: str) -> str:
        """An address that anybody may read the file at for a short time; empty: serve the bytes yourself."""
        return ""

    def place(self, prefix: str) -> str:
        """What an admin calls the place of these files."""
        return str(paths.data(prefix))

    def copies(self, scratch: Path) -> Iterator[tuple[str, Path]]:
        """(name, file) of everything, for a back-up: each file as it was at one moment. Raises Damaged and OSError."""
        root = paths.data("")
        for folder in paths.FOLDERS:
            for file in _settled(root / folder):
                yield str(file.relative_to(root)), file
        for checkpoint in sorted(root.glob(f"{paths.training_round('*')}/{round_folder.CHECKPOINT}")):
            for file in _hold(checkpoint, scratch / checkpoint.parent.name):
                yield f"{checkpoint.relative_to(root)}/{file.name}", file

    def bring_in(self, folder: Path, brought: list[str]) -> None:
        """Everything of a back-up that was unpacked in `folder`; `brought` is told what `take_out` would take out again."""
        root = paths.data("")
        for name in paths.FOLDERS:
            if (folder / name).exists():
                shutil.rmtree(root / name, ignore_errors=True)  # holds no file
                (folder / name).replace(root / name)
                brought.append(name)

    def take_out(self, brought: Iterable[str]) -> None:
        """Undo `bring_in`."""
        for name in brought:
            shutil.rmtree(paths.data(name), ignore_errors=True)

    def check(self) -> None:
        """Raise OSError when files cannot be kept."""

    def trim(self) -> None:
        """Keep the copies on this machine within their limit."""


class Bucket(Folder):
    """An S3 bucket through django-storages. Objects carry the SHA-256 of what was written, and reading checks it."""

    def __init__(self) -> None:
        from django.core.files.storage import storages

        backend = storages["default"]
        self.name = backend.bucket_name
        self._client = backend.connection.meta.client  # one for all threads: it is safe, and slow to make
        public = storages["public"] if "public" in settings.STORAGES else backend
        self._signer = public.connection.meta.client
        self._origin = ""
        self._trimmed = float("-inf")

    def write(self, name: str, data: bytes) -> None:
        about = self._about(name, hashlib.sha256(data).hexdigest())
        with self._asking(name):
            self._client.put_object(Bucket=self.name, Key=name, Body=data, **about)

    def keep(self, name: str, file: Path) -> None:
        with self._asking(name):
            self._client.upload_file(str(file), self.name, name, ExtraArgs=self._about(name, sha256_of(file)))

    def read(self, name: str) -> bytes:
        return b"".join(self.pieces(name))

    def pieces(self, name: str) -> Iterator[bytes]:
        digest = hashlib.sha256()
        with self._asking(name):
            answer = self._client.get_object(Bucket=self.name, Key=name)
            for piece in answer["Body"].iter_chunks(PIECE):
                digest.update(piece)
                yield piece
        self._same(name, answer["Metadata"].get(HASH), digest.hexdigest())

    def fetch(self, name: str) -> Path:
        with self._asking(name):
            wanted = self._client.head_object(Bucket=self.name, Key=name)["Metadata"].get(HASH, "")
        self._same(name, wanted, wanted)
        copy = paths.cached(wanted)
        if not _used(copy):
            self._trim_at_times()
            self._download(name, copy)
        return copy

    def link(self, name: str, path: Path) -> None:
        """The file at `path`, which stays when the copy is let go of. Raises as `fetch`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        copy = self.fetch(name)
        try:
            os.link(copy, path)
        except FileNotFoundError:  # another process has trimmed just now
            self._download(name, path)

    def version(self, path: str, sha256: str = "") -> Path:
        if Path(path).is_absolute():
            return Path(path)
        weights = f"{path}/{LORA_NAME}"
        if not sha256:
            with self._asking(weights):
                sha256 = self._client.head_object(Bucket=self.name, Key=weights)["Metadata"].get(HASH, "")
            self._same(weights, sha256, sha256)
        folder = paths.cached_version(sha256)
        if (folder / LORA_NAME).is_file() and _used(folder):
            return folder
        self._trim_at_times()
        fresh = folder.with_name(f".{folder.name}.{os.getpid()}-{threading.get_native_id()}.tmp")
        try:
            for entry in self.walk(path):
                self._download(entry.name, fresh / entry.name.removeprefix(f"{path}/"))
            if not (fresh / LORA_NAME).is_file():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), weights)
            self._same(weights, sha256, sha256_of(fresh / LORA_NAME))
            fresh.rename(folder)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:  # another process of this machine was faster
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return folder

    def entry(self, name: str) -> Entry | None:
        try:
            with self._asking(name):
                about = self._client.head_object(Bucket=self.name, Key=name)
        except FileNotFoundError:
            return None
        return Entry(name, about["ContentLength"], about["LastModified"].timestamp())

    def walk(self, prefix: str) -> Iterator[Entry]:
        with self._asking(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=f"{prefix}/")
            for page in pages:
                for row in page.get("Contents", ()):
                    yield Entry(row["Key"], row["Size"], row["LastModified"].timestamp())

    def delete(self, names: Iterable[str]) -> None:
        waiting = list(names)
        for start in range(0, len(waiting), 1000):  # as many as a request may name
            keys = [{"Key": name} for name in waiting[start : start + 1000]]
            with self._asking(waiting[start]):
                answer = self._client.delete_objects(Bucket=self.name, Delete={"Objects": keys, "Quiet": True})
            if errors := answer.get("Errors"):
                raise Unreachable(self._sentence(f"{errors[0].get('Key')}: {errors[0].get('Message')}"))

    def signed(self, name: str) -> str:
        asked, seconds = {"Bucket": self.name, "Key": name}, settings.LIKESTEP_S3_SIGNED_SECONDS
        with self._asking(name):  # asks nobody, but needs keys
            return self._signer.generate_presigned_url("get_object", asked, ExpiresIn=seconds)

    @property
    def origin(self) -> str:
        if not self._origin:
            with suppress(Unreachable):
                address = urlsplit(self.signed("x"))
                self._origin = f"{address.scheme}://{address.netloc}"
        return self._origin

    def place(self, prefix: str) -> str:
        return f"the bucket's {prefix}/"

    def copies(self, scratch: Path) -> Iterator[tuple[str, Path]]:
        # What goes meanwhile is an older checkpoint or garbage.
        names = (entry.name for folder in paths.FOLDERS for entry in self.walk(folder))
        while batch := list(itertools.islice(names, COPIES)):
            for name, copy in zip(batch, self.fetch_all(batch, scratch), strict=True):
                if isinstance(copy, Damaged):
                    raise copy
                if isinstance(copy, Path):
                    yield name, copy
            shutil.rmtree(scratch, ignore_errors=True)

    def bring_in(self, folder: Path, brought: list[str]) -> None:
        files = [file for file in folder.rglob("*") if file.is_file()]
        brought += [str(file.relative_to(folder)) for file in files]  # those that do not get there too
        self.keep_all(zip(brought, files, strict=True))

    def take_out(self, brought: Iterable[str]) -> None:
        with suppress(Unreachable):  # the first error says so, and a bucket that has files is refused
            self.delete(brought)

    def check(self) -> None:
        with self._asking(""):
            self._client.head_bucket(Bucket=self.name)

    def trim(self) -> None:
        now, found = time.time(), []
        for copy in paths.copies():
            with suppress(FileNotFoundError):  # another process of this machine trims too
                used, files = copy.stat().st_mtime, copy.rglob("*") if copy.is_dir() else [copy]
                if now - used > CUT_OFF or not copy.name.startswith("."):
                    found.append((used, sum(file.stat().st_size for file in files), copy))
        total = 0
        for used, size, copy in sorted(found, reverse=True):
            total += size
            if total > settings.LIKESTEP_CACHE_GB * 1e9 and now - used > TRIM_EVERY:
                gone = copy.with_name(f".{copy.name.removeprefix('.')}.{os.getpid()}.gone")
                with suppress(FileNotFoundError):
                    copy.rename(gone)  # at once, so that nobody meets half a version
                    shutil.rmtree(gone, ignore_errors=True) if gone.is_dir() else gone.unlink()

    def _trim_at_times(self) -> None:
        """Before something is added: machines that train nothing keep within the limit too."""
        if time.monotonic() - self._trimmed > TRIM_EVERY:
            self._trimmed = time.monotonic()
            self.trim()

    def download_all(self, names: Iterable[str], target: Callable[[str], Path]) -> None:
        """Bring objects to `target(name)` each, several at once. Raises as `fetch`."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda name: self._download(name, target(name)), names))

    def keep_all(self, files: Iterable[tuple[str, Path]]) -> None:
        """`keep` for (name, file) each, several at once. Raises Unreachable."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda pair: self.keep(*pair), files))

    def fetch_all(self, names: Iterable[str], folder: Path) -> list[Path | Exception]:
        """Copies of files in `folder` under their names, several at once; for one that is gone or damaged its error.
        Raises Unreachable."""
        return self._bring_all(self._download, names, lambda name: folder / name)

    def link_all(self, names: Iterable[str], target: Callable[[str], Path]) -> list[Path | Exception]:
        """`link` for each name at `target(name)`, several at once, with errors as in `fetch_all`."""
        return self._bring_all(self.link, names, target)

    def _bring_all(self, bring: Callable[[str, Path], None], names, target) -> list[Path | Exception]:
        def one(name: str) -> Path | Exception:
            try:
                bring(name, target(name))
                return target(name)
            except (FileNotFoundError, Damaged) as error:
                return error

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(one, names))

    def _download(self, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.tmp")
        try:
            with temporary.open("wb") as file:
                for piece in self.pieces(name):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _about(self, name: str, sha256: str) -> dict:
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        about = {"Metadata": {HASH: sha256}, "ContentType": kind}
        return about | ({"CacheControl": "private, max-age=604800, immutable"} if name.startswith("media/") else {})

    def _same(self, name: str, wanted: str | None, found: str) -> None:
        if not wanted or wanted != found:
            what = "its checksum is wrong" if wanted else "it has no checksum, so something else wrote it"
            raise Damaged(
                f"storage: {name} in the bucket {self.name} is damaged ({what}); bring it back from a back-up"
            )

    def _sentence(self, error) -> str:
        return (
            f"storage: the bucket {self.name} cannot be used ({error}); check LIKESTEP_S3_BUCKET, its endpoint and keys, "
            "and the network"
        )

    @contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        """S3's errors as those of files: FileNotFoundError for an object that is not there, else Unreachable."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("404", "NoSuchKey", "NotFound") and self._is_there():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from error
            raise Unreachable(self._sentence(error)) from error
        except (BotoCoreError, Boto3Error) as error:
            raise Unreachable(self._sentence(error)) from error

    def _is_there(self) -> bool:
        """Whether the bucket is: a HEAD tells a missing object and a missing bucket apart by nothing."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._client.head_bucket(Bucket=self.name)
        except (BotoCoreError, ClientError):
            return False
        return True


def _settled(folder: Path) -> Iterator[Path]:
    """The files below a folder, without checkpoints (see `_hold`) and what is being written."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(d for d in folders if d != round_folder.CHECKPOINT and not d.endswith((".tmp", ".old")))
        yield from (Path(parent) / n for n in sorted(names) if not n.endswith(".tmp"))


def _hold(checkpoint: Path, scratch: Path) -> list[Path]:
    """Copy a checkpoint that may be replaced meanwhile; its own checksum tells whether both files are of one step."""
    for _ in range(CHECKPOINT_TRIES):
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            shutil.copytree(checkpoint, scratch)
            said = json.loads((scratch / round_folder.STATE_FILE).read_text())["sha256"]
            if said == sha256_of(scratch / round_folder.WEIGHTS_FILE):
                return sorted(scratch.iterdir())
        except (OSError, shutil.Error):
            if not checkpoint.exists() and not checkpoint.with_name(f"{checkpoint.name}.old").exists():
                return []  # its round was cleared away, and it is not just being replaced
    raise Damaged(f"checkpoint: {checkpoint} is damaged; delete it, its round then starts over")


def _used(copy: Path) -> bool:
    """Whether the copy is there; it is used now, and `trim` lets go of what was not used for longest."""
    try:
        os.utime(copy)
    except FileNotFoundError:
        return False
    return True


@functools.lru_cache(maxsize=64)
def _known_hash(file: Path, size: int, modified: int) -> str:
    """A file's hash, taken once for as long as it looks the same: a version is asked for with every group."""
    return sha256_of(file)


@functools.lru_cache(maxsize=1)
def _bucket(where: str) -> Bucket:
    return Bucket()


def store() -> Folder | Bucket:
    """Where this installation keeps its files."""
    if not settings.LIKESTEP_S3_BUCKET:
        return Folder()
    return _bucket(repr(settings.STORAGES))
