"""What the API takes and gives."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Generic, Literal, TypeVar

from ninja import Schema
from pydantic import Field

from webapp.api.models import DeliveryState, Scope
from webapp.campaigns.models import LabelSource, Role, Split
from webapp.imports.report import ImageOutcome
from webapp.labelling.models import Change, GroupState, Outcome, SkipReason
from webapp.lib import bounds
from webapp.rounds.models import ComparisonState, RoundState, TrialState, VersionStatus
from webapp.rounds.trials import MOST_SEEDS, MOST_SIDES
from webapp.webhooks.events import EVENTS

T = TypeVar("T")
Position = Annotated[int, Field(**bounds.POSITION.limits)]
Row = Annotated[int, Field(strict=True, **bounds.ROW.limits)]
Share = Annotated[float, Field(strict=True, **bounds.SHARE.limits)]
Reason = Annotated[str, Field(min_length=1, max_length=bounds.REASON)]
MOST_PROMPTS = 5000  # of a request


class Page(Schema, Generic[T]):
    """A part of a list. Ask again with `after=<next>` until `next` is null."""

    items: list[T]
    next: int | None = None


class Error(Schema):
    """Why a request was refused, in a sentence that names the field."""

    detail: str


class TokenOut(Schema):
    project: str
    user: str
    name: str
    scopes: list[Scope]


class ProjectOut(Schema):
    slug: str
    name: str
    group_size: int
    images_made: int | None = Field(description="Images made of a group, of which group_size are shown; null: as many.")
    sizes: list[str] = Field(description="Of images in pixels, as 1152x896; empty: the model's own.")
    steps: int
    overlap: int
    overlap_most: int | None = Field(description="A group is asked about up to so often until it is sure enough.")
    sure: float = Field(description="Certainty from which nobody more is asked, within a range.")
    label_source: LabelSource
    oracle: str
    guidelines: str
    dislike_reasons: list[str] = Field(description="What people may say of a dislike.")
    active_version: int | None
    archived: bool
    groups: dict[str, int] = Field(description="Groups by state.")
    labelled_groups: int
    groups_with_signal: int
    alpha: float | None = Field(description="Krippendorff's alpha of the last measurement.")
    labels_to_next_round: int = Field(description="About how many more until the next round is worth it; 0: it is.")


class InputOut(Schema):
    """An image that prompts change: name it in a prompt's metadata as `input_image`."""

    id: int
    digest: str = Field(description="SHA-256 of the file that is kept.")
    width: int
    height: int
    url: str


class PromptIn(Schema):
    prompt: str = Field(min_length=1, max_length=1000)
    split: Split = Split.TRAIN
    metadata: dict = Field(
        {}, description="`size` as 1152x896, and `input_image`, the digest of an image, among others."
    )


class PromptOut(Schema):
    id: int
    prompt: str
    split: Split
    metadata: dict
    input_image: str = Field(description="Digest of the image that it changes; empty: none.")
    withdrawn: bool = Field(description="Nothing new is made of it.")


class PromptsIn(Schema):
    prompts: list[PromptIn] = Field(max_length=MOST_PROMPTS)


class PromptsChosen(Schema):
    ids: list[Row] = Field(min_length=1, max_length=MOST_PROMPTS, description="Those of other projects are left alone.")


class PromptsTagged(PromptsChosen):
    tag: str = Field(max_length=bounds.WORD, description="Empty: none.")


class PromptsChanged(Schema):
    changed: int = Field(description="How many were different before.")


class PromptsAdded(Schema):
    new: int
    known: int
    cut: list[str] = Field(description="Prompts that are longer than the model reads, each with what is cut of it.")


class PromptFileAdded(PromptsAdded):
    read_as: str = Field(description="What the file was taken for.")
    left_out: list[str] = Field(description="Lines that say nothing new, each with why.")


class Reasons(Schema):
    """What people may say of a dislike, each on a key of its own; none: they are not asked."""

    reasons: list[Reason] = Field(max_length=bounds.REASONS)


class MemberOut(Schema):
    id: int
    name: str
    role: Role
    groups: int = Field(description="Answers of theirs.")
    groups_of_the_week: int
    last_day: date | None = Field(description="On which they answered.")


