"""One way to write a file: whole or not at all, whoever else writes it."""

import threading

import pytest

from common.files import write_atomic


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
