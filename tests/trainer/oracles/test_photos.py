"""GenEval on photographs, whole path, with tiny random models."""

import json
import sys

import pandas as pd
import pytest
from PIL import Image

from trainer.oracles import get_oracle
from trainer.oracles.geneval import Detection, by_class, judge, result_line
from trainer.oracles.photos import evaluate_folder, main

APPLES = {"tag": "single_object", "prompt": "a photo of an apple", "include": [{"class": "apple", "count": 1}]}
CAR = {"tag": "single_object", "prompt": "a photo of a car", "include": [{"class": "car", "count": 1}]}
RED = {"tag": "colors", "prompt": "a photo of a red apple", "include": [{"class": "apple", "count": 1, "color": "red"}]}
FOUR = {
    "tag": "counting",
    "prompt": "a photo of four apples",
    "include": [{"class": "apple", "count": 4}],
    "exclude": [{"class": "apple", "count": 5}],
}


@pytest.fixture(scope="module")
def oracle(detector_dir, clip_dir):
    return get_oracle(f"geneval:detector={detector_dir},clip={clip_dir},device=cpu")


@pytest.fixture(scope="module")
def picture():
    return Image.effect_noise((64, 48), 80).convert("RGB")


def test_the_benchmark_is_laxer_than_the_training_reward(oracle, picture):
    apples, car = oracle.score([picture] * 2, ["", ""], [APPLES, CAR])
    assert apples.correct and not apples.liked  # more than one apple is there
    assert apples.score == 0
    assert apples.reason == "more than was asked"
    assert (car.score, car.liked, car.correct, car.reason) == (0, False, False, "expected 1 car, found 0")


def test_at_most_sixteen_of_a_class_and_counting_is_stricter(oracle, picture):
    found = oracle.detect(picture, APPLES)["apple"]
    assert len(found) == 16
    assert all(d.confidence > 0.3 and d.color is None for d in found)
    counted = oracle.detect(picture, FOUR)["apple"]
    assert counted == [d for d in found if d.confidence > 0.9]
    assert 0 < len(counted) < 16


def test_colors_are_named_only_where_asked(oracle, picture):
    found = oracle.detect(picture, RED)
    assert all(d.color is not None for d in found["apple"])
    assert all(d.color is None for label in found if label != "apple" for d in found[label])


def test_a_class_that_the_detector_does_not_know_is_an_error(oracle, picture):
    line = {**APPLES, "include": [{"class": "unicorn", "count": 1}]}
    with pytest.raises(ValueError, match="class: the detector knows no 'unicorn'"):
        oracle.score([picture], [""], [line])
    with pytest.raises(ValueError, match="include: prompt 'x' has none"):
        oracle.score([picture], ["x"], [{"prompt": "x"}])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("geneval:clip=/nowhere", r"geneval\.detector: is missing"),
        ("geneval:detector=/nowhere,clip=/nowhere", r"geneval\.detector: /nowhere has no config\.json"),
        ("geneval:detector=/nowhere,clip=/nowhere,device=tpu9", r"geneval\.device: 'tpu9' is not a device"),
    ],
)
def test_missing_models_name_the_option(spec, message):
    with pytest.raises(ValueError, match=message):
        get_oracle(spec)


def summary(path):
    """What GenEval's summary script computes from a results file, with the calls that it uses."""
    frame = pd.read_json(path, orient="records", lines=True)
    tags = frame.groupby("tag", sort=False)["correct"].mean()
    prompts = frame.groupby("metadata")["correct"].any()
    return {"images": len(frame), "prompts": len(prompts), "prompts right": prompts.mean(), **tags}


def test_a_result_line_has_genevals_fields():
    box = Detection("apple", 0.75, (1.0, 2.0, 3.0, 4.0), "green")

    def line(metadata, box):
        found = by_class([box], threshold=0.3)
        return result_line("0/samples/0.png", metadata, judge(metadata, found), found)

    right = line(APPLES, box)
    assert list(right) == ["filename", "tag", "prompt", "correct", "reason", "metadata", "details"]
    assert (right["correct"], right["reason"]) == (True, "")
    assert json.loads(right["metadata"]) == APPLES
    assert json.loads(right["details"]) == {"apple": [[1, 2, 3, 4, 0.75]]}
    wrong = line(RED, box)
    assert (wrong["correct"], wrong["reason"]) == (False, "expected 1 red apple, found green")
    nothing = line(CAR, Detection("car", 0.2, box.box))
    assert nothing["details"] == "{}"


def test_a_folder_of_images_becomes_a_results_file_that_the_summary_reads(
    oracle, picture, detector_dir, clip_dir, tmp_path, monkeypatch
):
    for number, line in enumerate((APPLES, CAR)):
        samples = tmp_path / f"{number:05}" / "samples"
        samples.mkdir(parents=True)
        (samples.parent / "metadata.jsonl").write_text(json.dumps(line))
        for i in range(2):
            picture.save(samples / f"{i:04}.png")
        (samples.parent / "grid.png").write_bytes(b"")
    output = tmp_path / "results.jsonl"
    assert evaluate_folder(oracle, tmp_path, output) == 4
    assert summary(output) == {"images": 4, "prompts": 2, "prompts right": 0.5, "single_object": 0.5}
    first = json.loads(output.read_text().splitlines()[0])
    assert first["filename"].endswith("00000/samples/0000.png")
    assert len(json.loads(first["details"])["apple"]) == 16

    spec = f"geneval:detector={detector_dir},clip={clip_dir},device=cpu"
    arguments = ["photos", str(tmp_path), "--oracle", spec, "--output", str(tmp_path / "again")]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    assert (tmp_path / "again").read_text() == output.read_text()


def test_an_empty_folder_is_an_error(oracle, tmp_path):
    with pytest.raises(ValueError, match=r"images: .* has no <number>"):
        evaluate_folder(oracle, tmp_path, tmp_path / "results.jsonl")
