"""The bench of what a surrogate learns from labels: it teaches nothing but the surrogate, and the table has the gains."""

import pytest
import torch

import bench.learning.gains
import bench.learning.label_economy
from bench.harness import START
from bench.learning import economy, taught
from bench.learning.people import PEOPLE, Person
from bench.learning.taught import ROWS, sections, teach
from tests.trainer.rounds_helpers import SMALL
from trainer.roles import STUDENT, SURROGATE
from trainer.roles import TEACHER as BASE


@pytest.mark.parametrize("name", ["likelihood", "head_shuffled"])
def test_only_the_surrogate_learns(name, tmp_path, model_dir, parent, monkeypatch):
    for module in (economy, taught, bench.learning.label_economy, bench.learning.gains):
        monkeypatch.setattr(module, "MODEL", model_dir)
    monkeypatch.setattr(taught, "STUDENT", parent)
    monkeypatch.setitem(PEOPLE, "sure", (Person(0.5),))
    row = ROWS[name]
    small = taught.Row(row.title, {**SMALL, **row.settings, "updates": 2}, row.control)
    method = teach(small, 0, 32, {}, tmp_path)
    student = method.backend.load_lora(parent).state
    assert all(torch.equal(v, student[k]) for k, v in method.roles.state_dict(STUDENT).items())
    assert any(v.abs().sum() > 0 for k, v in method.roles.state_dict(SURROGATE).items() if "lora_B" in k)
    assert BASE not in method.roles.names


def test_the_table_has_the_gains_over_the_base_by_strength():
    scores = {"strict": 0.5, "geneval": 0.6, "reward": 0.7}
    better = {k: v + 0.1 for k, v in scores.items()}
    lines = [{"row": START, "seed": None, "scores": scores}]
    lines += [{"row": "head", "seed": s, "drawn": {"1": scores, "4": better}} for s in (0, 1)]
    text = sections(lines)["taught"]
    assert "| the base, guided |  | 0.500 | 0.600 | 0.700 | 0.500 |" in text
    assert "| head | 2 | +0.000 ± 0.000 | +0.000 ± 0.000 | +0.000 ± 0.000 | +0.100 ± 0.000 |" in text
