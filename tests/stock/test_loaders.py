"""Argilla 2.8.0, HPSv2 1.2.0 and its ImageReward loader read the archives that are for them."""

import base64
import io

from PIL import Image


def test_argilla_makes_a_dataset_of_the_folder(unpacked, run, labelled):
    sent = run("loaders", "read_with_argilla.py", unpacked("argilla", "zip-json"))
    assert {f["name"]: f["settings"]["type"] for f in sent["fields"]} == {"image": "image", "prompt": "text"}
    (question,) = sent["questions"]
    assert [o["value"] for o in question["settings"]["options"]] == ["like", "dislike"]
    assert {m["name"] for m in sent["metadata-properties"]} == {"group", "version", "likes", "dislikes", "reward"}
    assert len(sent["records"]) == sum(g.size for g in labelled)
    for record in sent["records"]:
        data = record["fields"]["image"].removeprefix("data:image/webp;base64,")
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (128, 128)
    suggested = [[s["value"] for s in r["suggestions"]] for r in sent["records"]]
    assert suggested[:4] == [["like"], ["dislike"], ["dislike"], ["like"]]
    assert suggested[8:] == [["like"], ["dislike"], [], ["dislike"]]  # the third group's image 2 is split evenly


def test_hpsv2_reads_its_splits_and_imagerewards_rankings(unpacked, run):
    folders = [unpacked(name, "zip-json") for name in ("hpd-train", "hpd-test", "imagereward")]
    found = run("loaders", "read_with_hpsv2.py", *folders)
    better = [1, 1, 0, 0, 1, 1]  # images 0 and 3 against 1 and 2, then 0 against 1 and 3
    pairs = {"images": [12, 3, 2, 2], "labels": better + [1 - b for b in better], "captions": 6}
    assert found["pairs"] == pairs
    ranks = {"images": 8, "sizes": [4, 4], "labels": [1, 2, 2, 1, 1, 3, 2, 3]}  # who likes all ranks nothing
    assert found["rankings"] == found["imagereward"] == ranks
