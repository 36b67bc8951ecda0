"""Sizes of images: how they are written, what is refused, and how they are dealt out."""

import json

import pytest

from common.sizes import dealt_out, largest, parse_size, parse_sizes, size_in, size_text, step_of


def test_it_works():
    assert parse_size("1152x896") == parse_size(" 1152X896 ", 64) == parse_size("1152×896") == (1152, 896)
    assert size_text((1152, 896)) == "1152x896"
    assert parse_sizes("64x64, 96x64\n64x96 64x64") == ((64, 64), (96, 64), (64, 96))
    assert parse_sizes("") == ()
    assert largest(parse_sizes("64x64,96x128,512x16")) == (96, 128)
    assert largest(()) is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1152", "not written as WIDTHxHEIGHT"),
        ("1152 x 896", "not written as"),
        ("11520x896", "not written as"),
        ("-64x64", "not written as"),
        ("٦٤x٦٤", "not written as"),
        (None, "not written as"),
        ([64, 64], "not written as"),
        ("x" * 10_000, "not written as"),
        ("12x64", "within 16 and 8192"),
        ("64x9000", "within 16 and 8192"),
        ("8192x4096", "more than 16,777,216 pixels"),
        ("72x64", "multiples of 16 pixels"),
    ],
)
def test_what_is_no_size_is_refused(text, wanted):
    with pytest.raises(ValueError, match=rf"^size: .*{wanted}") as caught:
        parse_size(text, 16)
    assert len(str(caught.value)) < 200


def test_too_many_are_refused():
    with pytest.raises(ValueError, match="sizes: 17 are more than 16"):
        parse_sizes(",".join(f"{64 + 16 * i}x64" for i in range(17)))


def test_prompts_that_name_none_get_them_in_turn():
    lines = [{"prompt": "a"}, {"prompt": "b", "size": "32x32"}, {"prompt": "c"}]
    assert [size_in(line) for line in dealt_out(lines, [(64, 64), (96, 64)])] == [(64, 64), (32, 32), (64, 64)]
    assert dealt_out(lines, []) == lines
    assert size_in({"prompt": "a"}, (1, 2)) == (1, 2)


def test_the_step_is_told_by_the_autoencoder(tmp_path):
    assert step_of(tmp_path) == 16
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae/config.json").write_text(json.dumps({"block_out_channels": [8, 16, 16]}))
    assert step_of(tmp_path) == 8
    (tmp_path / "vae/config.json").write_text("[]")
    assert step_of(tmp_path) == 16
