"""Small files that fill the memory of who decodes them: name and bytes by kind."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def zipped() -> bytes:
    """Twenty megabytes in as many kilobytes."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("labels.jsonl", b"0" * 20_000_000)
    return data.getvalue()


def png(width: int, height: int) -> bytes:
    """A file that claims to be so large."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1_000_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def webp(width: int, height: int, kind: bytes = b"VP8X") -> bytes:
    """The same, in each way that WebP has to say it."""
    bits = (width - 1) | (height - 1) << 14
    bodies = {
        b"VP8X": b"\x02\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"),
        b"VP8L": b"\x2f" + struct.pack("<I", bits) + b"\0" * 9,
        b"VP8 ": b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height) + b"\0" * 9,
    }
    body = b"WEBP" + kind + struct.pack("<I", len(bodies[kind])) + bodies[kind]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def parquet(count: int) -> bytes:
    """One row with two lists of so many values."""
    data, values = io.BytesIO(), pa.array(np.zeros(count, bool))
    column = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), values)
    pq.write_table(pa.table({"reason": column, "prompt": column}), data, compression="zstd")
    return data.getvalue()


DEEP = b"[" * 100_000 + b"]" * 100_000
HOSTILE = {
    "zip": ("x.zip", zipped),
    "png": ("x.jsonl", lambda: png(60_000, 60_000)),
    "webp": ("x.parquet", lambda: webp(16_383, 16_383)),
    "deep json": ("x.json", lambda: DEEP),
    "wide json": ("x.json", lambda: b"[" + b"[]," * 600_000 + b"[]]"),
    "deep lines": ("x.jsonl", lambda: b'{"prompt": "a", "metadata": ' + DEEP + b"}"),
    "parquet": ("x.parquet", lambda: parquet(11_000_000)),
}
