"""What a round is told, what it tells meanwhile, and what it ends with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from common.settings import MemorySettings, TDMR1Settings
from common.sizes import Size, parse_size, size_in
from trainer.prompts import with_inputs


class RoundLost(Exception):
    """Somebody else owns the round now; nothing was written after that."""


class RoundCancelled(Exception):
    """The caller asked to stop; the checkpoint in `work_dir` can be resumed."""


@dataclass(frozen=True)
class RoundSpec:
    """What a round needs, as JSON values and paths. It learns from the labels of `groups_file` or from what `reward_oracle`
    says of fresh images; an oracle's round with a head may be given labels too, which it learns from first and looks at
    again. `train_prompts` and `validation` are GenEval lines; `labels` counts the
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
    sizes: list[str] = field(default_factory=list)  # as 1152x896, of prompts that name none; empty: the model's own
    inputs: str | None = None  # folder of the input images that lines name as `input_image`
    labels: dict[str, int] = field(default_factory=dict)
    memory: dict = field(default_factory=dict)  # MemorySettings of the machine that runs it

    def __post_init__(self) -> None:
        settings = TDMR1Settings.from_json(self.settings)
        both = self.groups_file is not None and self.reward_oracle is not None
        if (self.groups_file is None and self.reward_oracle is None) or (both and not settings.explicit):
            raise ValueError(
                "groups_file, reward_oracle: give one of the two, labels or an oracle; both only with surrogate head"
            )
        if not self.train_prompts:
            raise ValueError("train_prompts: there are none; the student needs prompts to follow the reward on")
        settings.check_source(labels=self.reward_oracle is None)
        for text in self.sizes:
            parse_size(text)
        for line in (*self.train_prompts, *self.validation):
            size_in(line)
        MemorySettings.from_json(self.memory)

    def with_inputs(self) -> RoundSpec:
        """The same with the input images beside the prompts that change them. Raises ValueError on one that is gone."""
        folder = Path(self.inputs) if self.inputs else None
        lines = {name: with_inputs(getattr(self, name), folder) for name in ("train_prompts", "validation")}
        return replace(self, **lines)

    @property
    def pixels(self) -> tuple[Size, ...]:
        """`sizes` as numbers."""
        return tuple(parse_size(text) for text in self.sizes)


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
    sentence; empty if it did not. Groups are silent when they are left out because their images were all found alike, and
    damaged when their trajectory cannot be read."""

    version_dir: str
    sha256: str
    scores_before: dict[str, float]
    scores_after: dict[str, float]
    grid_before: str
    grid_after: str
    steps: int
    best_step: int
    alarm: str
    silent_groups: int
    damaged_groups: int


@dataclass
class RoundState:
    """What a resumed round must know beside weights: mirrored in the checkpoint's JSON."""

    step: int = 0
    surrogate_count: int = 0
    replayed: list = field(default_factory=list)  # prompts, see `Method.replayed`
    scores_before: dict = field(default_factory=dict)
    peak_rewards: list = field(default_factory=list)  # of the validation with the highest mean so far
    best_step: int = 0
    best_scores: dict = field(default_factory=dict)
    parent_rewards: list = field(default_factory=list)  # of the validation before the first update
    parent_verdicts: list = field(default_factory=list)  # the same with what was liked, see `comparison.noted`
    best_verdicts: list = field(default_factory=list)  # of the version that is the best so far
    best_opinions: list = field(default_factory=list)  # the surrogate's of its first images over the parent's
    looks: list = field(default_factory=list)  # `alarm.Look` as JSON, one a validation
    alarm: str = ""
    images_scored: int = 0
    silent_groups: int = 0  # without signal: sampled so far, or stored
    damaged_groups: int = 0  # stored, with a trajectory that cannot be read
    seconds: float = 0.0
    origin: dict = field(default_factory=dict)  # see `origin.origin_of`
    validation: str = ""  # see `origin.validation_of`
