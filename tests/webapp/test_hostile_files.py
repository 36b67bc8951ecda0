"""A small file that would fill the memory, sent to every address that takes files: refused with a sentence, and the
memory stays as it was."""

import io
from functools import partial
from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from django.utils import translation

from bench.abuse.files import DEEP, HOSTILE, png, webp
from common import intake
from common.intake import Unreadable
from webapp.api.services import create_token
from webapp.exports import imports
from webapp.lib import uploads
from webapp.lib.texts import loads

ROOT = Path(__file__).resolve().parents[2]
MOST = 100  # MB that reading any of them may take, and showing its text again
FIELD = {"import-labels": "file", "api:import_labels": "file", "api:add_prompt_file": "file"}
FIELD |= {"api:import_images": "file", "own-images": "files"}  # else prompts_file
FIELD |= {"add-input": "image", "api:add_input": "file"}


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


# What opens files that hold more than they take, and where: the few places that bound what comes out, and what is the
# operator's own.
OPENS = {
    "Image.open(": {
        "common/intake.py",
        "common/own_pictures.py",
        "trainer/oracles/photos.py",
        "trainer/demo/release.py",
    },
    "ParquetFile(": {"common/tables.py"},
    "read_table(": set(),
    "ZipFile(": {"common/archives.py", "webapp/exports/writers.py"},  # the second only writes
    "tarfile.open(": {"webapp/operations/backup.py"},
    "decompress": {"common/pngs.py", "trainer/oracles/server.py"},
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
