"""Whose a GPU is. A worker has its GPU from its start to its end, since its models stay in the GPU's memory: train workers
alone, generate workers with others of their kind. With LIKESTEP_SHARE_GPU=1 nobody asks.

The lock is the kernel's (`flock` on a file of the data folder named by the GPU's own number), so it goes with a process
that is killed, and holds between the containers of a machine, which share that folder.
"""

from __future__ import annotations

import fcntl
import importlib
import logging
import os
import socket
from collections.abc import Collection
from pathlib import Path

from celery import signals
from celery.concurrency.prefork import TaskPool
from django.conf import settings

from webapp.lib.broker import GENERATE, TRAIN

log = logging.getLogger(__name__)
_held: list = []  # open for as long as the process lives
_queues: set[str] = set()


class GpuTaken(RuntimeError):
    """Another worker has the GPU."""


def gpu() -> str:
    """The number that the GPU of this process has everywhere; empty without one."""
    import torch

    return str(torch.cuda.get_device_properties(0).uuid) if torch.cuda.is_available() else ""


def claim(number: str, queues: Collection[str], name: str) -> None:
    """Have the GPU until this process ends, as the worker `name` of these queues. Raises GpuTaken."""
    kinds = {GENERATE, TRAIN} & set(queues)
    if not number or not kinds or settings.LIKESTEP_SHARE_GPU:
        return
    path = Path(settings.LIKESTEP_DATA) / "locks" / f"gpu-{number}"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+")
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if TRAIN in kinds else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        other = file.read().strip()
        file.close()
        raise GpuTaken(
            f"GPU {number}: {other or 'another worker'} has it, and training shares no GPU; give this worker another one "
            "with CUDA_VISIBLE_DEVICES, or set LIKESTEP_SHARE_GPU=1"
        ) from error
    file.truncate(0)
    file.write(name)
    file.flush()
    _held.append(file)


def _worker(sender, instance, **kwargs) -> None:
    _queues.update(instance.app.amqp.queues.consume_from)
    if {GENERATE, TRAIN} & _queues:
        importlib.import_module("workers.work")  # torch, before any fork: children then share it
    if not issubclass(instance.pool_cls, TaskPool):
        _process()  # tasks run in this process


def _process(**kwargs) -> None:
    """In the process that will work, before its first task: CUDA does not outlive a fork."""
    try:
        kinds = "+".join(sorted({GENERATE, TRAIN} & _queues))
        if kinds:
            claim(gpu(), _queues, f"the {kinds} worker of {socket.gethostname()}, process {os.getpid()},")
    except GpuTaken as error:
        log.critical("%s", error)
        raise SystemExit(1) from error


def connect() -> None:
    """Claim the GPU as soon as Celery says which queues this worker serves."""
    signals.celeryd_after_setup.connect(_worker, weak=False)
    signals.worker_process_init.connect(_process, weak=False)
