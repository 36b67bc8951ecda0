"""What a round writes into its folder, and the version it ends with. Where things lie there says `common.round_folder`."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from common.files import append_line, sha256_of, sync_folder, write_image, write_json
from common.round_folder import VERSION, RoundFolder
from trainer.checkpoint import load_checkpoint, save_checkpoint
from trainer.methods.base import Method
from trainer.origins import refuse_another
from trainer.rounds.origin import PLAIN
from trainer.rounds.spec import RoundLost, RoundResult, RoundState
from trainer.surrogate_file import save_surrogate


class RoundWork:
    """A round's folder, as its owner writes it. Every method that replaces a file asks `may_write` right before and raises
    RoundLost when it says no."""

    def __init__(self, work: Path, output: Path, may_write: Callable[[], bool] = lambda: True):
        """`output` is where the finished version goes."""
        self.folder, self.output, self.may_write = RoundFolder(work), output, may_write
        self.main, self.published = self.folder, output  # of the process that counts, where several write
        work.mkdir(parents=True, exist_ok=True)

    @classmethod
    def scratch(cls, work: Path, output: Path) -> RoundWork:
        """A copy of a round's folder for a process that does what the main one does, and whose files nobody reads; it goes
        when the program ends."""
        own = Path(tempfile.mkdtemp(prefix="likestep-process-"))
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        if work.exists():
            shutil.copytree(work, own / "work")
        made = cls(own / "work", own / "version")
        made.main, made.published = RoundFolder(work), output
        return made

    def resume(self, method: Method, origin: dict) -> RoundState:
        """Restore the method from the checkpoint, if there is one; the state it was made in. Raises ValueError on a damaged
        one, naming the folder, and on one of a round of another origin, naming what differs."""
        values = load_checkpoint(
            self.folder.checkpoint,
            modules=method.parts(),
            optimizers=method.optimizers,
            check=lambda values: refuse_another(values.get("origin", {}), origin, self.folder.checkpoint, plain=PLAIN),
        )
        if values is None:
            return RoundState(origin=origin)
        state = RoundState(**{k: v for k, v in values.items() if k in RoundState.__dataclass_fields__})
        state.origin, method.surrogate_count, method.replayed = origin, state.surrogate_count, state.replayed
        return state

    def save(self, method: Method, state: RoundState) -> None:
        """Replace the checkpoint."""
        state.surrogate_count, state.replayed = method.surrogate_count, method.replayed
        self._refuse_unless_owner(state)
        save_checkpoint(
            self.folder.checkpoint,
            modules=method.parts(),
            optimizers=method.optimizers,
            extra={k: v for k, v in asdict(state).items() if k != "step"},
            step=state.step,
            before_replacing=lambda: self._refuse_unless_owner(state),
        )

    def keep(self, method: Method, state: RoundState) -> None:
        """The newest student is the best so far."""
        self._refuse_unless_owner(state)
        method.save_student(self.folder.best)

    def log(self, state: RoundState, metrics: dict[str, float]) -> None:
        """One more line of numbers."""
        append_line(self.folder.log, {"step": state.step, "seconds": round(state.seconds, 1), **metrics})

    def write_grid(self, which: str, sheet: Image.Image) -> None:
        """The picture `before`, `after` or `surrogate`."""
        write_image(self.folder.grid(which), sheet, "WEBP", lossless=True)

    def write_comparison(self, values: dict) -> None:
        """What the pictures show, see `Judge.comparison`."""
        write_json(self.folder.comparison, values)

    def publish(self, method: Method, state: RoundState, about: dict) -> None:
        """Write the student as the finished version, whose card says what came of the round and `about` it."""
        fresh = self.output.with_name(self.output.name + ".tmp")
        shutil.rmtree(fresh, ignore_errors=True)
        file = method.save_student(fresh)
        method.save_fake(fresh)
        save_surrogate(method, fresh)
        result = RoundResult(
            version_dir=str(self.output),
            sha256=sha256_of(file),
            scores_before=state.scores_before,
            scores_after=state.best_scores,
            grid_before=str(self.folder.grid("before")),
            grid_after=str(self.folder.grid("after")),
            steps=state.step,
            best_step=state.best_step,
            alarm=state.alarm,
            silent_groups=state.silent_groups,
            damaged_groups=state.damaged_groups,
        )
        write_json(fresh / VERSION, {**asdict(result), **about, "rounds_state": asdict(state)})
        self._refuse_unless_owner(state)
        shutil.rmtree(self.output, ignore_errors=True)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        fresh.rename(self.output)
        sync_folder(self.output.parent)

    def result(self) -> RoundResult:
        """What the finished version's card says."""
        card = json.loads((self.published / VERSION).read_text())
        return RoundResult(**{name: card[name] for name in RoundResult.__dataclass_fields__})

    def _refuse_unless_owner(self, state: RoundState) -> None:
        if not self.may_write():
            raise RoundLost(f"{self.folder.path}: another worker has taken over at or after step {state.step}")
