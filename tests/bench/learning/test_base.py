"""The bench that says whether labels can matter on a base."""

import pytest
import torch

from bench.learning import base
from trainer.cli import MODEL, STUDENT
from trainer.demo.scenes.prompts import TAGS


def test_scores_and_the_share_of_ill_formed_images():
    found = base.drawn(MODEL, STUDENT, 1, base.WAYS["student"])
    assert {*TAGS, "word", "geneval", "strict", "ill_formed"} <= set(found)
    assert 0 <= found["ill_formed"] <= 1


def test_drawn_scenes_nearly_survive_the_autoencoder():
    found = base.ceiling(MODEL, 2, seed=0)
    assert found["strict"] > 0.8 and found["ill_formed"] < 0.2


def test_the_higher_the_level_the_more_a_base_decides():
    found = base.levels(MODEL, 4, seed=0)
    assert list(found) == ["0.5", "0.7", "0.85", "0.95"]
    assert found["0.5"] <= found["0.95"] + 0.1 and found["0.5"] < 0.2


def test_groups_differ_and_are_held_out_by_their_prompts():
    images, names, likes = base.student_groups(MODEL, STUDENT, "validation", 6, seed=0)
    assert len(images) == len(names) == len(likes) > 0 and images.shape[1] == base.GROUP
    assert torch.all((likes.sum(1) > 0) & (likes.sum(1) < base.GROUP))
    assert not set(names) & {p.prompt for p in base.prompts("train", tags=TAGS)}


def test_a_model_that_is_never_right_is_named(model_dir, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="no group of 1 has both right and wrong images"):
        base.student_groups(model_dir, None, "validation", 1, seed=0)
