"""The GPU's bench: its parts run with tiny shapes on a CPU; neither a failing part nor the end of the time costs others."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from bench.gpu import __main__ as command
from bench.gpu import parts
from bench.gpu.parts import Job, demo, generation, memory, plans, rungs, step
from bench.gpu.tables import NOT_MEASURED, sections
from trainer.plan import LADDER


@pytest.fixture
def job(tmp_path):
    return Job(torch.device("cpu"), True, 64, 1.0, tmp_path)


def fine(results):
    found = list(results)
    assert found and not [one["error"] for one in found if "error" in one]
    return found


@pytest.mark.parametrize("model", ["sd35", "z_image"])
def test_plan_knows_the_peak_of_an_update(job, monkeypatch, model):
    monkeypatch.setattr("trainer.plan.LADDER", LADDER[:1])
    monkeypatch.setattr(parts, "MODELS", (model,))
    (measured,), (planned,) = fine(memory(model, job)), fine(plans(job))
    assert measured["options"] == planned["options"] and measured["seconds"] > 0
    assert planned["tensors"] == pytest.approx(measured["peak"], rel=0.15)


def test_every_rung_that_plan_tries_is_measured(job):
    assert len(rungs(job)) == len(LADDER)


def test_a_group_is_generated_beside_stock_images_of_it(job):
    stock, groups, folded = fine(generation("z_image", job))
    assert min(found["images_per_second"] for found in (stock, groups, folded)) > 0
    assert groups["mfu"] is None  # nobody knows a CPU's peak


def test_a_step_is_made_in_both_orders(job):
    ours, naive = fine(step("sd35", job))
    assert ours["flops"] > 0 and ours["peak"] > 0 and naive["peak"] > 0


def test_the_demos_chain_runs(job):
    found = {one["what"]: one for one in demo(job)}
    assert {"pretrain", "base", "distill", "train"} <= set(found)
    assert all(one["images_per_second"] > 0 for what, one in found.items() if what != "base")


def test_the_command_prints_results_and_tables(tmp_path, capfd):
    words = "--device cpu --tiny --minutes 8 --parts generation-sd35 --work".split()
    command.main([*words, str(tmp_path)])
    kept = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert [line["row"] for line in kept] == ["generation-sd35"] * 3
    printed = capfd.readouterr().out
    assert printed.count("generation-sd35: model sd35, what ") == 3 and "| SD3.5 Medium's shapes | groups | " in printed


def options(tmp_path, **changes):
    values = {"minutes": 0.2, "device": "cpu", "size": 64, "tiny": True, "work": tmp_path, "job": None}
    return SimpleNamespace(**values | changes, seconds=None, folder=None)


def part(monkeypatch, code):
    """A part's process runs this instead."""

    def child(name, a, seconds, folder):
        how = {"stdout": subprocess.PIPE, "stderr": (folder / f"{name}.err").open("w"), "text": True}
        return subprocess.Popen([sys.executable, "-c", code], start_new_session=True, **how)

    monkeypatch.setattr(command, "child", child)


def test_a_part_that_fails_keeps_what_it_told(tmp_path, monkeypatch, capsys):
    part(monkeypatch, "print('{\"what\": 1}', flush=True); raise SystemExit('out of memory')")
    a = options(tmp_path)
    told = command.Told(a)
    command.run_part("demo", a, 30, tmp_path, told)
    assert [line["what"] for line in told.lines] == [1]
    assert json.loads((tmp_path / "runs.jsonl").read_text())["row"] == "demo"
    assert "demo: ended early, status 1: out of memory" in capsys.readouterr().out


def test_a_part_whose_time_is_up_is_ended(tmp_path, monkeypatch, capsys):
    part(monkeypatch, "import time; print('{\"what\": 1}', flush=True); time.sleep(600)")
    a = options(tmp_path)
    told = command.Told(a)
    command.run_part("demo", a, 2, tmp_path, told)
    assert len(told.lines) == 1 and "its time was up" in capsys.readouterr().out


def test_without_runs_every_figure_is_not_measured():
    for table in sections([]).values():
        assert NOT_MEASURED in table and not any(letter.isdigit() for letter in table.replace("SD3.5", ""))