class RoleIn(Schema):
    role: Role


class InvitationOut(Schema):
    id: int
    role: Role
    by: str
    created_at: datetime
    expires_at: datetime


class InvitationMade(InvitationOut):
    link: str = Field(description="Makes one person a member; shown this once.")


class ImageOut(Schema):
    id: int
    position: int
    seed: int | None = Field(description="Of its noise; null: own images, whose seed nobody knows.")
    inclusion: float = Field(description="The chance it had to be shown of those made; estimates weigh it by 1 / it.")
    url: str
    width: int
    height: int


class GroupOut(Schema):
    id: int
    prompt: str
    version: int | None = Field(description="That made it; null: images that somebody brought in.")
    state: GroupState
    created_at: datetime
    rewards: list[float | None] | None = Field(description="What the labels come to, by position; null without labels.")
    input_image: str = Field(description="Digest of the image that its prompt changed; empty: none.")
    images: list[ImageOut]


class TaskImageOut(Schema):
    position: int
    url: str
    width: int
    height: int


class TaskOut(Schema):
    """A group to decide on; nothing tells which one it is or what others said of it."""

    id: str
    prompt: str
    input: str | None = Field(description="Address of the image that the prompt changed.")
    images: list[TaskImageOut]


class WhyIn(Schema):
    reason: str = Field("", max_length=bounds.REASON)
    box: list[Share] | None = Field(
        None,
        min_length=4,
        max_length=4,
        description="Left, top, width, height as shares of the image; null: all of it.",
    )


class DecisionIn(Schema):
    labels: dict[Position, bool] = Field(
        max_length=bounds.GROUP_SIZE.high, description="Position to like (true) or dislike (false), every image."
    )
    why: dict[Position, WhyIn] = Field(
        {}, max_length=bounds.GROUP_SIZE.high, description="Position to why it is disliked."
    )
    seconds: float = Field(0, strict=True, **bounds.SECONDS.limits)
    key: str = Field(min_length=1, max_length=64, description="Of your making; the same when you send it again.")


class SkipIn(Schema):
    reason: SkipReason | Literal[""] = ""
    key: str = Field(min_length=1, max_length=64)


class Saved(Schema):
    task: str
    outcome: Outcome


class LabelOut(Schema):
    """What became of a label."""

    id: int = Field(description="Ask again with the last one as `after`, at any time, for what came since.")
    change: Change = Field(
        description="labelled; undone by who gave it; left_out, since the group is flagged; restored after that; "
        "overruled: `annotator` is a reviewer, whose word stands above everybody's."
    )
    group: int
    position: int
    annotator: str | None
    oracle: str | None
    liked: bool | None = Field(description="null: the label, or the reviewer's word, does not count any more.")
    score: float | None
    reason: str | None = Field(description="Why it is disliked, or what the oracle says.")
    box: list[float] | None = Field(description="Where: left, top, width, height as shares of the image.")
    created_at: datetime


class VersionOut(Schema):
    number: int
    parent: int | None
    status: VersionStatus
    sha256: str
    scores: dict
    created_at: datetime


class RoundIn(Schema):
    settings: dict = Field({}, description="Settings that differ from the project's.")
    key: str = Field(min_length=1, max_length=64, description="Of your making; the same when you send it again.")


class RoundOut(Schema):
    number: int
    state: RoundState
    phase: str
    step: int
    total: int
    base_version: int
    result_version: int | None
    scores_before: dict
    scores_after: dict
    error: str
    alarm: str = Field(description="Why it stopped early, in a sentence; empty if it did not.")
    labels_needed: int | None = Field(description="By the forecast when it started; null: it is older than forecasts.")
    labels_had: int | None = Field(description="New ones in groups with signal.")
    worth_it: bool | None = Field(description="Its version is better than the one before; null while nobody can tell.")
    created_at: datetime
    finished_at: datetime | None


class BaseIn(Schema):
    """How the base makes its images."""

    steps: int = Field(40, strict=True, **bounds.STEPS.limits)
    guidance: float = Field(4.0, strict=True, **bounds.GUIDANCE.limits)


