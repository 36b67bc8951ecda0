"""What a hostile archive, image or note costs: a sentence, and little memory."""

import io
import json
import stat
import struct
import zipfile
import zlib

import pytest
from PIL import Image

from common import archives, notes, own_pictures, pngs
from common.archives import members_of_folder, members_of_zip
from common.intake import Unreadable
from tests.own_images import GRAPH, archive, chunk, noted, picture, with_chunk


def members(data):
    return {m.name: m for m in members_of_zip(io.BytesIO(data))}


def why(data):
    """Why an archive is refused as a whole."""
    with pytest.raises(Unreadable) as error:
        members_of_zip(io.BytesIO(data))
    return str(error.value)


def test_files_come_out_as_they_went_in():
    found = members(archive({"a.txt": b"x" * 10_000, "d/b.png": picture()}))
    assert found["a.txt"].read() == b"x" * 10_000 and found["d/b.png"].read() == picture()
    assert all(m.wrong is None for m in found.values())


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "d/../../a.png", "d\\a.png", "C:/a.png", "d//a.png", "./a.png"])
def test_a_name_leads_nowhere(name):
    (found,) = members(archive({name: b"x"})).values()
    assert "leads out of the archive" in str(found.wrong)


def test_links_and_devices_are_no_files():
    link = zipfile.ZipInfo("link.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    device = zipfile.ZipInfo("device.png")
    device.create_system, device.external_attr = 3, (stat.S_IFCHR | 0o777) << 16
    found = members(archive([(link, b"/etc/passwd"), (device, b"")]))
    assert {str(m.wrong) for m in found.values()} == {"it is no regular file"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_are_there_twice():
    found = members_of_zip(io.BytesIO(archive([("a.png", b"1"), ("A.PNG", b"2"), ("b.png", b"3")])))
    assert [str(m.wrong or "") for m in found] == ["two files have this name"] * 2 + [""]


def test_a_bomb_is_told_by_its_ratio():
    found = members(archive({"a.png": b"\0" * 30_000_000, "small.txt": b"a" * 19_000}))
    assert "more than 100 times its size" in str(found["a.png"].wrong) and found["small.txt"].wrong is None


def test_sizes_and_numbers_have_bounds(monkeypatch):
    monkeypatch.setattr(archives, "MOST_MEMBER", 10)
    assert "10 are the most" in str(members(archive({"a": b"x" * 11}))["a"].wrong)
    monkeypatch.setattr(archives, "MOST_TOTAL", 20)
    assert "unpacks to more than 20 bytes" in why(archive({"a": b"x" * 11, "b": b"x" * 11}))
    monkeypatch.setattr(archives, "MOST_MEMBERS", 1)
    assert "more than 1 files" in why(archive({"a": b"", "b": b""}))


def test_a_hundred_thousand_members_are_not_looked_at():
    one = archive({"a": b""})
    end = one.rindex(b"PK\x05\x06")
    start = one.index(b"PK\x01\x02")
    directory = one[start:end] * 100_000
    record = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65_535, 65_535, len(directory), start, 0)
    assert "more than 5,000 files" in why(one[:start] + directory + record)
    few = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 10, 10, len(one[start:end]) * 20, start, 0)
    assert "names 10 files and holds 20" in why(one[:start] + one[start:end] * 20 + few)


def test_members_that_share_their_bytes():
    data = archive({"a": b"x" * 500, "b": b"y" * 500})
    second = data.rindex(b"PK\x01\x02")
    place = second + 42  # where the second member begins: now where the first does
    assert "lie over each other" in why(data[:place] + struct.pack("<L", 0) + data[place + 4 :])


def test_encrypted_damaged_and_strange_members():
    data = bytearray(archive({"a.png": picture(), "b.png": picture(1)}))
    first = data.index(b"PK\x01\x02")
    data[first + 8] |= 1
    data[40] ^= 0xFF  # of the first member's bytes
    assert str(members(bytes(data))["a.png"].wrong) == "it is encrypted"
    data[first + 8] &= 0xFE
    with pytest.raises(Unreadable, match="damaged in the archive"):
        members(bytes(data))["a.png"].read()
    data[first + 10] = 99
    assert "compressed in a way" in str(members(bytes(data))["a.png"].wrong)
    wrong = bytearray(archive({"a.png": picture()}))
    place = wrong.index(b"PK\x01\x02") + 16  # the checksum
    wrong[place] ^= 0xFF
    with pytest.raises(Unreadable, match="damaged in the archive"):
        members(bytes(wrong))["a.png"].read()


def test_a_size_that_lies():
    data = bytearray(archive({"a.png": picture()}))
    place = data.index(b"PK\x01\x02") + 24
    data[place : place + 4] = struct.pack("<L", 100)
    with pytest.raises(Unreadable):
        members(bytes(data))["a.png"].read()


@pytest.mark.parametrize("cut", [0, 4, 30, -1, -10])
def test_what_is_no_whole_archive(cut):
    data = archive({"a": b"x" * 100})
    assert why(data[:cut] if cut else b"PK\x03\x04")
    assert "has a comment" in why(data + b"after")
    assert "not at its end" in why(b"before" + data)


