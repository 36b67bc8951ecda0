"""The shipped launcher configurations say what accelerate itself understands."""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "accelerate"
PROCESSES = {"1x24gb": 1, "1x80gb": 1, "8x80gb": 8}


def test_every_file_is_listed_here():
    assert {path.stem for path in FOLDER.iterdir()} == set(PROCESSES)


@pytest.mark.parametrize("name", PROCESSES)
def test_accelerate_reads_it(name):
    path = FOLDER / f"{name}.yaml"
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    assert (config.num_processes, config.num_machines, config.use_cpu) == (PROCESSES[name], 1, False)
    assert config.distributed_type == (DistributedType.MULTI_GPU if PROCESSES[name] > 1 else DistributedType.NO)
    assert config.mixed_precision == "no"


@pytest.mark.parametrize("name", PROCESSES)
def test_the_launcher_starts_the_trainer_with_it(name):
    words = ["--config_file", str(FOLDER / f"{name}.yaml"), "-m", "trainer", "train", "--oracle", "demo"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert (arguments.num_processes, bool(arguments.multi_gpu)) == (PROCESSES[name], PROCESSES[name] > 1)
    assert arguments.module and arguments.training_script == "trainer"
    assert arguments.training_script_args == ["train", "--oracle", "demo"]
