"""One way to write a file: whole or not at all, whoever else writes it."""

import os
import stat
import threading

import pytest
import torch
from safetensors.torch import save_file

from common.files import share_as_usual, write_atomic


def test_threads_that_write_the_same_file_leave_one_whole_file(tmp_path):
    path, errors, start = tmp_path / "folder" / "file", [], threading.Barrier(8)
    contents = [bytes([n]) * 200_000 for n in range(8)]

    def write(data):
        start.wait()
        try:
            for _ in range(20):
                write_atomic(path, data)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert path.read_bytes() in contents
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "folder" / "file"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "not bytes")
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_weights_have_the_permissions_of_any_other_file(tmp_path, mask):
    """safetensors 0.8 makes files with 0600, which a web app that runs as another user cannot read."""
    before = os.umask(mask)
    try:
        folder = tmp_path / "model" / "part"
        folder.mkdir(parents=True)
        files = folder / "weights.safetensors", tmp_path / "lora.safetensors"
        for file in files:
            save_file({"a": torch.zeros(1)}, file)
        other = tmp_path / "other.json"
        other.touch()
        share_as_usual(tmp_path / "model")
        share_as_usual(files[1])
    finally:
        os.umask(before)
    assert {stat.S_IMODE(f.stat().st_mode) for f in (*files, other)} == {0o666 & ~mask}
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [
        "lora.safetensors",
        "other.json",
        files[0].name,
    ]