def test_a_folder_without_links(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.png").write_bytes(b"x")
    (tmp_path / "link.png").symlink_to("/etc/passwd")
    (tmp_path / "out").symlink_to("/etc")
    found = {m.name: str(m.wrong or "") for m in members_of_folder(tmp_path)}
    assert found == {"d/a.png": "", "link.png": "it is no regular file"}


# ---------------------------------------------------------------- images


def test_texts_of_a_png_are_bounded():
    big = with_chunk(noted(parameters="a star\nSteps: 1"), b"iTXt", b"Comment\0\0\0\0\0" + b"x" * 3_000_000)
    bomb = with_chunk(big, b"zTXt", b"prompt\0\0" + zlib.compress(b"[" * 100_000_000))
    assert set(pngs.texts(bomb)) == {"parameters"}
    assert own_pictures.noted_prompt(bomb) == ("a star", "AUTOMATIC1111")
    assert len(pngs.bare(bomb)) < len(picture()) + 100
    assert own_pictures.fitted(bomb, 64).image.size == (64, 64)


def test_a_hundred_megabytes_of_text_never_reach_the_decoder(monkeypatch):
    data = with_chunk(picture(), b"iTXt", b"Comment\0\0\0\0\0" + b"x" * 100_000_000)
    assert pngs.texts(data) == {}
    opened = []
    monkeypatch.setattr(Image, "open", lambda file, **_: opened.append(len(file.getvalue())) or 1 / 0)
    with pytest.raises(Unreadable):
        own_pictures.fitted(data, 64)
    assert opened[0] < 100_000


def test_a_second_header_is_refused():
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    for place in (33, len(picture()) - 12):
        data = picture()[:place] + chunk(b"IHDR", header) + picture()[place:]
        with pytest.raises(Unreadable, match="no whole PNG"):
            own_pictures.fitted(data, 64)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_cut_off_anywhere(form):
    data = picture(form=form)
    for end in range(8, len(data), max(1, len(data) // 40)):
        with pytest.raises(Unreadable):
            own_pictures.fitted(data[:end], 64)


def test_sizes_are_asked_of_the_header():
    huge = picture()[:16] + struct.pack(">II", 60_000, 60_000) + picture()[24:]
    with pytest.raises(Unreadable, match="60000 × 60000 pixels"):
        own_pictures.fitted(huge, 64)
    flat = io.BytesIO()
    Image.new("RGB", (6000, 5000)).save(flat, "JPEG")
    with pytest.raises(Unreadable, match="25,000,000 are the most"):
        own_pictures.fitted(flat.getvalue(), 64)


def test_an_animation_is_refused():
    data = io.BytesIO()
    frames = [Image.new("RGB", (32, 32), c) for c in ("red", "blue")]
    frames[0].save(data, "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(Unreadable, match="animated"):
        own_pictures.fitted(data.getvalue(), 64)


# ---------------------------------------------------------------- notes


def graph(**changes):
    return {**GRAPH, **changes}


@pytest.mark.parametrize(
    ("keyword", "note", "prompt"),
    [
        ("parameters", "a star\nof two lines\nNegative prompt: b\nSteps: 3, Seed: 1", "a star\nof two lines"),
        ("parameters", "Steps: 3", None),
        ("parameters", "just a text", None),
        ("parameters", {"sui_image_params": {"prompt": "a star"}}, "a star"),
        ("parameters", {"prompt": "a star", "seed": 3}, "a star"),
        ("parameters", {"sui_image_params": 3}, None),
        ("sd-metadata", {"image": {"prompt": [{"prompt": "a star", "weight": 1}]}}, "a star"),
        ("sd-metadata", {"image": {"prompt": "a star"}}, "a star"),
        ("invokeai_metadata", [1], None),
        ("prompt", GRAPH, "a red star"),
        ("prompt", graph(**{"6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["8", 0]}}}
            | {"8": {"class_type": "PrimitiveString", "inputs": {"value": "a cube"}}}), "a cube"),
        ("prompt", graph(**{"6": {"class_type": "X", "inputs": {"positive": ["6", 0]}}}), None),  # a circle
        ("prompt", "[" * 5_000, None),
        ("prompt", "{", None),
        (
            "workflow",
            {
                "nodes": [
                    {"id": 3, "type": "KSampler", "inputs": [{"name": "positive", "link": 4}], "widgets_values": [5]},
                    {"id": 6, "type": "CLIPTextEncode", "inputs": [], "widgets_values": ["a red star"]},
                    "x",
                ],
                "links": [[4, 6, 0, 3, 1, "CONDITIONING"], 3],
            },
            "a red star",
        ),
    ],
)  # fmt: skip
def test_what_programs_note(keyword, note, prompt):
    found = notes.prompt_of({keyword: note if isinstance(note, str) else json.dumps(note)})
    assert (found[0] if found else None) == prompt


def test_several_prompts_are_none():
    other = {
        "13": {"class_type": "KSampler", "inputs": {"positive": ["16", 0]}},
        "16": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cube"}},
    }
    with pytest.raises(Unreadable, match="several prompts"):
        notes.prompt_of({"prompt": json.dumps(graph(**other))})


def test_notes_of_a_jpeg():
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "a star\nSteps: 3, Seed: 4".encode("utf-16-be")
    data = picture(form="JPEG", exif=exif)
    assert own_pictures.noted_prompt(data) == ("a star", "AUTOMATIC1111")
