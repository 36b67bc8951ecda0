"""Settings as frozen dataclasses: one definition for the web form, the command line and the checkpoint.

Standard library only, so that the web app can import it without torch. Defaults are the demo model's unless the field's
help says otherwise; `paper()` gives the published ones.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Self, get_type_hints

MOST_UPDATES, MOST_IMAGES, MOST_SEED = 100_000, 4096, 2**31 - 1
LOOKS = 8  # of a round at each labelled group, where `surrogate_updates` is 0
MOST_SURROGATE_UPDATES = 3  # that it then comes to
# Of the demo's project: what a visitor's labels teach in three minutes (docs/results/task-vector.md).
DEMO_ROUND = {"method": "task_vector", "surrogate_lr": 1e-3}
WITH_SURROGATE = ("tdm_r1", "task_vector")  # methods whose surrogate may learn from own images too


class SettingsError(ValueError):
    """A setting that cannot be used; the message names the field and what it allows."""


def _short(value: Any) -> str:
    """A value as a message shows it; Python writes no number of thousands of digits."""
    if type(value) is int and abs(value) >= 10**20:
        return f"a number of {int(value.bit_length() * 0.30103) + 1} digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def option(default: Any, help: str, *, low: float | None = None, high: float | None = None, choices: tuple = ()) -> Any:
    """A dataclass field with its explanation and allowed range (both ends included), which every number has. The
    explanation's first sentence names the field in words; the web form shows it as the label (`label_and_help`)."""
    if isinstance(default, int | float) and not isinstance(default, bool) and None in (low, high):
        raise TypeError(f"a number needs both bounds: {help}")
    return field(default=default, metadata={"help": help, "min": low, "max": high, "choices": choices})


def label_and_help(explanation: str) -> tuple[str, str]:
    """A field's explanation, or its translation, as the name in its first sentence and what follows."""
    label, _, rest = explanation.partition(". ")
    return label.removesuffix("."), rest


@dataclass(frozen=True)
class Settings:
    """Base of all settings: checked on construction, and to and from JSON."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for f in dataclasses.fields(self):
            value, kind = getattr(self, f.name), hints[f.name]
            low, high, choices = (f.metadata.get(k) for k in ("min", "max", "choices"))
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise SettingsError(f"{f.name}: expected {kind.__name__}, got {_short(value)}")
            if choices and value not in choices:
                raise SettingsError(f"{f.name}: {_short(value)} is not one of {', '.join(map(str, choices))}")
            if low is not None and not low <= value <= high:  # also NaN
                raise SettingsError(f"{f.name}: {_short(value)} is out of range; use {low} to {high}")
            if kind is float:
                object.__setattr__(self, f.name, float(value))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The settings of a JSON object; missing fields take their defaults. Raises SettingsError on unknown fields."""
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise SettingsError(f"{unknown[0]}: no such setting; known ones are {', '.join(sorted(known))}")
        return cls(**values)


@dataclass(frozen=True)
class SampleSettings(Settings):
    """The few-step sampler: K plain Euler steps on the model's own grid, no guidance."""

    steps: int = option(4, "Denoising steps of the student, K in the paper.", low=1, high=50)


