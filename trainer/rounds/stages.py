"""The parts of a round, and how they are put together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from common.settings import MemorySettings, TDMR1Settings
from common.sizes import Size, largest, size_text
from trainer.backends import Managed, load_backend
from trainer.data import GroupStore, load_groups, read_groups, without_imported
from trainer.methods import method_class
from trainer.methods.base import Method
from trainer.oracles import Oracle, get_oracle
from trainer.prompts import input_size
from trainer.roles import SURROGATE
from trainer.rounds.folder import RoundWork
from trainer.rounds.judge import GRID_IMAGES, Judge
from trainer.rounds.origin import origin_of
from trainer.rounds.sources import LabelSource, OracleSource, Prompts, Source, score_by
from trainer.rounds.spec import RoundSpec, RoundState
from trainer.rounds.update import Update
from trainer.shares import Share
from trainer.trackers import chosen
from trainer.watch.looks import hold_out

log = logging.getLogger(__name__)


@dataclass
class Stages:
    """The parts of a round that is ready to run; whoever compares ways to train may put others in their place."""

    spec: RoundSpec
    settings: TDMR1Settings
    method: Method
    source: Source
    update: Update
    judge: Judge
    work: RoundWork
    state: RoundState
    oracle: Oracle | None  # that scores groups; None: labels are stored
    trackers: tuple[str, ...] = ()

    @property
    def main(self) -> bool:
        """Whether this process judges and writes: the main one, or all that act as one, each in a folder of its own."""
        return self.method.as_one or self.tells

    @property
    def tells(self) -> bool:
        """Whether this is the process that tells others of the round."""
        return self.method.accelerator.is_main_process

    def step(self, number: int) -> dict[str, float]:
        """Make update `number` (from 0), nothing else; returns what is worth logging."""
        with self.method.backend.sized(self.source.prompts.size(number)):
            begun = self.method.begin(self.source.sample) if number == 0 else {}
            return begun | self.update.step(self.source.scored(number))

    def about(self) -> dict:
        """What the finished version's card says of how it was made."""
        labels = {self.oracle.name: self.state.images_scored} if self.oracle else self.spec.labels
        return {"parent": self.spec.parent_dir, "settings": self.settings.to_json(), "labels": labels}


def _checked_sizes(backend: Managed, prompts: Prompts, store: GroupStore | None) -> set[Size]:
    """Every size that the round will meet. Raises ValueError on one that the model cannot make, and on latents of another
    model."""
    channels = backend.latent_shape[0]
    sizes = set(prompts.sizes)
    for shape in {s[1:] for s in store.shapes} if store is not None else ():
        if shape[0] != channels:
            raise ValueError(
                f"groups: their latents are {shape}, the model's {tuple(backend.latent_shape)}; they are of another model"
            )
        sizes.add(backend.size_of(shape))
    for size in sizes:
        with backend.sized(size):
            pass
    return {size or backend.own_size for size in sizes}


def _check_head(sizes: set[Size], prompts: Sequence[str]) -> None:
    """Raise ValueError on what a head cannot be trained on: images of several sizes, and input images."""
    if len(sizes) > 1:
        names = ", ".join(map(size_text, sorted(sizes)))
        raise ValueError(f"surrogate: a head is trained at one size, not at {names}; use likelihood")
    if any(input_size(prompt) for prompt in prompts):
        raise ValueError("surrogate: a head reads no passes with input images; use likelihood")


def prepare(
    spec: RoundSpec,
    *,
    device: str = "cpu",
    trackers: str | None = "none",
    may_write: Callable[[], bool] = lambda: True,
    make_method: Callable[..., Method] | None = None,
    oracles: Callable[[str], Oracle] | None = None,
    backend: Managed | None = None,
) -> Stages:
    """Load what the round needs and go on from its checkpoint, if there is one. `make_method` is given what a `Method` is
    made of (None: the one that the settings name); `oracles` makes the spec's from their names (None: `get_oracle`);
    `backend` is the model where it is there already. Raises what `run_round` does."""
    oracles = oracles or get_oracle
    settings, memory = TDMR1Settings.from_json(spec.settings), MemorySettings.from_json(spec.memory)
    spec, watching = spec.with_inputs(), chosen(trackers)
    groups = read_groups(Path(spec.groups_file)) if spec.groups_file else None
    make_method = make_method or method_class(settings)
    if groups is not None and not getattr(make_method, "takes_imported", True):
        groups = without_imported(groups)
    store = None if groups is None else load_groups(groups, Path(spec.inputs) if spec.inputs else None)
    oracle = oracles(spec.reward_oracle) if spec.reward_oracle else None
    accelerator = Accelerator(cpu=device == "cpu")
    processes = Share.of(accelerator).processes
    if settings.prompts_per_update % processes and not memory.shard:
        raise ValueError(
            f"prompts_per_update: {settings.prompts_per_update} groups cannot be dealt out evenly to {processes} "
            "processes; use a multiple of that"
        )
    own = str(accelerator.device) if processes > 1 else device
    if memory.shard and not accelerator.is_main_process:
        work = RoundWork.scratch(Path(spec.work_dir), Path(spec.output_dir))
    else:
        work = RoundWork(Path(spec.work_dir), Path(spec.output_dir), may_write)
    accelerator.wait_for_everyone()  # before anybody writes what others have yet to copy
    prompts = Prompts(spec.train_prompts, settings.seed, spec.pixels)
    if backend is None:
        most = largest([size for size in prompts.sizes if size])
        backend = load_backend(spec.model_dir, device=own, memory=memory, trained=settings, size=most)
    sizes = _checked_sizes(backend, prompts, store)
    if settings.explicit:
        _check_head(sizes, [*(line["prompt"] for line in spec.train_prompts), *(store.prompts if store else ())])
    with backend.sized(prompts.size(0)):
        method = make_method(backend, settings, parent=Path(spec.parent_dir), accelerator=accelerator)
    held_out = taught = None
    if store is not None and settings.alarm and settings.validation_images and SURROGATE in method.roles.names:
        held_out, taught = hold_out(len(store), torch.Generator().manual_seed(settings.seed))
    with backend.sized(prompts.size(0)):
        method.use_labels(store, taught, sampled=spec.reward_oracle is not None)
    state = work.resume(method, origin_of(spec, groups, 0 if held_out is None else len(held_out)))
    if spec.reward_oracle:
        source = OracleSource(method, settings, prompts, score_by(oracle, method), state, store)
    else:
        source = LabelSource(method, settings, prompts, store, taught)
        state.silent_groups = store.silent
    if store is not None:
        state.damaged_groups = len(store.damaged)
        for message in store.damaged:
            log.warning("%s", message)
    scored = spec.validation and spec.validation_oracle
    judge = Judge(
        spec,
        method,
        state,
        oracle=(lambda: oracles(spec.validation_oracle) if accelerator.is_main_process else None) if scored else None,
        by_score=oracle is not None,
        store=store,
        held_out=held_out,
        trained=None if held_out is None else taught[: len(held_out)],
    )
    if backend.memory.text_encoders != "keep":
        shown = judge.shown_prompts()[: max(settings.validation_images, GRID_IMAGES)]
        # The others then read what the main process has put in the folder; as one they embed at the same time.
        with nullcontext() if method.as_one else accelerator.main_process_first():
            backend.prepare([*source.prompts_to_come(state.step), *shown, ""])
    return Stages(spec, settings, method, source, Update(method, settings), judge, work, state, oracle, watching)
