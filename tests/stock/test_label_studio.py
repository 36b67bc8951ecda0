"""Label Studio 1.23.2 imports the tasks by its API, with everybody's answers and images that open."""

import base64
import io

import pytest
from PIL import Image


@pytest.fixture
def imported(unpacked, fetch, run):
    folder = unpacked("labelstudio", "zip-json")
    (folder / "inside.json").write_bytes(fetch("labelstudio", "json-images"))
    return run("label-studio", "import_into_label_studio.py", folder)


def test_tasks_come_in_with_answers_and_images(imported, labelled):
    tasks = imported["inside"]
    assert len(tasks) == sum(g.size for g in labelled)
    for task in tasks:
        head, data = task["data"]["image"].split(",", 1)
        assert head == "data:image/webp;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (128, 128)
    first = next(t for t in tasks if (t["data"]["group"], t["data"]["position"]) == (labelled[0].pk, 0))
    assert [a["result"][0]["value"] for a in first["annotations"]] == [{"choices": ["like"]}] * 2
    assert [a["lead_time"] for a in first["annotations"]] == [1, 1]  # four seconds for four images
    assert len({a["result"][0]["meta"]["annotator"] for a in first["annotations"]}) == 2
    assert [len(t["predictions"]) for t in tasks] == [t["data"]["group"] == labelled[0].pk for t in tasks]
    assert imported["files"] == [[200, "RIFF"]] * len(tasks)
