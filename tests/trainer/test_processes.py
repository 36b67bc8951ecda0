"""Several processes make the update that one would make: groups stay whole and silent ones are counted over all."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from common.settings import MemorySettings, SettingsError
from tests.servers import free_port
from tests.trainer.backends.tiny import CASES
from trainer.backends import load_backend
from trainer.rounds import run_round
from trainer.shares import Share

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"prompts_per_update": 4, "steps_trained": 2, "surrogate_updates": 1, "validation_images": 0}


def launch(script, *arguments, processes):
    """Run a file under `accelerate launch` on CPU. Its launcher of several processes goes by the name of `--multi_gpu`, but
    the Accelerator that the trainer makes decides on the device."""
    options = ["--num_processes", str(processes), "--num_machines", "1", "--main_process_port", str(free_port())]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no", "--multi_gpu" if processes > 1 else "--cpu"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, str(script), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr[-3000:]


def read(path):
    with safe_open(path, "pt") as file:
        return load_file(path), file.metadata()["processes"]


@pytest.mark.parametrize("mode", ["oracle", "labels", "sharded"])
def test_two_processes_give_the_gradients_of_one(make_spec, groups_file, tmp_path, mode):
    source = {"reward_oracle": None, "groups_file": str(groups_file)} if mode == "labels" else {}
    results = []
    for processes in (1, 2):
        memory = {"shard": True, "text_encoders": "free"} if mode == "sharded" and processes == 2 else {}
        spec = make_spec(settings=SETTINGS, memory=memory, **source)
        (tmp_path / "spec.json").write_text(json.dumps(dataclasses.asdict(spec)))
        output = tmp_path / f"gradients-{processes}.safetensors"
        launch(ROOT / "tests/trainer/first_step.py", tmp_path / "spec.json", output, processes=processes)
        gradients, seen = read(output)
        assert seen == ("1" if memory else str(processes))  # that share the batch; sharded ones act as one
        results.append(gradients)
    one, two = results
    assert one.keys() == two.keys() and any(g.abs().max() > 0 for g in one.values())
    for name, gradient in one.items():
        assert torch.allclose(gradient, two[name], rtol=1e-3, atol=1e-6), name


def test_sharded_passes_are_those_of_whole_models(tmp_path):
    """Of every family whose blocks are known, in two processes that hold half of them each."""
    torch.manual_seed(0)
    folders = [case.build(tmp_path / name) for name, case in CASES.items()]
    launch(ROOT / "tests/trainer/sharded_passes.py", tmp_path / "found.json", *folders, processes=2)
    found = json.loads((tmp_path / "found.json").read_text())
    assert {row["model"] for row in found} == set(CASES) and len(found) == 3 * len(CASES)
    for row in found:
        assert 0 < row["full"] <= 2 * row["local"] <= 1.01 * row["full"]  # the first has the larger half of odd rows
        # A gradient that two processes add up is rounded in another order; by how much depends on the processor.
        assert max(row["apart"]) <= (0.02 if row["way"] == "in bf16" else 1e-5), row


def test_a_sharded_round_is_that_of_one_process(make_spec, tmp_path):
    """With validation, alarm, pictures and a version, which every process makes and the main one writes."""
    versions = []
    for name, memory in (("whole", {}), ("sharded", {"shard": True})):
        spec = make_spec(name, settings={"updates": 2, "validation_images": 4, "validate_every": 1}, memory=memory)
        (tmp_path / "spec.json").write_text(json.dumps(dataclasses.asdict(spec)))
        launch(ROOT / "tests/trainer/sharded_round.py", tmp_path / "spec.json", processes=2 if memory else 1)
        versions.append(load_file(Path(spec.output_dir) / "pytorch_lora_weights.safetensors"))
        assert (Path(spec.work_dir) / "grid" / "after.webp").exists()
    assert all(torch.allclose(versions[0][k], versions[1][k], atol=1e-4) for k in versions[0])


def test_what_cannot_be_sharded_is_said(model_dir):
    for other in ({"weights": "int8"}, {"streamed": 2}, {"compile": True}):
        with pytest.raises(SettingsError, match=f"shard: it cannot be combined with {next(iter(other))}; turn one"):
            MemorySettings(shard=True, **other)
    with pytest.raises(ValueError, match="shard: there is one process; start several with accelerate launch"):
        load_backend(model_dir, memory=MemorySettings(shard=True))


def test_groups_are_dealt_out_whole_and_once():
    owner = torch.arange(6).repeat_interleave(4)
    parts = [Share(rank, 3).among(owner) for rank in range(3)]
    assert sorted(torch.cat([p.index for p in parts]).tolist()) == list(range(24))
    assert [sorted(set(p.pick(owner).tolist())) for p in parts] == [[0, 3], [1, 4], [2, 5]]
    assert sum(p.weight(3) for p in parts) == pytest.approx(3)


def test_groups_that_cannot_be_dealt_out_evenly_are_refused(make_spec, reddish, monkeypatch):
    monkeypatch.setattr(Share, "of", classmethod(lambda cls, accelerator: cls(0, 2)))
    with pytest.raises(ValueError, match="prompts_per_update: 3 groups cannot be dealt out evenly to 2 processes"):
        run_round(make_spec())
