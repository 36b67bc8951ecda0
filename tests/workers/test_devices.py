"""A GPU is not shared by generating and training unless that is allowed. The GPU's number is made up; the locks and the
processes are real."""

import os
import subprocess
import sys

import pytest

from workers import devices

SERVE = """
import sys, celery.__main__, django
django.setup()
from celery import Celery
from webapp.lib.broker import configure
from workers import devices
devices.gpu = lambda: "GPU-0"
devices.connect()
app = configure(Celery("likestep"))  # without tasks, whose imports would take most of this test's time
sys.argv = ["celery", "-A", "__main__", "worker", "-P", "solo", "-Q", "{queue}", "-n", "{queue}@test"]
celery.__main__.main()
"""
HOLD = """
import django; django.setup()
from workers import devices
devices.claim("GPU-0", ["{queue}"], "the {queue} worker of elsewhere, process 7,")
print("held", flush=True)
input()
"""


@pytest.fixture(autouse=True)
def let_go():
    """What this process holds ends with the test, as it ends with a process."""
    yield
    while devices._held:
        devices._held.pop().close()


@pytest.fixture
def holder(data_folder):
    """holder(queue): another process that has GPU-0 for it."""
    started = []

    def start(queue):
        command = [sys.executable, "-c", HOLD.format(queue=queue)]
        pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "webapp.settings"}
        started.append(subprocess.Popen(command, env=environment, **pipe))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_training_waits_for_no_gpu_that_generates(holder, settings):
    other = holder("generate")
    with pytest.raises(devices.GpuTaken, match="GPU-0: the generate worker of elsewhere, process 7, has it") as refused:
        devices.claim("GPU-0", ["train"], "mine")
    assert "CUDA_VISIBLE_DEVICES" in str(refused.value) and "LIKESTEP_SHARE_GPU=1" in str(refused.value)
    devices.claim("GPU-1", ["train"], "mine")  # another GPU
    devices.claim("", ["train"], "mine")  # none
    devices.claim("GPU-0", ["oracle"], "mine")  # neither kind
    devices.claim("GPU-0", ["generate"], "mine")  # of the same kind
    settings.LIKESTEP_SHARE_GPU = True
    devices.claim("GPU-0", ["train"], "mine")  # allowed
    settings.LIKESTEP_SHARE_GPU = False
    let_go = devices._held.pop()
    let_go.close()
    other.kill()
    other.wait()
    devices.claim("GPU-0", ["train"], "mine")  # a killed process has nothing


def test_a_worker_whose_gpu_is_anothers_does_not_start(holder):
    holder("train")
    for queue in ("generate", "train"):
        with pytest.raises(devices.GpuTaken, match="the train worker of elsewhere"):
            devices.claim("GPU-0", [queue], "mine")
    run = subprocess.run(
        [sys.executable, "-c", SERVE.format(queue="generate")],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "webapp.settings"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 1
    assert "GPU GPU-0: the train worker of elsewhere, process 7, has it, and training shares no GPU" in run.stderr
