"""What lies where in a training round's folder: the only owner of these names. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SPEC = "spec.json"  # the round, as it was started
GROUPS = "groups.jsonl"  # the labelled groups that it learns from
TRAJECTORIES = "trajectories"  # of those, where they were brought from elsewhere
INPUTS = "inputs"  # input images of its prompts and groups, where they were brought from elsewhere
CHECKPOINT = "checkpoint"  # the latest full training state
STATE_FILE = "state.json"  # in it; with this file a checkpoint is whole
WEIGHTS_FILE = "state.safetensors"  # in it
BEST = "best"  # the version that would be kept if the round ended now
LOG = "log.jsonl"  # a line of numbers an update
GRID = "grid"  # pictures of before and after, and by the surrogate
GRID_GAP = 2  # pixels between the images of such a picture
COMPARISON = f"{GRID}/comparison.json"  # what the pictures show, and by how much each score changed
CURVES = "tensorboard"
VERSION = "version.json"  # in a finished version's folder, beside its LoRA
CHECKPOINTS = "checkpoints"  # in a bucket, where each checkpoint is a folder of its own with all of `STATE` in it

ORDERS = (SPEC, GROUPS)  # written once
STATE = (BEST, LOG, CHECKPOINT)  # what a checkpoint holds
SHOWN = (GRID, LOG, CURVES)  # what people look at meanwhile


@dataclass(frozen=True)
class RoundFolder:
    """A round's folder on this machine."""

    path: Path

    @property
    def spec(self) -> Path:
        """See `SPEC`."""
        return self.path / SPEC

    @property
    def groups(self) -> Path:
        """See `GROUPS`."""
        return self.path / GROUPS

    @property
    def trajectories(self) -> Path:
        """See `TRAJECTORIES`."""
        return self.path / TRAJECTORIES

    @property
    def checkpoint(self) -> Path:
        """See `CHECKPOINT`."""
        return self.path / CHECKPOINT

    @property
    def best(self) -> Path:
        """See `BEST`."""
        return self.path / BEST

    @property
    def log(self) -> Path:
        """See `LOG`."""
        return self.path / LOG

    def grid(self, which: str) -> Path:
        """The picture `before`, `after` or `surrogate`."""
        return self.path / grid(which)

    @property
    def comparison(self) -> Path:
        """See `COMPARISON`."""
        return self.path / COMPARISON


def grid(which: str) -> str:
    """The picture `before`, `after` or `surrogate`, relative to the round's folder."""
    return f"{GRID}/{which}.webp"


def bucket_checkpoint(token: int, step: int) -> str:
    """A checkpoint in a bucket, relative to the round's folder: an owner never writes over another one's."""
    return f"{CHECKPOINTS}/{token:06d}-{step:09d}"


def step_of(checkpoint: str) -> int:
    """How many updates a checkpoint in a bucket is of, by its name; -1 of none."""
    return int(checkpoint.rpartition("-")[2]) if checkpoint else -1


def whole_checkpoints(names: list[str]) -> list[str]:
    """The checkpoints in a bucket that are whole, oldest first, from the names of the files in the round's folder."""
    end = f"/{CHECKPOINT}/{STATE_FILE}"
    return sorted(n.removesuffix(end) for n in names if n.startswith(f"{CHECKPOINTS}/") and n.endswith(end))


def makes_whole(name: str) -> bool:
    """Whether a file is the one with which its checkpoint is whole: written last, deleted first."""
    return name.rpartition("/")[2] == STATE_FILE


def ends_with_the_round(name: str) -> bool:
    """Whether a file, by its name in the round's folder, is of the training state: also one that was being written, and
    the bucket's checkpoints."""
    part = name.split("/")[0]
    return part in (BEST, CHECKPOINTS) or part.split(".")[0] == CHECKPOINT
