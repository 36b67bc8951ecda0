"""Write files so that a stop at any moment leaves either the old one or the new one, whole. Standard library only."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any


def write_atomic(path: Path, data: bytes) -> None:
    """Temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=1) + "\n").encode())


def write_image(path: Path, image, form: str, **options) -> None:
    """A pillow image in a format of pillow's (`WEBP`, `PNG`, …) with its options, atomically."""
    data = io.BytesIO()
    image.save(data, form, **options)
    write_atomic(path, data.getvalue())


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