@dataclass(frozen=True)
class MemorySettings(Settings):
    """What fits a model into a machine's memory. They belong to the machine, not to a project: a round that starts under
    some may go on under others, and learns the same up to rounding. All are off by default, as suits the demo model."""

    half: bool = option(
        False,
        "Hold the frozen transformer and the text encoders in bf16, half of fp32. Adapters, optimizers and VAE stay fp32.",
    )
    auto: bool = option(
        False,
        "Turn on beside these options what makes the work fit into what the GPU has free when it begins.",
    )
    weights: str = option(
        "none",
        "Code the frozen linear layers of transformer and text encoders: int8 and fp8 take a byte a weight, nf4 a little "
        "more than half. Layers that are sensitive to it (in and out projections, modulation, time) stay as they are.",
        choices=("none", "int8", "fp8", "nf4"),
    )
    text_encoders: str = option(
        "keep",
        "Where text encoders stay between uses. keep: in the device's memory; offload: in the machine's "
        "memory; free: nowhere, so that they are read again for a new prompt. With offload and free a round "
        "embeds all its prompts first, and the transformer leaves the device's memory meanwhile.",
        choices=("keep", "offload", "free"),
    )
    embeddings: str = option(
        "", "Folder that keeps text embeddings by prompt and text encoders, for all rounds; none by default."
    )
    checkpointing: bool = option(
        False, "Keep only each block's input for the backward pass and compute the rest again: less memory, more time."
    )
    streamed: int = option(
        0,
        "Blocks of the transformer that are on the device at once; 0: all. The others wait in the machine's memory, and "
        "the next one comes while one computes: two are enough. Includes checkpointing.",
        low=0,
        high=1000,
    )
    shard: bool = option(
        False,
        "Each of several processes holds a share of the frozen blocks of transformer and text encoders, and passes its "
        "share of every batch through them. Not with weights as codes, streamed or compiled blocks.",
    )
    micro_batch: int = option(
        0,
        "Images that pass through the transformer at once; 0: all. The result stays the same, but each pass "
        "with gradient then needs one more pass without.",
        low=0,
        high=MOST_IMAGES,
    )
    vae_batch: int = option(16, "Images the VAE decodes at once.", low=1, high=MOST_IMAGES)
    vae_tiling: bool = option(
        False,
        "Decode each image in tiles of half its size, blended at their seams: a quarter of the memory, other colours.",
    )
    vae_offload: bool = option(False, "Keep the VAE in the machine's memory between uses.")
    compile: bool = option(
        False, "Compile the transformer's repeated blocks (torch.compile): minutes at first, then faster."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        others = {"weights": self.weights != "none", "streamed": self.streamed > 0, "compile": self.compile}
        if self.shard and any(others.values()):
            name = next(name for name, on in others.items() if on)
            raise SettingsError(f"shard: it cannot be combined with {name}; turn one of the two off")


@dataclass(frozen=True)
class AutoencoderSettings:
    """Everything that decides the autoencoder's weights."""

    steps: int = 5000
    batch: int = 16
    lr: float = 1e-3
    kl_weight: float = 1e-3  # per latent element, against a mean absolute error in [-1, 1]
    latent_channels: int = 8
    channels: tuple[int, ...] = (16, 32, 64, 64)
    seed: int = 0


@dataclass(frozen=True)
class PretrainSettings:
    """Everything that decides the base model's weights, given its autoencoder."""

    steps: int = 40_000
    batch: int = 64
    lr: float = 1e-3
    muon: bool = True  # orthogonalised momentum for the blocks' matrices, AdamW for the rest
    muon_lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 300
    decay_share: float = 0.3
    dropout: float = 0.1  # share of prompts replaced by "" for guidance
    near_misses: float = 1.0  # times the shares of trainer/demo/scenes/near_miss.py; 0: every image is right
    time_mean: float = 0.4  # times are logit-normal(time_mean, 1)
    ema: float = 0.999
    shards_at_start: int = 16
    steps_per_shard: int = 150
    shards_at_most: int = 150
    compile: bool = True
    seed: int = 0


@dataclass(frozen=True)
class DistillSettings(Settings):
    """TDM: the base model into a first few-step student."""

    updates: int = option(1200, "Student updates.", low=1, high=MOST_UPDATES)
    batch: int = option(48, "Images per rollout.", low=1, high=MOST_IMAGES)
    updates_per_rollout: int = option(2, "Updates made from one rollout.", low=1, high=100)
    rank: int = option(32, "LoRA rank. A higher rank can learn more and takes more memory.", low=1, high=512)
    alpha: int = option(64, "LoRA alpha. An adapter's change is scaled by alpha / rank.", low=1, high=4096)
    student_lr: float = option(2e-4, "Learning rate of the student.", low=0, high=1)
    fake_lr: float = option(
        6e-4,
        "Learning rate of the fake. The fake learns what the student's images look like, so that they can be "
        "compared with the base model's.",
        low=0,
        high=1,
    )
    guidance: float = option(4.0, "Guidance of the teacher that the student learns from (w_cfg).", low=1, high=20)
    t_min: float = option(0.02, "Smallest step up in un-shifted time when re-noising.", low=0, high=0.5)
    fake_teacher: float = option(
        0.02, "Pull of the fake to the teacher. A weight that keeps the fake near the base model.", low=0, high=1000
    )
    ema: float = option(0.98, "Decay of the student's moving average, which is what is saved.", low=0, high=1)
    weight_decay: float = option(1e-4, "Weight decay of AdamW.", low=0, high=1)
    clip_norm: float = option(1.0, "Largest gradient norm. Longer gradients are scaled down to it.", low=0, high=1e6)
    seed: int = option(0, "Seed of prompts and noise.", low=0, high=MOST_SEED)


@dataclass(frozen=True)
class TDMR1Settings(Settings):
    """One round of TDM-R1 (docs/method.md explains it; the paper's values for SD3.5-M are in `paper()`)."""

    method: str = option(
        "tdm_r1",
        "Training method. tdm_r1: the student follows a surrogate, which learns from the groups what people "
        "like. task_vector: what the surrogate learned is added to the student. The others train the student directly: "
        "dgpo by comparing the images of a group, negative_aware towards liked images and away from disliked ones, "
        "best_of_group by each group's best image, flow_grpo by policy gradients, which needs a reward oracle.",
        choices=("tdm_r1", "task_vector", "dgpo", "negative_aware", "best_of_group", "flow_grpo"),
    )
    surrogate: str = option(
        "likelihood",
        "Kind of surrogate. Only with tdm_r1. likelihood: what a copy of the base model came to find more likely, as in "
        "the paper; head: a small network on the base model's features that ranks a group's images at every noise level. "
        "A head is taught by all labelled groups before the first update.",
        choices=("likelihood", "head"),
    )
    updates: int = option(
        60,
        "Updates in the round. In each one the surrogate learns from groups, and the student follows it.",
        low=1,
        high=MOST_UPDATES,
    )
    surrogate_updates: int = option(
        0,
        "Surrogate updates per student update. 0 means one, or two or three when many labels are stored, so "
        "that a round looks at each labelled group about eight times.",
        low=0,
        high=100,
    )
    surrogate_first: float = option(
        0.0,
        "Share of updates for the surrogate alone. In this first part only the surrogate learns; in the "
        "second it stays as it is, and the student follows it. Learning rates fall at the end of each part. "
        "0: both learn in every update, as in the paper.",
        low=0,
        high=0.9,
    )
    prompts_per_update: int = option(
        16, "Groups per update. How many groups of images an update looks at, one for each prompt.", low=1, high=4096
    )
    group_size: int = option(
        8, "Images per group. Only for groups that are made during training, with an oracle.", low=2, high=64
    )
    noise_spread: float = option(
        0.4,
        "Share of noise that differs within a group. Only for groups made during training; 1 gives each image"
        " noise of its own. Images that share the rest of their noise differ in little but what is liked or "
        "disliked, so fewer of them teach as much.",
        low=0.01,
        high=1,
    )
    student_batch: int = option(
        48, "Images per student update. How many images the student trains on in an update.", low=1, high=4096
    )
    steps_trained: int = option(
        1,
        "Denoising steps trained per update. How many of the student's steps an update trains for each image.",
        low=1,
        high=50,
    )
    steps_together: bool = option(
        False,
        "One step of the optimizers for all of them. As in the authors' code: the update's denoising steps are trained "
        "together, and the surrogate looks at as many points of each group. Else they are trained one after the other.",
    )
    solver: str = option(
        "euler",
        "Solver of the images that a round makes for itself. dpm: DPM-Solver++ (2M), as in the authors' code; euler: as "
        "everybody else's images are made, labelled ones among them.",
        choices=("euler", "dpm"),
    )
    rank: int = option(32, "LoRA rank. A higher rank can learn more and takes more memory.", low=1, high=512)
    alpha: int = option(64, "LoRA alpha. An adapter's change is scaled by alpha / rank.", low=1, high=4096)
    lora_init: str = option(
        "uniform",
        "Start of a new adapter's A. gaussian: with a deviation of 1 / rank, as in the authors' code; uniform: PEFT's own.",
        choices=("uniform", "gaussian"),
    )
    fake_start: str = option(
        "carried",
        "Start of the fake. carried: where the round before left it, or else at the base model; teacher: at the base "
        "model; student: at the student.",
        choices=("carried", "teacher", "student"),
    )
    student_lr: float = option(2e-4, "Learning rate of the student.", low=0, high=1)
    fake_lr: float = option(
        6e-4,
        "Learning rate of the fake. The fake learns what the student's images look like, so that they can be "
        "compared with the base model's.",
        low=0,
        high=1,
    )
    surrogate_lr: float = option(
        5e-4, "Learning rate of the surrogate. The surrogate learns from the groups what people like.", low=0, high=1
    )
    cool_down: float = option(
        0.5,
        "Share of updates with falling learning rates. Over this last part of the round the learning rates "
        "fall to zero, so that the student settles.",
        low=0,
        high=1,
    )
    weight_decay: float = option(1e-4, "Weight decay of AdamW.", low=0, high=1)
    clip_norm: float = option(1.0, "Largest gradient norm. Longer gradients are scaled down to it.", low=0, high=1e6)
    guidance: float = option(
        4.0,
        "Guidance in the guidance term. How strongly the prompt guides the base model that the student learns"
        " from; w_cfg in the paper.",
        low=1,
        high=20,
    )
    rl_cfg: float = option(
        4.0,
        "Guidance in the reward term. How strongly the prompt guides the direction in which images are liked better.",
        low=1,
        high=20,
    )
    reward_guidance: str = option(
        "teacher",
        "Source of guidance in the reward term. surrogate: its own, as in the paper. teacher: the base "
        "model's; what the surrogate learned then counts fully, even where it is the same with and without "
        "the prompt.",
        choices=("teacher", "surrogate"),
    )
    reward_scale: float = option(
        5.0,
        "Strength of the reward term. How far the student follows what the surrogate learned; only with the "
        "guidance of the teacher.",
        low=0,
        high=100,
    )
    guidance_weight: float = option(
        0.3,
        "Weight of guidance against reward. 1 is guidance alone, 0 is reward alone; lambda in the paper.",
        low=0,
        high=1,
    )
    trunc_steps: int = option(
        2,
        "Denoising steps with the reward term. So many of the student's steps, from the first on, follow the "
        "reward. The first step decides what is in an image, later ones more how it looks: from the first "
        "alone little of a taste in colour or style is learned.",
        low=0,
        high=50,
    )
    late_steps: str = option(
        "full",
        "Other denoising steps. What the steps without the reward term weigh: full, or scaled by the weight of guidance "
        "as a whole, as in the authors' code.",
        choices=("full", "scaled"),
    )
    reward_share: float = option(
        0.5,
        "Share of images that get the reward term. For this share of the images an update trains a step that "
        "has the reward term; if it trains several, the first of them has it. 0: all steps are drawn with the"
        " same chance.",
        low=0,
        high=1,
    )
    stratified: bool = option(
        False,
        "Evenly spread looks. The steps and times at which the surrogate looks at an update's groups are spread evenly "
        "over the groups, so that its gradient has less noise; else each is drawn for itself, as in the paper.",
    )
    beta_dpo: float = option(
        10.0,
        "Sharpness of group weights. The higher, the less a group counts that the surrogate already ranks "
        "right; beta_dpo in the paper.",
        low=0,
        high=1e6,
    )
    step_weight: str = option(
        "advantages",
        "Weight of later points. Later points of an image's way count more: within the group's weight (advantages), or for "
        "the whole loss with its pull to the teacher, as in the authors' code (loss).",
        choices=("advantages", "loss"),
    )
    surrogate_kl: float = option(
        0.1,
        "Pull of the surrogate to the teacher. Too small, and disliked images push the surrogate away without"
        " end; beta in the paper.",
        low=0,
        high=1000,
    )
    clip: float = option(
        0.5,
        "Trust region of a surrogate update. An image stops pulling once its likelihood has changed by more "
        "than this share.",
        low=0,
        high=1e6,
    )
    teacher_clip_from: float = option(
        0.5,
        "Start of the teacher's trust region. From this distance from the teacher on, the trust region also "
        "holds against the teacher.",
        low=0,
        high=1e6,
    )
    teacher_clip: str = option(
        "image",
        "What the teacher's trust region looks at. image: each image's own distance; batch: the mean distance, and then "
        "without the margin of the trust region, as in the authors' code.",
        choices=("image", "batch"),
    )
    relative: bool = option(
        True,
        "Relative distances. Measure the surrogate's distances relative to the teacher's own denoising error,"
        " not in absolute units as in the paper.",
    )
    reference: str = option(
        "frozen",
        "Reference of the surrogate. What the surrogate's opinion is measured against: frozen is the base "
        "model, ema the surrogate's own moving average.",
        choices=("ema", "frozen"),
    )
    t_min: float = option(
        0.25,
        "Lowest time of the reward term. It looks at noise levels from this time to 1; 0 is the image, 1 is pure noise.",
        low=0,
        high=0.95,
    )
    surrogate_t_min: float = option(
        0.25,
        "Lowest time of the surrogate. It learns at noise levels from this time to 1; 0 is the image, 1 is pure noise.",
        low=0,
        high=0.95,
    )
    fake_teacher: float = option(
        0.02, "Pull of the fake to the teacher. A weight that keeps the fake near the base model.", low=0, high=1000
    )
    head_strength: float = option(
        1.0, "Strength of the head. How far the student follows the head's gradient; 0: not at all.", low=0, high=100
    )
    head_norm: str = option(
        "guidance",
        "Length of the head's gradient. guidance: as long as the guidance's own pull; posterior: as Bayes' rule asks for, "
        "where the head's opinion is the chance of a like.",
        choices=("guidance", "posterior"),
    )
    head_members: int = option(
        2,
        "Members of the head. So many small networks read the same features; where they disagree the student follows "
        "them less.",
        low=1,
        high=16,
    )
    head_passes: int = option(
        3,
        "Passes of the head over the labels. Before the first update, over all labelled groups; more over few groups, "
        "fewer once groups that are kept back are ranked no better.",
        low=1,
        high=1000,
    )
    head_groups: int = option(
        128,
        "Groups for the head before the first update. Only with an oracle and without stored labels: so many are sampled "
        "and scored for it.",
        low=0,
        high=MOST_UPDATES,
    )
    gradient_steps: int = option(
        2, "Gradient steps per batch of groups. With methods that train the student directly.", low=1, high=100
    )
    vector_strength: float = option(
        2.0,
        "Strength of what is added. Only with task_vector: so many times what the surrogate learned is added to the "
        "student.",
        low=0,
        high=100,
    )
    negative_beta: float = option(
        1.0,
        "Caution of the implicit policies. Only with negative_aware and task_vector: the smaller, the further an update "
        "goes beyond the student's average; beta in DiffusionNFT.",
        low=0.01,
        high=100,
    )
    noise_level: float = option(0.7, "Noise of the sampler's steps. Only with flow_grpo.", low=0.01, high=10)
    ratio_clip: float = option(1e-3, "Clip range of the probability ratio. Only with flow_grpo.", low=0, high=10)
    initial_kl: float = option(
        0.04,
        "Weight of the divergence from the first student. Only with flow_grpo and negative_aware.",
        low=0,
        high=100,
    )
    ema: float = option(
        0.95,
        "Decay of the student's moving average. The average is what is evaluated and published; the nearer to"
        " 1, the slower it follows the student. With task_vector: of the surrogate's, which is its reference ema.",
        low=0,
        high=1,
    )
    validation_images: int = option(
        112, "Validation images. How many images are scored before, during and after the round.", low=0, high=100_000
    )
    validate_every: int = option(
        20,
        "Updates between validations. The newest version is kept unless it is clearly worse than an earlier one.",
        low=1,
        high=MOST_UPDATES,
    )
    alarm: bool = option(
        True,
        "Alarm. Stop the round early when the surrogate likes the validation images more and more while the "
        "oracle, held-out labels or measures that know nothing of the reward say that they became worse; the "
        "version that was best before is kept.",
    )
    seed: int = option(0, "Seed of prompts and noise.", low=0, high=MOST_SEED)

    @property
    def explicit(self) -> bool:
        """Whether the student follows a head."""
        return self.method == "tdm_r1" and self.surrogate == "head"

    @property
    def updates_alone(self) -> int:
        """How many updates at the start are the surrogate's alone."""
        return round(self.surrogate_first * self.updates)

    def learns_reward(self, step: int) -> bool:
        """Whether update `step` (from 0) looks at rewards."""
        return step < self.updates_alone or not self.updates_alone

    def follows(self, step: int) -> bool:
        """Whether the student moves in update `step` (from 0)."""
        return step >= self.updates_alone

    def check_source(self, *, labels: bool) -> None:
        """Raise SettingsError, naming the field, when the method cannot learn from stored labels (else: from an oracle)."""
        if labels and self.method == "flow_grpo":
            raise SettingsError(
                "method: flow_grpo learns only from images that it samples itself; use a reward oracle, or another method"
            )

    def surrogate_updates_for(self, groups: int) -> int:
        """Surrogate updates before each student update when `groups` labelled groups with signal are stored; 0 groups where
        they are sampled and scored anew. Measured by rows `3000_thrice` and `10000_thrice` of
        `bench/learning/label_economy.py`."""
        if self.surrogate_updates or self.explicit:  # a head has seen all of them before
            return self.surrogate_updates or 1
        learning = self.updates_alone or self.updates
        wanted = round(LOOKS * groups / (learning * self.prompts_per_update))
        return min(MOST_SURROGATE_UPDATES, max(1, wanted))

    @classmethod
    def paper(cls, preset: str = "geneval") -> TDMR1Settings:
        """The settings of the authors' public configuration for SD3.5-M: `geneval`, `ocr` or `preference` (that of HPSv2;
        ImageReward's differs by `beta_dpo = 1`). Source: github.com/Luo-Yihong/TDM-R1, config/tdmr1_clean.py."""
        presets = {
            "geneval": {
                "prompts_per_update": 48,
                "beta_dpo": 1.0,
                "t_min": 0.25,
                "surrogate_t_min": 0.55,
                "rl_cfg": 2.5,
                "trunc_steps": 4,
                "clip": 1e-3,
            },
            "ocr": {
                "prompts_per_update": 48,
                "beta_dpo": 10.0,
                "t_min": 0.30,
                "surrogate_t_min": 0.30,
                "rl_cfg": 4.5,
                "trunc_steps": 4,
                "clip": 1e-3,
            },
            "preference": {
                "prompts_per_update": 24,
                "beta_dpo": 10.0,
                "t_min": 0.40,
                "surrogate_t_min": 0.55,
                "rl_cfg": 3.5,
                "trunc_steps": 2,
                "clip": 2e-3,
            },
        }
        if preset not in presets:
            raise SettingsError(f"preset: {preset!r} is not one of {', '.join(presets)}")
        common = {
            "group_size": 24,
            "student_batch": 24 * presets[preset]["prompts_per_update"],  # every image of the update
            "student_lr": 7.5e-5,
            "fake_lr": 3e-4,
            "surrogate_lr": 3e-4,
            "guidance": 4.5,
            "steps_trained": 2,
            "steps_together": True,
            "solver": "dpm",
            "lora_init": "gaussian",
            "fake_start": "teacher",
            "step_weight": "loss",
            "teacher_clip": "batch",
            "late_steps": "scaled",
            "ema": 0.9,
            "surrogate_kl": 1e-3,
            "reward_guidance": "surrogate",
            "noise_spread": 1.0,
            "reward_share": 0.0,
            "teacher_clip_from": 0.05,
            "relative": False,
            "reference": "frozen",
            "cool_down": 0.0,
            "surrogate_updates": 1,
        }
        return cls(**common, **presets[preset])
