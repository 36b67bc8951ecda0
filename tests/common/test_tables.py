"""A few hundred bytes of Parquet that would fill the memory are refused with a sentence, and the memory stays free."""

import io
import json
import resource

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common import tables

LIMITS = tables.Limits(rows=20_000, size=10_000_000)


def packed(table, **options) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", **options)
    return file.getvalue()


def test_rows_come_as_json():
    data = packed(pa.table({"a": ["x\u2028\ny", None], "b": [{"c": 1}, None], "bytes": [b"1", b"2"]}))
    assert [json.loads(line) for line in tables.read(data, LIMITS)] == [
        {"a": "x\u2028\ny", "b": {"c": 1}},
        {},
    ]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"a": pa.array([1] * 2_000_000)}, "more than 20,000 rows"),
        ({"a": pa.array(["x" * 1_000_000] * 1000)}, "of memory; split the file"),
        ({"a": pa.array([[0] * 11_000_000])}, "it unpacks to 11,000,000 bytes"),
        ({str(i): pa.array([1]) for i in range(1001)}, "it has 1,001 columns"),
    ],
)
def test_bombs(table, message):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = packed(pa.table(table))
    made = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(tables.Unreadable, match=message):
        tables.read(data, LIMITS)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - max(before, made) < 50_000  # kB


@pytest.mark.parametrize("data", [b"", b"PAR1" * 9, b"PAR1" + b"\xff" * 20 + b"PAR1"])
def test_what_is_none(data):
    with pytest.raises(tables.Unreadable):
        tables.read(data, LIMITS)