class TrialIn(Schema):
    prompt: str = Field(min_length=1, max_length=1000)
    versions: list[Annotated[int, Field(strict=True, **bounds.NUMBER.limits)]] = Field([], max_length=MOST_SIDES)
    base: BaseIn | None = Field(None, description="Images of the base, too.")
    seeds: list[Annotated[int, Field(strict=True, **bounds.SEED.limits)]] = Field(
        [1, 2, 3, 4], min_length=1, max_length=MOST_SEEDS, description="One image of each side a seed."
    )
    size: str = Field("", max_length=bounds.SIZE, description="In pixels, as 1152x896; empty: the model's own.")


class SideOut(Schema):
    version: int | None = Field(description="null: the base.")
    steps: int
    guidance: float
    images: list[str] = Field(description="Their addresses, by seed; empty until they are made.")


class TrialOut(Schema):
    id: int
    prompt: str
    state: TrialState
    seeds: list[int]
    size: str = Field(description="Of the images in pixels; empty: the model's own.")
    sides: list[SideOut]
    ahead: int = Field(description="Trials that are made before it.")
    error: str
    created_at: datetime


class TestIn(Schema):
    versions: list[Annotated[int, Field(strict=True, **bounds.NUMBER.limits)]] = Field(
        min_length=bounds.COMPARED.low, max_length=bounds.COMPARED.high, description="Their numbers, each once."
    )
    shown: int = Field(2, strict=True, **bounds.SHOWN.limits, description="Images at once; above 2 people order them.")
    most_votes: int = Field(400, strict=True, **bounds.VOTES.limits, description="Answers after which it ends anyway.")


class AgainstOut(Schema):
    """A version against another."""

    version: int
    verdict: Literal["better", "worse", "same", ""] = Field(
        description="Sure for all looks and all pairs together, with the test's `alpha`; empty: nobody can tell yet."
    )
    answers: float = Field(description="In which both were put in order.")
    won: float = Field(description="Of these, half where both were the same.")
    expected: float = Field(description="Share of wins by the scores.")


class RankedOut(Schema):
    version: int
    score: float = Field(description="Bradley-Terry, in points around the mean: 100 more win 64 of 100.")
    low: float = Field(description="Of its 95% interval.")
    high: float
    answers: int = Field(description="In which it was shown.")
    against: list[AgainstOut]


class TestOut(Schema):
    number: int
    state: ComparisonState
    versions: list[int]
    shown: int
    most_votes: int
    votes: int
    alpha: float
    winner: int | None = Field(description="The version that is better than each other one, once that is sure.")
    same: bool = Field(description="No version is better than another.")
    created_at: datetime
    finished_at: datetime | None


class TestResult(TestOut):
    ranking: list[RankedOut] = Field(description="The best first.")


class WebhookIn(Schema):
    url: str = Field(max_length=500)
    events: list[Literal[tuple(EVENTS)]] = Field(
        max_length=len(EVENTS), description="What it is told of; see docs/api.md for each message's `data`."
    )
    every: int = Field(100, strict=True, **bounds.EVERY.limits, description="Labelled groups between two milestones.")


class WebhookOut(Schema):
    id: int
    url: str
    events: list[Literal[tuple(EVENTS)]]
    every: int
    active: bool


class WebhookMade(WebhookOut):
    secret: str = Field(description="Checks the signatures; shown this once.")


class DeliveryOut(Schema):
    id: int
    event: Literal[tuple(EVENTS)]
    state: DeliveryState
    attempts: int
    status: int | None
    error: str
    created_at: datetime
    payload: dict


class ImportedOut(Schema):
    new: int
    known: int
    conflicts: list[str]


class ImportRefused(Error):
    errors: list[str] = Field(description="Line by line; none was imported.")


class FileReport(Schema):
    name: str
    outcome: ImageOutcome
    why: str = Field(description="A sentence; empty where the outcome says it.")


class ImagesImported(Schema):
    groups: int = Field(description="That were made.")
    images: int = Field(description="In them.")
    files: list[FileReport] = Field(description="What became of each.")
