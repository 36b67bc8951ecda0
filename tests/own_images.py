"""Images, notes and archives as somebody may have them, and as nobody should."""

import io
import json
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def picture(seed=0, size=(96, 96), form="PNG", mode="RGB", **options):
    """An image's file; every seed another one."""
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(data, form, **options)
    return data.getvalue()


def noted(seed=0, **notes):
    """A PNG with texts by keyword."""
    info = PngInfo()
    for name, text in notes.items():
        info.add_text(name, text if isinstance(text, str) else json.dumps(text))
    return picture(seed, pnginfo=info)


def archive(files, **options):
    """A ZIP of {name: bytes} or of (name or ZipInfo, bytes)."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, **options) as made:
        for name, content in files.items() if isinstance(files, dict) else files:
            made.writestr(name, content)
    return data.getvalue()


def chunk(kind, data):
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png, kind, data):
    """A PNG with one more chunk after its header."""
    return png[:33] + chunk(kind, data) + png[33:]


GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {"seed": 5, "positive": ["6", 0], "negative": ["7", 0], "model": ["4", 0]},
    },
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red star", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["4", 1]}},
}
