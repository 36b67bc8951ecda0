"""What simulated people box on an image, and that a box costs a click."""

import random

import pytest
import torch

from bench.learning import boxes
from trainer.data import LabelledGroup
from trainer.oracles.geneval import Detection

STAR, HEART = Detection("star", 1.0, (0.0, 0.0, 32.0, 64.0), "red"), Detection("heart", 1.0, (64, 64, 128, 128), "blue")
PROMPT = {"include": [{"class": "star", "count": 1, "color": "red"}]}


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ([STAR], None),
        ([], None),
        ([STAR, HEART], HEART),
        ([STAR, STAR], STAR),
        ([Detection("star", 1.0, STAR.box, "green")], Detection("star", 1.0, STAR.box, "green")),
    ],
)
def test_what_was_not_asked_for_is_wrong(found, wrong):
    assert boxes.wrong_object(PROMPT, found) == wrong


def test_a_box_is_in_shares_of_the_image():
    assert boxes.share_box(STAR.box, (128, 128)) == (0.0, 0.0, 0.25, 0.5)


def test_boxes_cost_clicks(monkeypatch, tmp_path):
    rated = [boxes.economy.RatedGroup(n, "a red star", PROMPT, "x", (False,) * 4, ((),) * 4) for n in range(10)]
    monkeypatch.setattr(boxes.economy, "rated_groups", lambda *a, **k: rated)
    monkeypatch.setattr(boxes.economy, "votes_of", lambda *a: [[False] * 4])
    monkeypatch.setattr(boxes, "load_backend", lambda model: None)
    monkeypatch.setattr(boxes, "boxes_of", lambda *a: ((STAR.box,),) * 2 + ((), ()))
    alone, spent = boxes.collect(boxes.ROWS["none"], 0, 40, tmp_path)
    assert len(alone) == 10 and spent == {"labels": 40, "boxes": 0}
    marked, spent = boxes.collect(boxes.ROWS["ten"], 0, 40, tmp_path)
    assert len(marked) == 6 and spent == {"labels": 24, "boxes": 12}


def test_random_boxes_are_as_large_and_within(monkeypatch):
    class Backend:
        def decode(self, latents):
            return [type("Image", (), {"size": (128, 128)})] * 2

    monkeypatch.setattr(boxes, "detect", lambda image: [HEART])
    monkeypatch.setattr(boxes, "load_trajectory", lambda path: type("T", (), {"trajectory": torch.zeros(2, 1)}))
    group = LabelledGroup("0", "a red star", PROMPT, "1", "x", (0.0, 1.0))
    assert boxes.boxes_of(Backend(), group, "wrong", random.Random(0)) == (((0.5, 0.5, 0.5, 0.5),), ())
    ((left, top, width, height),), nothing = boxes.boxes_of(Backend(), group, "random", random.Random(0))
    assert (width, height, nothing) == (0.5, 0.5, ()) and 0 <= left <= 0.5 and 0 <= top <= 0.5
