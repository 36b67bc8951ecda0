"""One training round: a version and labelled groups (or an oracle) in, a better version out.

Every update: groups with rewards → advantages → surrogate by group preference; then the student follows on fresh prompts.
With stored labels the groups are drawn from the labelled ones; with an oracle they are sampled from the current student and
scored in the update.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from common.files import append_line, sha256_of, sync_folder, write_image, write_json
from common.settings import MemorySettings, TDMR1Settings
from trainer.advantages import group_advantages, has_signal
from trainer.backends import load_backend
from trainer.checkpoint import load_checkpoint, save_checkpoint
from trainer.data import load_groups, read_groups
from trainer.demo.scenes.prompts import ScenePrompt
from trainer.evaluate import Evaluation, clearly_worse, evaluate, image_grid, sample_images
from trainer.methods.tdm_r1 import TDMR1, Groups, rate_factor
from trainer.oracles import Oracle, get_oracle
from trainer.roles import STUDENT_EMA
from trainer.sampler import related_noise
from trainer.shares import Part, Share, gather_rows
from trainer.trackers import Trackers, chosen
from trainer.watch.alarm import Look, parting, suspicious
from trainer.watch.looks import Watch, hold_out

GRID_IMAGES = 16
SAVE_SECONDS = 60


class RoundLost(Exception):
    """Somebody else owns the round now; nothing was written after that."""


class RoundCancelled(Exception):
    """The caller asked to stop; the checkpoint in `work_dir` can be resumed."""


@dataclass(frozen=True)
class RoundSpec:
    """What a round needs, as JSON values and paths. `train_prompts` and `validation` are GenEval lines; `labels` counts the
    stored labels by source ("people", or an oracle's name), for the version's card."""

    model_dir: str
    parent_dir: str
    work_dir: str
    output_dir: str
    train_prompts: list[dict]
    validation: list[dict] = field(default_factory=list)
    settings: dict = field(default_factory=dict)
    groups_file: str | None = None
    reward_oracle: str | None = None
    validation_oracle: str | None = None
    labels: dict[str, int] = field(default_factory=dict)
    memory: dict = field(default_factory=dict)  # MemorySettings of the machine that runs it

    def __post_init__(self) -> None:
        if (self.groups_file is None) == (self.reward_oracle is None):
            raise ValueError("groups_file, reward_oracle: give one of the two, labels or an oracle")
        if not self.train_prompts:
            raise ValueError("train_prompts: there are none; the student needs prompts to follow the reward on")
        TDMR1Settings.from_json(self.settings)
        MemorySettings.from_json(self.memory)


@dataclass(frozen=True)
class Progress:
    """Where a round is: `seconds_left` is an estimate, `metrics` the latest of each name, `alarm` why it stops early."""

    phase: str
    step: int
    total: int
    seconds_left: float
    metrics: dict[str, float]
    alarm: str = ""


@dataclass(frozen=True)
class RoundResult:
    """A finished round; scores are empty without validation prompts or oracle. `alarm` says why it stopped early, in a
    sentence; empty if it did not."""

    version_dir: str
    sha256: str
    scores_before: dict[str, float]
    scores_after: dict[str, float]
    grid_before: str
    grid_after: str
    steps: int
    best_step: int
    alarm: str


@dataclass
class _State:
    """What a resumed round must know beside weights: mirrored in the checkpoint's JSON."""

    step: int = 0
    surrogate_count: int = 0
    scores_before: dict = field(default_factory=dict)
    peak_rewards: list = field(default_factory=list)  # of the validation with the highest mean so far
    best_step: int = 0
    best_scores: dict = field(default_factory=dict)
    parent_rewards: list = field(default_factory=list)  # of the validation before the first update
    looks: list = field(default_factory=list)  # `alarm.Look` as JSON, one a validation
    alarm: str = ""
    images_scored: int = 0
    silent_groups: int = 0
    seconds: float = 0.0


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
    """Run or resume the round; `trackers` is for `trackers.chosen`. `may_write` is asked right before a checkpoint or the
    version replaces what is there, since a worker that stood still for long may have been replaced meanwhile;
    `on_checkpoint(step)` is called when `work_dir` holds one of that many updates, whole, and may copy the folder.

    Raises RoundLost when it says no, RoundCancelled at a step boundary once `should_stop()` is true, and ValueError, naming
    the field, when the labels cannot teach anything.
    """
    return _Round(spec, on_progress, should_stop, device, save_seconds, trackers, may_write, on_checkpoint).run()


class _Round:
    trainer_class = TDMR1  # the benches compare others

    def __init__(
        self,
        spec: RoundSpec,
        on_progress,
        should_stop,
        device: str,
        save_seconds: float,
        trackers: str | None = "none",
        may_write: Callable[[], bool] = lambda: True,
        on_checkpoint: Callable[[int], None] = lambda step: None,
    ):
        self.spec, self.on_progress, self.should_stop, self.save_seconds = spec, on_progress, should_stop, save_seconds
        self.may_write, self.on_checkpoint = may_write, on_checkpoint
        self.settings = TDMR1Settings.from_json(spec.settings)
        watching = chosen(trackers)
        self.work, self.output = Path(spec.work_dir), Path(spec.output_dir)
        self.work.mkdir(parents=True, exist_ok=True)
        self.store = load_groups(read_groups(Path(spec.groups_file))) if spec.groups_file else None
        self.oracle: Oracle | None = get_oracle(spec.reward_oracle) if spec.reward_oracle else None
        accelerator = Accelerator(cpu=device == "cpu")
        self.accelerator, self.share, self.main = accelerator, Share.of(accelerator), accelerator.is_main_process
        if self.settings.prompts_per_update % self.share.processes:
            raise ValueError(
                f"prompts_per_update: {self.settings.prompts_per_update} groups cannot be dealt out evenly to "
                f"{self.share.processes} processes; use a multiple of that"
            )
        own = str(accelerator.device) if self.share.processes > 1 else device
        memory = MemorySettings.from_json(spec.memory)
        backend = load_backend(spec.model_dir, device=own, memory=memory)
        self.trainer = self.trainer_class(backend, self.settings, parent=Path(spec.parent_dir), accelerator=accelerator)
        by_tag: dict[str, list[dict]] = {}
        for line in spec.train_prompts:
            by_tag.setdefault(line.get("tag", ""), []).append(line)
        self.pools = list(by_tag.values())
        self.state = self._resume()
        self.watch: Watch | None = None
        self.taught = torch.arange(len(self.store)) if self.store else None  # groups that the surrogate trains on
        self.held_out: torch.Tensor | None = None
        if self.store and self.settings.alarm and self.settings.validation_images:
            generator = torch.Generator().manual_seed(self.settings.seed)
            self.held_out, self.taught = hold_out(len(self.store), generator)
        if memory.text_encoders != "keep":
            with accelerator.main_process_first():  # the others then read what it has put in the folder
                backend.prepare(self._every_prompt())
        names = watching if self.main else ()
        self.trackers = Trackers(self.work, names, settings=self.settings.to_json(), step=self.state.step)

    def run(self) -> RoundResult:
        try:
            return self._run()
        finally:
            self.trackers.close()

    def _run(self) -> RoundResult:
        if self.state.step == 0 and not self.state.scores_before:
            self._report("validate", {})
            before = self._validate()
            if self.main:
                self._save_grid("before")
            self.state.scores_before = before.scores if before else {}
            self.state.parent_rewards = [v.score for v in before.verdicts] if before else []
            self.trackers.log({f"validation_{k}": v for k, v in self.state.scores_before.items()}, 0)
            self._keep_unless_worse(before)
            self._save()
            self._start_watch(before)
        elif not self.state.alarm:
            self._start_watch(self._parents_images())
        saved = time.monotonic()
        while self.state.step < self.settings.updates and not self.state.alarm:
            if self._told_to_stop():
                self._save()
                raise RoundCancelled(f"stopped after {self.state.step} of {self.settings.updates} updates")
            started = time.monotonic()
            metrics = self._update(self.state.step)
            self.state.step += 1
            self.state.seconds += time.monotonic() - started
            self.state.surrogate_count = self.trainer.surrogate_count
            if self._is_last() or (
                self.state.step % self.settings.validate_every == 0 and self.state.step > self.settings.updates_alone
            ):
                evaluation = self._validate()
                metrics |= self._look(evaluation)
                self._keep_unless_worse(evaluation)
                self._sound_alarm()
                metrics |= {f"validation_{k}": v for k, v in (evaluation.scores if evaluation else {}).items()}
                if evaluation and evaluation.images:
                    shown = image_grid(evaluation.images[:GRID_IMAGES], 4)
                    self.trackers.image("validation", shown, self.state.step)
            self._log(metrics)
            self._report("train", metrics)
            if time.monotonic() - saved > self.save_seconds or self._is_last() or self.state.alarm:
                self._save()
                saved = time.monotonic()
        if self.main:
            self._finish()
        self.accelerator.wait_for_everyone()
        card = json.loads((self.output / "version.json").read_text())
        return RoundResult(**{name: card[name] for name in RoundResult.__dataclass_fields__})

    def _told_to_stop(self) -> bool:
        """The main process decides for all, so that none waits for another that has left."""
        answer = [self.main and self.should_stop()]
        return broadcast_object_list(answer)[0]

    def _update(self, step: int) -> dict[str, float]:
        """Sample, fake, surrogate, student; the fake is trained inside the student's update."""
        s, trainer = self.settings, self.trainer
        rng = self._random(step)
        generator = torch.Generator().manual_seed(s.seed * 1_000_003 + step)
        alone = self.settings.updates_alone
        start, end = (0, alone) if step < alone else (alone, s.updates)
        trainer.set_rate_factor(rate_factor(step - start, end - start, s.cool_down))
        metrics: dict[str, float] = {}
        sampled = None
        if self._surrogate_learns(step):
            if self.store is None:
                metrics, *sampled = self._on_policy(rng, generator)
            else:
                metrics = self._from_labels(generator)
        if step < alone:
            return metrics
        trajectory, prompts, part = sampled or self._unscored(rng, generator)
        conditioning = trainer.backend.encode(prompts)
        orders = part.pick(trainer.draw_orders(part.total, generator))
        for k in range(min(s.steps_trained, trainer.steps)):
            j = orders[:, k].to(trainer.backend.device)
            metrics |= trainer.student_update(trajectory, conditioning, j, generator, part)
        return metrics

    def _surrogate_learns(self, step: int) -> bool:
        alone = self.settings.updates_alone
        return step < alone or not alone

    def _unscored(self, rng: random.Random, generator) -> tuple[torch.Tensor, list[str], Part]:
        """What the student trains on when nothing of it is scored: trajectories, their prompts and whose they are."""
        part = self.share.part(self.settings.student_batch)
        everyone = [row["prompt"] for row in self._prompts(rng, self.settings.student_batch)]
        prompts = [everyone[i] for i in part.index.tolist()]
        noise = torch.randn((part.total, *self.trainer.backend.latent_shape), generator=generator)
        return self._rollout(prompts, part.pick(noise)), prompts, part

    def _on_policy(self, rng: random.Random, generator) -> tuple[dict[str, float], torch.Tensor, list[str], Part]:
        """Sample groups, score them and train the surrogate; returns what the student then trains on."""
        s, trainer = self.settings, self.trainer
        everyone = self._prompts(rng, s.prompts_per_update)
        mine = self.share.part(len(everyone))
        rows = [everyone[i] for i in mine.index.tolist()]
        lines = [row for row in rows for _ in range(s.group_size)]
        prompts = [line["prompt"] for line in lines]
        owner = torch.arange(len(everyone)).repeat_interleave(s.group_size)  # of each image of the whole update
        shape = trainer.backend.latent_shape
        noise = related_noise(len(everyone), s.group_size, shape, s.noise_spread, generator)
        trajectory = self._rollout(prompts, self.share.among(owner).pick(noise))
        scores = self._score(trajectory[:, -1], prompts, lines)
        rewards = torch.tensor(scores, device=trainer.backend.device).reshape(len(rows), s.group_size)
        rewards = gather_rows(self.accelerator, rewards).cpu()
        self.state.images_scored += rewards.numel()
        advantages = group_advantages(rewards, torch.ones_like(rewards, dtype=torch.bool))
        loud = has_signal(rewards)
        self.state.silent_groups += int((~loud).sum())
        metrics = {"reward": rewards.mean().item(), "signal": loud.float().mean().item()}
        if loud.any():
            device = trainer.backend.device
            kept = trajectory.unflatten(0, (len(rows), s.group_size))[mine.pick(loud).to(device)]
            names = [row["prompt"] for row, is_loud in zip(rows, mine.pick(loud).tolist(), strict=True) if is_loud]
            part = self.share.among(loud.nonzero().flatten())
            advantages = part.pick(advantages[loud]).to(device)
            groups = Groups(kept, trainer.backend.encode(names), advantages, part)
            for _ in range(s.surrogate_updates_for(0)):
                metrics |= trainer.surrogate_update(groups, generator)
        chosen = torch.randperm(len(owner), generator=generator)[: s.student_batch]
        part = self.share.among(owner[chosen])
        # Positions of the chosen images among this process' own ones.
        local = torch.searchsorted(self.share.among(owner).index, part.pick(chosen))
        return metrics, trajectory[local.to(trajectory.device)], [prompts[i] for i in local.tolist()], part

    def _score(self, latents: torch.Tensor, prompts: list[str], lines: list[dict]) -> list[float]:
        images = self.trainer.backend.decode(latents, bf16=self.trainer.bf16)
        return [v.score for v in self.oracle.score(images, prompts, lines)]

    def _from_labels(self, generator) -> dict[str, float]:
        s, trainer = self.settings, self.trainer
        metrics: dict[str, float] = {}
        for _ in range(s.surrogate_updates_for(len(self.taught))):
            size = min(s.prompts_per_update, len(self.taught))
            part = self.share.part(size)
            drawn = self.taught[torch.randperm(len(self.taught), generator=generator)[:size]]
            batch = self.store.take(part.pick(drawn))
            device = trainer.backend.device
            conditioning = trainer.backend.encode(batch.prompts)
            groups = Groups(batch.trajectory.to(device), conditioning, batch.advantages.to(device), part)
            metrics = trainer.surrogate_update(groups, generator)
        return metrics

    def _random(self, step: int) -> random.Random:
        """What an update draws its prompts with."""
        return random.Random(f"round-{self.settings.seed}-{step}")

    def _every_prompt(self) -> list[str]:
        """All that the updates to come will draw, from the same random numbers, and what is shown and validated."""
        s, alone = self.settings, self.settings.updates_alone
        drawn = []
        for step in range(self.state.step, s.updates):
            scored = self.store is None and self._surrogate_learns(step)
            size = s.prompts_per_update if scored else s.student_batch if step >= alone else 0
            drawn += [line["prompt"] for line in self._prompts(self._random(step), size)]
        shown = [line["prompt"] for line in self._shown_prompts()[: max(s.validation_images, GRID_IMAGES)]]
        return [*drawn, *shown, *(self.store.prompts if self.store else ()), ""]

    def _prompts(self, rng: random.Random, count: int) -> list[dict]:
        """Every tag as often as any other: a tag with many prompts is not worth more than one with few."""
        pools = rng.sample(self.pools, len(self.pools))
        return [rng.choice(pools[i % len(pools)]) for i in range(count)]

    def _rollout(self, prompts: list[str], noise: torch.Tensor) -> torch.Tensor:
        return self.trainer.sample(self.trainer.backend.encode(prompts), noise)

    def _shown_prompts(self) -> list[dict]:
        """The validation prompts in a fixed mixed order, so that the first few are of every kind."""
        lines = list(self.spec.validation or self.spec.train_prompts)
        random.Random(0).shuffle(lines)
        return lines

    def _validate(self) -> Evaluation | None:
        """Scores need prompts and an oracle for them; the alarm looks at images of any prompts."""
        scored = self.spec.validation and self.spec.validation_oracle
        if not (self.main and self.settings.validation_images and (scored or self.settings.alarm)):
            return None
        return self._evaluate(get_oracle(self.spec.validation_oracle) if scored else None)

    def _evaluate(self, oracle: Oracle | None) -> Evaluation:
        rows = [ScenePrompt.of_line(line, "validation") for line in self._validation_lines()]
        with self.trainer.roles.merged(STUDENT_EMA):
            return evaluate(self.trainer.backend, rows, oracle, steps=self.trainer.steps, bf16=self.trainer.bf16)

    def _validation_lines(self) -> list[dict]:
        lines = self._shown_prompts()
        return [lines[i % len(lines)] for i in range(self.settings.validation_images)]

    def _parents_images(self) -> Evaluation | None:
        """Those that were validated before the first update, made again from the same noise."""
        if not (self.main and self.settings.alarm and self.settings.validation_images):
            return None
        roles = self.trainer.roles
        now = roles.state_dict(STUDENT_EMA)
        roles.load_state_dict(STUDENT_EMA, self.trainer.backend.load_lora(Path(self.spec.parent_dir))[0])
        try:
            return self._evaluate(None)
        finally:
            roles.load_state_dict(STUDENT_EMA, now)

    def _start_watch(self, parent: Evaluation | None) -> None:
        if parent is None or not self.settings.alarm:
            return
        self.watch = Watch(
            self.trainer,
            parent,
            [line["prompt"] for line in self._validation_lines()],
            scores=self.state.parent_rewards,
            store=self.store,
            held_out=self.held_out,
            trained=None if self.held_out is None else self.taught[: len(self.held_out)],
        )

    def _look(self, evaluation: Evaluation | None) -> dict[str, float]:
        """Compare with the parent; what was seen is remembered, and returned as metrics."""
        if self.watch is None:
            return {}
        look = self.watch.look(evaluation, self.state.step)
        self.state.looks.append(look.to_json())
        return look.metrics()

    def _looks(self) -> list[Look]:
        return [Look.from_json(look) for look in self.state.looks]

    def _is_last(self) -> bool:
        return self.state.step == self.settings.updates

    def _sound_alarm(self) -> None:
        """End the round if opinions have parted; the main process has looked and tells the others."""
        reason = parting(self._looks(), last=self._is_last())
        if reason:
            reason = (
                f"Stopped at update {self.state.step} of {self.settings.updates}: {reason}. "
                f"Kept: {f'update {self.state.best_step}' if self.state.best_step else 'the parent, unchanged'}."
            )
        self.state.alarm = broadcast_object_list([reason])[0]

    def _keep_unless_worse(self, evaluation: Evaluation | None) -> None:
        """With a reward oracle the newest version is kept unless it scores clearly worse than the best one so far: the
        cooled-down end of a round is better than its middle, and the highest of several noisy scores is mostly luck.
        Labels may ask for something that no oracle measures, so there the newest wins and the scores only inform. Neither
        keeps what the alarm is suspicious of."""
        if not self.main or suspicious(self._looks(), last=self._is_last()):
            return
        if evaluation is not None and evaluation.verdicts and self.oracle is not None:
            rewards, peak = [v.score for v in evaluation.verdicts], self.state.peak_rewards
            if peak and clearly_worse(rewards, peak):
                return
            if not peak or sum(rewards) > sum(peak):
                self.state.peak_rewards = rewards
        self._refuse_unless_owner()
        self.state.best_step = self.state.step
        self.state.best_scores = evaluation.scores if evaluation else {}
        self.trainer.save_student(self.work / "best")

    def _save_grid(self, name: str) -> Path:
        prompts = [line["prompt"] for line in self._shown_prompts()[:GRID_IMAGES]]
        self.trainer.roles.use(STUDENT_EMA)
        images = sample_images(self.trainer.backend, prompts, steps=self.trainer.steps)
        path = self.work / "grid" / f"{name}.webp"
        sheet = image_grid(images, 4)
        write_image(path, sheet, "WEBP", lossless=True)
        self.trackers.image(name, sheet, self.state.step)
        return path

    def _finish(self) -> None:
        state, _, _ = self.trainer.backend.load_lora(self.work / "best")
        self.trainer.roles.load_state_dict(STUDENT_EMA, state)
        after = self._save_grid("after")
        fresh = self.output.with_name(self.output.name + ".tmp")
        shutil.rmtree(fresh, ignore_errors=True)
        file = self.trainer.save_student(fresh)
        result = RoundResult(
            version_dir=str(self.output),
            sha256=sha256_of(file),
            scores_before=self.state.scores_before,
            scores_after=self.state.best_scores,
            grid_before=str(self.work / "grid" / "before.webp"),
            grid_after=str(after),
            steps=self.state.step,
            best_step=self.state.best_step,
            alarm=self.state.alarm,
        )
        labels = self.spec.labels
        if self.oracle is not None:
            labels = {self.oracle.name: self.state.images_scored}
        card = {
            "parent": self.spec.parent_dir,
            "settings": self.settings.to_json(),
            "labels": labels,
            "rounds_state": asdict(self.state),
        }
        write_json(fresh / "version.json", {**asdict(result), **card})
        self._refuse_unless_owner()
        shutil.rmtree(self.output, ignore_errors=True)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        fresh.rename(self.output)
        sync_folder(self.output.parent)

    def _refuse_unless_owner(self) -> None:
        if not self.may_write():
            raise RoundLost(f"{self.work}: another worker has taken over at or after step {self.state.step}")

    def _report(self, phase: str, metrics: dict[str, float]) -> None:
        if not self.main:
            return
        done, total = self.state.step, self.settings.updates
        left = self.state.seconds / done * (total - done) if done else 0.0
        left = 0.0 if self.state.alarm else left
        self.on_progress(Progress(phase, done, total, left, metrics, self.state.alarm))

    def _log(self, metrics: dict[str, float]) -> None:
        if not self.main:
            return
        line = {"step": self.state.step, "seconds": round(self.state.seconds, 1), **metrics}
        append_line(self.work / "log.jsonl", line)
        self.trackers.log(metrics, self.state.step)

    def _save(self) -> None:
        if not self.main:
            return
        self._refuse_unless_owner()
        save_checkpoint(
            self.work / "checkpoint",
            modules=self.trainer.parts(),
            optimizers=self.trainer.optimizers,
            extra={k: v for k, v in asdict(self.state).items() if k != "step"},
            step=self.state.step,
            before_replacing=self._refuse_unless_owner,
        )
        self.on_checkpoint(self.state.step)

    def _resume(self) -> _State:
        values = load_checkpoint(
            self.work / "checkpoint", modules=self.trainer.parts(), optimizers=self.trainer.optimizers
        )
        if values is None:
            return _State()
        state = _State(**{k: v for k, v in values.items() if k in _State.__dataclass_fields__})
        self.trainer.surrogate_count = state.surrogate_count
        return state
