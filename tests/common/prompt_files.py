"""GenEval's lines, and files of prompts."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq

GENEVAL = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
    {
        "tag": "counting",
        "include": [{"class": "clock", "count": 3}],
        "exclude": [{"class": "clock", "count": 4}],
        "prompt": "a photo of three clocks",
    },
    {
        "tag": "position",
        "include": [{"class": "cup", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 0]}],
        "prompt": "a photo of a dog left of a cup",
    },
]


def lines(*rows):
    return "\n".join(json.dumps(row) for row in rows)


def parquet(rows):
    data = io.BytesIO()
    keys = dict.fromkeys(key for row in rows for key in row)
    pq.write_table(pa.table({key: [row.get(key) for row in rows] for key in keys}), data)
    return data.getvalue()
