"""What datasets 5.2 and the DPO and KTO trainers that read through it make of the exports."""

import io

import datasets
import pandas as pd
import pytest
from PIL import Image

datasets.disable_progress_bars()
PICKAPIC = {
    "are_different": "bool",
    "best_image_uid": "string",
    "caption": "string",
    "created_at": "timestamp[ns]",
    "has_label": "bool",
    "image_0_uid": "string",
    "image_0_url": "string",
    "image_1_uid": "string",
    "image_1_url": "string",
    "jpg_0": "binary",
    "jpg_1": "binary",
    "label_0": "float64",
    "label_1": "float64",
    "model_0": "string",
    "model_1": "string",
    "ranking_id": "int64",
    "user_id": "int64",
    "num_example_per_prompt": "int64",
}  # of the card of yuvalkirstain/pickapic_v1, whose columns v2 has


@pytest.fixture
def load(tmp_path):
    return lambda folder: datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))


def shade(image):
    """The position of an image of the test's groups, which its red tells."""
    return round(image.convert("RGB").getpixel((5, 5))[0] / 40)


@pytest.mark.parametrize("container", ["zip-jsonl", "zip-csv", "zip-parquet"])
def test_an_unpacked_archive_is_an_imagefolder_with_the_right_labels(unpacked, load, container, labelled):
    data = load(unpacked("unpaired", container))
    assert data.column_names == ["image", "caption", "label"]
    found = [(row["caption"], shade(row["image"]), bool(row["label"])) for row in data]
    liked = {0: [0, 3], 1: [0, 1, 2, 3], 2: [0]}
    disliked = {0: [1, 2], 1: [], 2: [1, 3]}
    for n, group in enumerate(labelled):
        text = group.prompt.text
        wanted = [(text, s, True) for s in liked[n]] + [(text, s, False) for s in disliked[n]]
        assert sorted(row for row in found if row[0] == text) == sorted(wanted)


@pytest.mark.parametrize("format", ["labels", "preference", "pickapic"])
@pytest.mark.parametrize("container", ["zip-jsonl", "zip-csv", "zip-parquet"])
def test_every_table_of_an_archive_finds_its_images(unpacked, load, format, container):
    data = load(unpacked(format, container))
    columns = ["image"] if format == "labels" else ["jpg_0", "jpg_1"]
    assert all(row[name].size == (128, 128) for row in data for name in columns)
    for row in data:
        if format == "labels":
            assert shade(row["image"]) == row["position"]
        else:
            assert {row["label_0"], row["label_1"]} == {0, 1}


def test_diffusion_kto_reads_the_folder(unpacked):
    """As jacklishufan/diffusion-kto's train_kto_sd_v1.5.py (6a24480) does with --train_data_dir and a metadata.csv."""
    folder = unpacked("unpaired", "zip-csv")
    data = datasets.Dataset.from_pandas(pd.read_csv(folder / "metadata.csv"))
    assert [int(row["label"]) for row in data].count(1) == 7 and len(data) == 11
    assert all(Image.open(folder / row["file_name"]).convert("RGB") for row in data)
    assert all(row["caption"] for row in data)


@pytest.mark.parametrize("format", ["preference", "pickapic"])
def test_diffusion_dpo_reads_the_bytes(fetch, load, tmp_path, labelled, format):
    """As SalesforceAIResearch/DiffusionDPO's train.py (8d3ee5c) and diffusers' train_diffusion_dpo.py (0.42) do with a
    folder as --dataset_name: bytes of two images, of which label_0 tells the better."""
    folder = tmp_path / "pickapic_of_stars"
    folder.mkdir()
    (folder / "train.parquet").write_bytes(fetch(format, "parquet-images"))
    data = load(folder)
    liked = {g.prompt.text: positions for g, positions in zip(labelled, ([0, 3], [], [0]), strict=True)}
    assert len(data) == {"preference": 2 * 2 + 1 * 2, "pickapic": 2 * 4 + 4 + 3}[format]
    for row in data:
        pair = [shade(Image.open(io.BytesIO(row[name])).convert("RGB")) for name in ("jpg_0", "jpg_1")]
        better, worse = pair if row["label_0"] else reversed(pair)
        if format == "preference":  # what a person says may be another thing than the consensus
            assert better in liked[row["caption"]] and worse not in liked[row["caption"]]


def test_pickapic_has_the_types_of_the_original(fetch, load, tmp_path):
    without = {name: kind for name, kind in PICKAPIC.items() if not name.startswith("jpg")}  # pickapic_v2_no_images
    for container, types in (("parquet-images", PICKAPIC), ("parquet", without)):
        (folder := tmp_path / f"with-{container}").mkdir()
        (folder / "train.parquet").write_bytes(fetch("pickapic", container))
        assert {name: feature.dtype for name, feature in load(folder).features.items()} == types
