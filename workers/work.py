"""A round's files on this machine. With a bucket they are brought here before the round starts or goes on, and every
checkpoint is kept there, so that any machine can take the round up; without one the data folder is all there is.

In the bucket a round's folder holds what `common.round_folder` says, but for checkpoints: each is a folder of its own
(`bucket_checkpoint`, with all of `STATE` in it), and the round's row names the one that is whole.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from django.conf import settings

from common.files import write_atomic
from common.round_folder import (
    CHECKPOINTS,
    INPUTS,
    ORDERS,
    SHOWN,
    STATE,
    RoundFolder,
    bucket_checkpoint,
    makes_whole,
    step_of,
    whole_checkpoints,
)
from common.signal import has_signal
from trainer.checkpoint import whole_step
from trainer.prompts import INPUT
from trainer.rounds import RoundResult, RoundSpec
from webapp.lib import paths, storage
from webapp.rounds import services as rounds
from webapp.rounds.models import OPEN, TrainingRound
from workers.database import patiently

log = logging.getLogger(__name__)


class Work:
    """The files of a round that this process has claimed. In the data folder they are where they stay."""

    def __init__(self, training: TrainingRound):
        self.training, self.folder = training, self._place(training)

    def _place(self, training: TrainingRound) -> Path:
        return paths.round_dir(training.pk)

    def bring(self) -> RoundSpec:
        """Everything the round needs, on this machine. Raises OSError and ValueError that say what is missing."""
        spec = json.loads(rounds.write_spec(self.training, self.folder).read_text())
        return RoundSpec(**{**spec, "memory": settings.LIKESTEP_MEMORY.to_json() | spec["memory"]})

    def keep(self, step: int, lost: Callable[[], None]) -> None:
        """The trainer has saved a checkpoint of `step` updates: keep it where other machines find it, and tell the row.
        `lost()` is called when another owner has the round."""
        if not self._tell(step, ""):
            lost()

    def _tell(self, step: int, name: str) -> bool:
        return patiently(lambda: rounds.keep_checkpoint(self.training.pk, self.training.token, step, name))

    def deliver(self, result: RoundResult) -> dict:
        """The finished version is where every machine finds it; returns the result as values. Raises OSError."""
        return dataclasses.asdict(result)

    def clear(self, *, waits: bool = False) -> None:
        """Let go of what nobody needs here any more; `waits`: the round goes on later, here or elsewhere."""


class BucketWork(Work):
    """Files that are brought from the bucket and kept there."""

    def __init__(self, training: TrainingRound):
        super().__init__(training)
        self.store, self.remote = storage.store(), paths.training_round(training.pk)

    def _place(self, training: TrainingRound) -> Path:
        # Of its own: two workers of this machine may think that the round is theirs.
        return paths.work_dir(training.pk, training.token)

    def bring(self) -> RoundSpec:
        self._bring_what_is_done()
        spec = super().bring()
        for name in ORDERS:
            if not self.store.exists(f"{self.remote}/{name}"):
                self.store.keep(f"{self.remote}/{name}", self.folder / name)
        self._bring_trajectories()
        return self._bring_inputs(spec)

    def _bring_what_is_done(self) -> None:
        entries = [entry.name for entry in self.store.walk(self.remote)]
        if rounds.is_first(self.training):
            self._sweep()
            self.store.delete(entries)  # nobody ran it before, so what lies here is of another database
            return
        mine = [name.removeprefix(f"{self.remote}/") for name in entries]
        checkpoint = self._checkpoint(mine)
        further = self._further(step_of(checkpoint))
        if further is not None:
            further.rename(self.folder)
            log.info("round %s goes on from what this machine could not keep in the bucket", self.training.pk)
        self._sweep()
        if further is not None:
            self._download([name for name in mine if name in ORDERS])
            return
        self._download([name for name in mine if not name.startswith(f"{CHECKPOINTS}/")])
        if checkpoint:
            for part in STATE:
                shutil.rmtree(self.folder / part, ignore_errors=True)
            inside = [name for name in mine if name.startswith(f"{checkpoint}/")]
            last = [name for name in inside if makes_whole(name)]
            for names in ([name for name in inside if name not in last], last):
                self._download(names, lambda name: name.removeprefix(f"{checkpoint}/"))
            log.info("round %s goes on from %s", self.training.pk, checkpoint)

    def _further(self, step: int) -> Path | None:
        """The folder of a former owner on this machine whose checkpoint is of more updates than `step`: the bucket did
        not answer, or the owner was killed before it was there."""
        folders = self.folder.parent.glob(f"{self.training.pk}-*")
        found = [(whole_step(RoundFolder(folder).checkpoint), folder) for folder in folders]
        return max(((n, folder) for n, folder in found if n is not None and n > step), default=(0, None))[1]

    def _sweep(self) -> None:
        """Delete what former owners left on this machine: folders of this round, and of rounds that have ended."""
        open_rounds = {str(pk) for pk in TrainingRound.objects.filter(state__in=OPEN).values_list("pk", flat=True)}
        for folder in self.folder.parent.glob("*-*"):
            number = folder.name.split("-")[0]
            if folder != self.folder and (number == str(self.training.pk) or number not in open_rounds):
                shutil.rmtree(folder, ignore_errors=True)

    def _checkpoint(self, names: list[str]) -> str:
        """The row's checkpoint. After a back-up was restored it may be gone, for a newer one: then the newest whole one."""
        whole = whole_checkpoints(names)
        return self.training.checkpoint if self.training.checkpoint in whole else (whole or [""])[-1]

    def _download(self, names: list[str], place: Callable[[str], str] = lambda name: name) -> None:
        cut = len(self.remote) + 1
        self.store.download_all(
            [f"{self.remote}/{name}" for name in names], lambda name: self.folder / place(name[cut:])
        )

    def _bring_trajectories(self) -> None:
        """Those of the groups that teach something, which is what the trainer reads. They are linked into the round's
        folder, so that another worker of this machine may trim the copies meanwhile. A damaged one is left out, as the
        trainer does."""
        file = RoundFolder(self.folder).groups
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        wanted = [line for line in lines if has_signal(line["rewards"])]
        root = paths.data("")
        names = [str((self.folder / line["trajectory_file"]).resolve().relative_to(root)) for line in wanted]
        links = self.store.link_all(names, lambda name: RoundFolder(self.folder).trajectories / Path(name).name)
        for line, link in zip(wanted, links, strict=True):
            if isinstance(link, Path):
                line["trajectory_file"] = str(link.relative_to(self.folder))
            else:
                log.warning("round %s leaves out group %s: %s", self.training.pk, line["group"], link)
        write_atomic(file, ("".join(json.dumps(line) + "\n" for line in lines)).encode())

    def _bring_inputs(self, spec: RoundSpec) -> RoundSpec:
        """The input images that prompts and groups name, and the spec that says where they are. A group whose own is gone
        is left out, as the trainer does."""
        lines = [json.loads(line)["metadata"] for line in RoundFolder(self.folder).groups.read_text().splitlines()]
        wanted = {line.get(INPUT) for line in (*lines, *spec.train_prompts, *spec.validation)} - {None}
        place = self.folder / INPUTS
        for digest, link in zip(
            sorted(wanted),
            self.store.link_all(map(paths.input_image, sorted(wanted)), lambda name: place / Path(name).name),
            strict=True,
        ):
            if not isinstance(link, Path):
                log.warning("round %s lacks the input image %s: %s", self.training.pk, digest, link)
        return dataclasses.replace(spec, inputs=str(place))

    def keep(self, step: int, lost: Callable[[], None]) -> None:
        # A bucket that does not answer stops no round: the next checkpoint may be kept again.
        name = bucket_checkpoint(self.training.token, step)
        try:
            self._keep(name, [file for part in STATE for file in self._files(part)])
            if self._tell(step, name):
                self._keep_shown()
                self._forget(name)
            else:
                lost()
        except storage.Unreachable as error:
            log.warning("round %s is not kept at step %s: %s", self.training.pk, step, error)

    def _files(self, part: str) -> list[Path]:
        """That with which a checkpoint is whole comes last."""
        path = self.folder / part
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        return sorted(files, key=lambda file: (makes_whole(file.name), file))

    def _keep(self, folder: str, files: list[Path]) -> None:
        for file in files:
            self.store.keep("/".join(filter(None, [self.remote, folder, str(file.relative_to(self.folder))])), file)

    def _keep_shown(self) -> None:
        for part in SHOWN:
            self._keep("", self._files(part))

    def _forget(self, name: str) -> None:
        """Checkpoints before the last two: a back-up that runs copies one that its rows name."""
        folders: dict[str, list[str]] = {}
        for entry in self.store.walk(f"{self.remote}/{CHECKPOINTS}"):
            inside = entry.name.removeprefix(f"{self.remote}/")
            folders.setdefault("/".join(inside.split("/")[:2]), []).append(entry.name)
        for old in sorted(folder for folder in folders if folder < name)[:-1]:
            # The file that makes it whole goes first.
            self.store.delete(sorted(folders[old], key=lambda n: not makes_whole(n)))

    def deliver(self, result: RoundResult) -> dict:
        for file in sorted(Path(result.version_dir).iterdir()):
            self.store.keep(f"{paths.round_version(self.training.pk, self.training.token)}/{file.name}", file)
        if patiently(lambda: rounds.is_owner(self.training.pk, self.training.token)):
            self._keep_shown()
        return super().deliver(result)

    def clear(self, *, waits: bool = False) -> None:
        # A round that waits leaves its checkpoint, which may be nowhere else; a finished version is made again from it.
        if not waits:
            shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(paths.data(paths.round_version(self.training.pk, self.training.token)), ignore_errors=True)
        self.store.trim()


OF_STORE = {storage.Folder: Work, storage.Bucket: BucketWork}


def work_of(training: TrainingRound) -> Work:
    """The files of a round, as this installation keeps them."""
    return OF_STORE[type(storage.store())](training)
