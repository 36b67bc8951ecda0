"""One training round: a version and labelled groups (or an oracle) in, a better version out. Read it from top to bottom.

Every update: groups with rewards → advantages → the method learns from them → it follows on fresh prompts. With stored
labels the groups are drawn from the labelled ones; with an oracle they are sampled from the current student and scored.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from accelerate.utils import broadcast_object_list

from trainer.evaluate import Evaluation, cell_size, image_grid
from trainer.oracles.base import OracleError
from trainer.roles import STUDENT_EMA
from trainer.rounds.comparison import COLUMNS
from trainer.rounds.judge import GRID_IMAGES
from trainer.rounds.spec import Progress, RoundCancelled, RoundResult, RoundSpec
from trainer.rounds.stages import Stages, prepare
from trainer.trackers import Trackers

SAVE_SECONDS = 60


def run_round(
    spec: RoundSpec,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    may_write: Callable[[], bool] = lambda: True,
    device: str = "cpu",
    save_seconds: float = SAVE_SECONDS,
    trackers: str | None = None,
    on_checkpoint: Callable[[int], None] = lambda step: None,
) -> RoundResult:
    """Run or resume the round; `trackers` is for `trackers.chosen`, the rest for `run`. `may_write` is asked right before a
    checkpoint or the version replaces what is there, since a worker that stood still for long may have been replaced
    meanwhile.

    Raises RoundLost when it says no, RoundCancelled at a step boundary once `should_stop()` is true, OracleError, with a
    checkpoint saved, when an oracle fails for good, and ValueError, naming the field, when the labels cannot teach.
    """
    return run(
        prepare(spec, device=device, trackers=trackers, may_write=may_write),
        on_progress=on_progress,
        should_stop=should_stop,
        save_seconds=save_seconds,
        on_checkpoint=on_checkpoint,
    )


def run(
    stages: Stages,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    save_seconds: float = SAVE_SECONDS,
    on_checkpoint: Callable[[int], None] = lambda step: None,
) -> RoundResult:
    """Make the updates that are left, and the version. `on_checkpoint(step)` is called when the work folder holds a
    checkpoint of that many updates, whole, and may copy the folder. Raises what `run_round` does."""
    method, judge, work, state, settings = stages.method, stages.judge, stages.work, stages.state, stages.settings
    names = stages.trackers if stages.tells else ()
    trackers = Trackers(work.folder.path, names, settings=settings.to_json(), step=state.step)

    def report(phase: str, metrics: dict[str, float]) -> None:
        if stages.tells:
            left = state.seconds / state.step * (settings.updates - state.step) if state.step else 0.0
            left = 0.0 if state.alarm else left
            on_progress(Progress(phase, state.step, settings.updates, left, metrics, state.alarm))

    def save() -> None:
        if stages.main:
            work.save(method, state)
            if stages.tells:
                on_checkpoint(state.step)

    def keep_unless_worse(evaluation: Evaluation | None) -> None:
        if judge.keeps(evaluation):
            work.keep(method, state)

    def write_grid(which: str) -> tuple[int, int]:
        images = judge.grid()
        sheet = image_grid(images, COLUMNS)
        work.write_grid(which, sheet)
        trackers.image(which, sheet, state.step)
        return cell_size(images)

    def start() -> None:
        """What the parent is like, unless a resumed round knows it."""
        report("validate", {})
        before = judge.first()
        if stages.main:
            write_grid("before")
        trackers.log({f"validation_{k}": v for k, v in state.scores_before.items()}, 0)
        keep_unless_worse(before)
        save()
        judge.start_watch(before)

    def look() -> dict[str, float]:
        """Validate what the updates came to, keep it or not, and sound the alarm where it is due."""
        evaluation = judge.validate()
        metrics = judge.look(evaluation)
        keep_unless_worse(evaluation)
        judge.sound_alarm()
        if evaluation and evaluation.images:
            trackers.image("validation", image_grid(evaluation.images[:GRID_IMAGES], COLUMNS), state.step)
        return metrics | {f"validation_{k}": v for k, v in (evaluation.scores if evaluation else {}).items()}

    def finish() -> None:
        if method.as_one:
            method.accelerator.wait_for_everyone()  # until the main process has written what all go on from
        best = method.backend.load_lora(work.main.best)
        method.roles.load_state_dict(STUDENT_EMA, best.state)
        work.write_comparison(judge.comparison(write_grid("after")))
        if images := judge.taught():
            work.write_grid("surrogate", image_grid(images, COLUMNS))
        work.publish(method, state, stages.about())

    try:
        if state.step == 0 and not state.scores_before:
            start()
        elif not state.alarm:
            judge.start_watch_again()
        saved = time.monotonic()
        while state.step < settings.updates and not state.alarm:
            if _told_to_stop(stages, should_stop):
                save()
                raise RoundCancelled(f"stopped after {state.step} of {settings.updates} updates")
            started = time.monotonic()
            metrics = stages.step(state.step)
            state.step += 1
            state.seconds += time.monotonic() - started
            if judge.is_due():
                metrics |= look()
            if stages.main:
                work.log(state, metrics)
                trackers.log(metrics, state.step)
            report("train", metrics)
            if time.monotonic() - saved > save_seconds or judge.is_last() or state.alarm:
                save()
                saved = time.monotonic()
        if stages.main:
            finish()
        method.accelerator.wait_for_everyone()
        return work.result()
    except OracleError:  # its server may come back: nothing that was learned waits for the next regular checkpoint
        save()
        raise
    finally:
        trackers.close()


def _told_to_stop(stages: Stages, should_stop: Callable[[], bool]) -> bool:
    """The main process decides for all, so that none waits for another that has left."""
    return broadcast_object_list([stages.main and should_stop()])[0]
