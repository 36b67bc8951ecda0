"""Beat and the oracle worker wait for hours: they take no more memory than Django and Celery do."""

import re
import subprocess
import sys

HEAVY = ("torch", "diffusers", "transformers", "pyarrow", "webapp.urls")


def loaded_by(code: str) -> set[str]:
    """Which of `HEAVY` a Python process has after running the code."""
    code += f"\nimport sys; print('loaded', *[name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.rpartition("loaded")[2].split())


def test_beat_and_the_oracle_worker_start_without_torch():
    # What `celery beat` and `celery worker` do before their first task.
    beat = "from workers.app import app; app.loader.init_worker()"
    assert loaded_by(beat) == set()
    oracle = (
        "from workers import devices\n"
        "from celery.concurrency.solo import TaskPool\n"
        "app.amqp.queues.select(['oracle'])\n"
        "devices._worker(None, type('W', (), {'app': app, 'pool_cls': TaskPool}))"
    )
    assert loaded_by(f"{beat}\n{oracle}") == set()


def test_beat_takes_little_memory():
    code = "from workers.app import app; app.loader.init_worker(); print(open('/proc/self/status').read())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(re.search(r"VmHWM:\s+(\d+) kB", run.stdout)[1]) < 120_000


def test_a_worker_that_trains_has_torch_before_it_forks():
    code = (
        "from workers.app import app; app.loader.init_worker()\n"
        "from workers import devices\n"
        "from celery.concurrency.prefork import TaskPool\n"
        "app.amqp.queues.select(['train'])\n"
        "devices._worker(None, type('W', (), {'app': app, 'pool_cls': TaskPool}))"
    )
    assert "torch" in loaded_by(code)
