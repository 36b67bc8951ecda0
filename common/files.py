"""Write files so that a stop at any moment leaves either the old one or the new one, whole. Standard library only."""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from pathlib import Path
from typing import Any


def write_atomic(path: Path, data: bytes) -> None:
    """Temporary name, fsync, rename, fsync of the folder. A write that fails leaves the old file and no temporary one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say where
            error.filename = str(path)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder outlast a power cut: until then a row in the database may name a file that is gone."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def share_as_usual(path: Path) -> None:
    """Give a safetensors file just written, or all in and under a folder, the permissions of any other new file. Their
    library makes them their owner's alone, whatever the umask says, and a trainer and the web app may be two users."""
    folder, files = (path, path.rglob("*.safetensors")) if path.is_dir() else (path.parent, [path])
    plain = folder / f".{os.getpid()}-{threading.get_native_id()}.tmp"
    plain.touch()  # the umask itself can only be read by setting it
    mode = plain.stat().st_mode
    plain.unlink()
    for file in files:
        file.chmod(mode)


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=1) + "\n").encode())


def image_bytes(image, form: str, **options) -> bytes:
    """A pillow image in a format of pillow's (`WEBP`, `PNG`, …) with its options."""
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def write_image(path: Path, image, form: str, **options) -> None:
    """The same as a file, atomically."""
    write_atomic(path, image_bytes(image, form, **options))


def check_webp(file) -> None:
    """Raise ValueError unless an open file has a WebP header that tells its own length; leaves it at its start."""
    header = file.read(12)
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    if header[:4] != b"RIFF" or header[8:] != b"WEBP":
        raise ValueError("it is not a WebP image")
    if int.from_bytes(header[4:8], "little") + 8 != length:
        raise ValueError(
            f"it has {length} bytes, not the {int.from_bytes(header[4:8], 'little') + 8} it was written with"
        )


def append_line(path: Path, value: dict) -> None:
    """One more JSON line of a log."""
    with path.open("a") as log:
        log.write(json.dumps(value) + "\n")


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
