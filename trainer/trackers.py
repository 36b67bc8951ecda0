"""Curves and sample grids of a run for TensorBoard, Weights & Biases or MLflow, through accelerate's trackers.

TensorBoard writes into the run's work folder and is on unless told otherwise. The others are asked for by name, here or in
`LIKESTEP_TRACKERS`, need their own package, and find their server by their own variables (`WANDB_…`, `MLFLOW_…`).
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from accelerate import PartialState
from accelerate.tracking import MLflowTracker, TensorBoardTracker, WandBTracker
from accelerate.utils import is_mlflow_available, is_tensorboard_available, is_wandb_available
from PIL import Image

from common.files import write_atomic
from common.round_folder import CURVES

log = logging.getLogger(__name__)
PROJECT = "likestep"
_THERE = {"tensorboard": is_tensorboard_available, "wandb": is_wandb_available, "mlflow": is_mlflow_available}


def chosen(names: str | None = None) -> tuple[str, ...]:
    """Tracker names of a comma-separated list, of `LIKESTEP_TRACKERS` where it is None; "none" is none at all.

    Raises ValueError on an unknown name or a missing package. What the environment asks for in vain is left out with a
    warning instead: it is set for all rounds of a machine, and none of them must fail because nobody could watch it.
    """
    text = os.environ.get("LIKESTEP_TRACKERS", "tensorboard") if names is None else names
    wanted = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if wanted == ("none",):
        return ()
    there = []
    for name in wanted:
        problem = None
        if name not in _THERE:
            problem = f"trackers: {name!r} is not one of {', '.join(_THERE)}, or none alone"
        elif not _THERE[name]():
            problem = f"trackers: {name} needs its package; run pip install {name}"
        if problem is None:
            there.append(name)
        elif names is not None:
            raise ValueError(problem)
        else:
            log.warning("LIKESTEP_TRACKERS: %s", problem)
    return tuple(there)


class Trackers:
    """What a run logs to. A tracker that fails (a full disk, a server that is gone) is dropped with a warning: a run of
    hours must not end because nobody could watch it."""

    def __init__(self, work: Path, names: Sequence[str], *, settings: Mapping, step: int = 0):
        """`work` is the run's work folder, its name the run's name; `step` is where a resumed run goes on."""
        PartialState()  # the trackers ask it which process is the main one
        self._open = []
        for name in names:
            self._try(lambda name=name: self._open.append(self._start(name, work, dict(settings), step)), name)

    def _start(self, name: str, work: Path, settings: dict, step: int):
        run = f"{work.parent.name}-{work.name}"
        known = work / f"{name}-run"  # holds the run's id, to go on with it
        if name == "tensorboard":
            # What an interrupted run logged after its checkpoint is hidden, so that curves do not double back.
            options = {"purge_step": step + 1} if step else {}
            tracker = TensorBoardTracker("", str(work / CURVES), **options)
        elif name == "wandb":
            if not known.exists():
                write_atomic(known, uuid.uuid4().hex.encode())
            tracker = WandBTracker(PROJECT, name=run, id=known.read_text(), resume="allow", dir=str(work))
        else:
            tracker = MLflowTracker(PROJECT, run_name=run, run_id=known.read_text() if known.exists() else None)
        tracker.start()
        if name == "mlflow":
            write_atomic(known, tracker.tracker.info.run_id.encode())
        if name != "tensorboard":
            tracker.store_init_configuration(settings)
        elif not step:
            # Its tracker's own way makes a folder and a run of its own for them.
            tracker.writer.add_text("settings", "\n".join(f"    {k}: {v}" for k, v in settings.items()), 0)
        return tracker

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of a step."""
        numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
        for tracker in list(self._open):
            self._try(lambda tracker=tracker: tracker.log(numbers, step=step), tracker)

    def image(self, name: str, image: Image.Image, step: int) -> None:
        """A picture of a step, such as a grid of samples."""
        for tracker in list(self._open):
            self._try(lambda tracker=tracker: self._log_image(tracker, name, image, step), tracker)

    @staticmethod
    def _log_image(tracker, name: str, image: Image.Image, step: int) -> None:
        if isinstance(tracker, TensorBoardTracker):
            tracker.log_images({name: np.asarray(image.convert("RGB"))[None]}, step=step, dataformats="NHWC")
            tracker.writer.flush()
        elif isinstance(tracker, WandBTracker):
            tracker.log_images({name: [image]}, step=step)
        else:
            import mlflow

            mlflow.log_image(image, key=name, step=step)

    def close(self) -> None:
        """Write what is left."""
        for tracker in list(self._open):
            self._try(tracker.finish, tracker)
        self._open = []

    def _try(self, act, tracker) -> None:
        try:
            act()
        except Exception as error:
            name = getattr(tracker, "name", tracker)
            log.warning("tracker %s is left out from here on: %s", name, error)
            if tracker in self._open:
                self._open.remove(tracker)
