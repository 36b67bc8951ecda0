"""A small file that would fill the memory, sent to every address that takes files: refused with a sentence, and the
memory stays as it was."""

import io
import struct
import zipfile
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from django.utils import translation

from common import intake
from common.intake import Unreadable
from webapp.api.services import create_token
from webapp.exports import imports
from webapp.lib import uploads
from webapp.lib.texts import loads

ROOT = Path(__file__).resolve().parents[2]
MOST = 100  # MB that reading any of them may take, and showing its text again
FIELD = {"import-labels": "file", "api:import_labels": "file", "api:add_prompt_file": "file"}  # else prompts_file


def zipped():
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("labels.jsonl", b"0" * 20_000_000)
    return data.getvalue()


def png(width, height):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1_000_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def webp(width, height, kind=b"VP8X"):
    bits = (width - 1) | (height - 1) << 14
    bodies = {
        b"VP8X": b"\x02\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"),
        b"VP8L": b"\x2f" + struct.pack("<I", bits) + b"\0" * 9,
        b"VP8 ": b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height) + b"\0" * 9,
    }
    body = b"WEBP" + kind + struct.pack("<I", len(bodies[kind])) + bodies[kind]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def parquet(count):
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


def peak(work):
    """(what `work` returns, MB of memory that it took at most)."""
    Path("/proc/self/clear_refs").write_text("5")
    before, found = status("VmRSS"), work()
    return found, status("VmHWM") - before


def status(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1000


@pytest.fixture
def send(client, boss, project):
    client.force_login(boss)
    headers = {"Authorization": f"Bearer {create_token(project, boss, 'files', ['admin'])[1]}"}

    def post(address, name, data):
        path = reverse(address, args=[] if address == "new-project" else ["stars"])
        file = {FIELD.get(address, "prompts_file"): SimpleUploadedFile(name, data)}
        return client.post(path, {**file, "validation_share": "0.1"}, headers=headers)

    post("import-labels", "x.jsonl", b"{}")  # what is loaded once counts for nobody
    return post


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_address_decodes_it(kind, send):
    name, make = HOSTILE[kind]
    data = make()
    assert len(data) < 2_000_000
    for address in uploads.FILES:
        answer, took = peak(partial(send, address, name, data))
        assert 400 <= answer.status_code < 500 or b'class="error"' in answer.content, (address, answer.status_code)
        assert took < MOST, (address, took)


@pytest.mark.parametrize("address", ["undo", "api:add_prompts"])
@pytest.mark.parametrize("body", [DEEP, b'{"key": [' + b"[]," * 900_000 + b"[]]}"])
def test_no_request_of_json_is_built(address, body, client, boss, project):
    client.force_login(boss)
    headers = {"Authorization": f"Bearer {create_token(project, boss, 'files', ['admin'])[1]}"}

    def ask():
        return client.post(reverse(address, args=["stars"]), body, content_type="application/json", headers=headers)

    ask()
    answer, took = peak(ask)
    assert answer.status_code in (400, 422), answer.content[:500]
    assert took < MOST


def test_rows_of_labels_are_bounded_in_number_and_size(monkeypatch):
    wide = b'{"group": 1, "reason": [' + b"[]," * 600_000 + b"[]]}"
    (found, wrong), took = peak(lambda: imports.read_rows(b"\n".join([wide] * 20), "x.jsonl"))
    assert found == [] and "line 1: 1,800,029 bytes; a row has at most 100,000" in wrong
    assert took < MOST
    nested = imports.read_rows(b'{"group": 1, "reason": {"a": 1}, "other": [1]}\n{"group": 1, "other": [1]}', "")
    assert nested == ([(2, {"group": 1})], ["line 1: reason: it is a list or an object"])
    monkeypatch.setattr(imports, "MOST_ROWS", 3)
    assert len(imports.read_rows(b"{}\n\n" * 3, "x.jsonl")[0]) == 3
    assert imports.read_rows(b"{}\n" * 4, "x.jsonl") == ([], ["file: it has more than 3 rows; split the file"])


@pytest.mark.parametrize(
    "text",
    [
        '"' + "[" * 200 + '"',
        '["' + '\\"' * 100 + "[" * 200 + '"]',
        "[" * 100 + "]" * 100,
        '"' + "," * 400_000 + '"',
        '"a',
    ],
)
def test_what_counts_is_what_would_be_built(text):
    intake.check_json(text)
    intake.check_json(text.encode())


@pytest.mark.parametrize("text", ["[" * 101, '{"a":' * 101, '["]' * 60 + "[" * 101, "[1" + ",1" * 300_000 + "]"])
def test_what_is_too_much_is_so_as_text_and_bytes(text):
    for value in (text, text.encode()):
        with pytest.raises(Unreadable, match=r"nested too deep|more than 300,000 values"):
            loads(value)


@pytest.mark.parametrize(
    "data", [png(60_000, 60_000), *(webp(16_383, 16_383, kind) for kind in (b"VP8X", b"VP8L", b"VP8 "))]
)
def test_an_image_is_judged_by_its_header(data):
    def look():
        with pytest.raises(Unreadable, match=r"it has \d+ × \d+ pixels; 67,108,864 are the most"):
            intake.picture(data)

    assert peak(look)[1] < 20


@pytest.mark.parametrize("data", [b"", b"RIFF", b"RIFF1234WEBPVP8L", b"\x89PNG", b"GIF89a" + b"\0" * 99, DEEP])
def test_what_is_no_image(data):
    with pytest.raises(Unreadable, match="it is no whole PNG or WebP image"):
        intake.picture(data)


def test_an_image_comes_in_rgb():
    from PIL import Image

    for kind in ("PNG", "WEBP"):
        data = io.BytesIO()
        Image.new("RGBA", (3, 5)).save(data, kind)
        assert (intake.picture(data.getvalue()).mode, intake.declared_size(data.getvalue())) == ("RGB", (3, 5))


# What opens files that hold more than they take, and where: the one place, and what is the operator's own.
OPENS = {
    "Image.open(": {"common/intake.py", "trainer/oracles/photos.py", "trainer/demo/release.py"},
    "ParquetFile(": {"common/tables.py"},
    "read_table(": set(),
    "ZipFile(": {"webapp/exports/writers.py"},  # written, not read
    "tarfile.open(": {"webapp/operations/backup.py"},
    "decompress": {"trainer/oracles/remote.py"},
}


@pytest.mark.parametrize("call", OPENS)
def test_nothing_else_decodes(call):
    files = [p for part in ("common", "webapp", "workers", "trainer", "launcher") for p in (ROOT / part).rglob("*.py")]
    found = {str(file.relative_to(ROOT)) for file in files if call in file.read_text()}
    assert found <= OPENS[call], "common.intake judges what others sent; call it, or say here whose files these are"


def test_the_sentences_come_in_the_readers_language(client, boss, project):
    client.force_login(boss)
    file = SimpleUploadedFile("x.jsonl", png(60_000, 60_000))
    with translation.override("en"):  # what the request sets goes with it
        answer = client.post(
            reverse("import-labels", args=["stars"]), {"file": file}, headers={"Accept-Language": "de"}
        )
    assert "PNG" in answer.content.decode() and "send text" not in answer.content.decode()
