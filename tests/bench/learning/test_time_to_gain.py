"""The bench of how long a gain takes: a default round from few labels, and what its table says."""

from functools import partial

import pytest

import bench.learning.gains
import bench.learning.label_economy
from bench.learning import economy, time_to_gain
from bench.learning.label_economy import Row
from bench.learning.people import PEOPLE, Person
from bench.learning.time_to_gain import change, sections, train
from common.settings import TDMR1Settings
from tests.trainer.rounds_helpers import SMALL


def test_a_round_from_labels_goes_through_and_says_what_it_took(tmp_path, model_dir, parent, monkeypatch):
    for module in (economy, bench.learning.label_economy, bench.learning.gains):
        monkeypatch.setattr(module, "MODEL", model_dir)
    monkeypatch.setattr(time_to_gain, "STUDENT", parent)
    monkeypatch.setitem(PEOPLE, "coin", (Person(0.5),))
    small = {k: v for k, v in SMALL.items() if k != "seed"} | {"updates": 1}
    monkeypatch.setattr(time_to_gain, "TDMR1Settings", partial(TDMR1Settings, **small))
    version, spent = train(Row("", 32, people="coin"), 0, tmp_path)
    assert (version / "pytorch_lora_weights.safetensors").exists()
    assert spent["groups"] == 4 and spent["updates"] == 1 and spent["minutes"] > 0 and spent["alarm"] == ""


def test_a_change_is_sure_where_its_interval_has_no_zero():
    certain = change([0.0] * 50 + [1.0] * 50, [0.0] * 20 + [1.0] * 80)
    assert certain["after"] - certain["before"] == pytest.approx(0.3)
    assert certain["error"] == pytest.approx(0.046, abs=0.001)
    nothing = change([0.0, 1.0] * 50, [1.0, 0.0] * 50)
    lines = [{"row": "a", "seed": s, "minutes": 2.0, "strict": certain, "liked": nothing} for s in (0, 1)]
    assert (
        "| a | 2 | 2.000 ± 0.000 | 0.500 | +0.300 ± 0.000 | 2 of 2 | 0.500 | +0.000 ± 0.000 | 0 of 2 |"
        in sections(lines)["time"]
    )
