"""What the repository ships of a finished round."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from common.files import sha256_of
from trainer.demo.release import release_round
from trainer.rounds import run_round


def test_a_round_is_released_in_fp16_with_its_pictures_scores_and_log(make_spec, reddish, model_dir, tmp_path):
    work, target = tmp_path / "work", tmp_path / "after"
    spec = make_spec(work_dir=str(work), output_dir=str(work / "version"))
    with pytest.raises(ValueError, match=r"version\.json: it is missing"):
        release_round(model_dir, work, target, parent="student")
    done = run_round(spec)
    file = release_round(model_dir, work, target, parent="student", most_metrics=2)
    ours, theirs = load_file(file), load_file(work / "version" / file.name)
    assert {t.dtype for t in ours.values()} == {torch.float16}
    assert all(torch.equal(t, theirs[name].half()) for name, t in ours.items())
    card = json.loads((target / "round.json").read_text())
    assert (card["sha256"], card["steps"]) == (sha256_of(file), done.steps)
    assert card["scores_after"] == done.scores_after
    assert card["metrics"][-1]["step"] == done.steps
    assert len(card["metrics"]) < done.steps
    sizes = {Image.open(target / f"{which}.webp").size for which in ("before", "after")}
    assert len(sizes) == 1
