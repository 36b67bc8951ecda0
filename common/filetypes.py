"""What a file is by its content, whatever its name says."""

from __future__ import annotations

# What files begin with; the names are for messages.
MAGIC = {
    b"PAR1": "Parquet",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "gzip",
    b"%PDF": "PDF",
}


def kind(data: bytes) -> str:
    """One of MAGIC's names, "binary" or "text"."""
    found = next((name for magic, name in MAGIC.items() if data.startswith(magic)), "")
    return found or ("binary" if b"\0" in data[:4096] else "text")
