"""Versions of the student and the rounds that make them."""

from __future__ import annotations

from django.conf import settings as django_settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webapp.lib import bounds
from webapp.rounds.staircase import Ended


def next_number(rows) -> int:
    """The number after the highest of a project's versions, rounds or comparisons, which count from 1."""
    return (rows.aggregate(n=models.Max("number"))["n"] or 0) + 1


class VersionStatus(models.TextChoices):
    """Only a published version generates groups."""

    DRAFT = "draft"
    PUBLISHED = "published"
    KEPT_OUT = "kept out"


class ModelVersion(models.Model):
    """A student: a LoRA folder and how it scored."""

    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    parent = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="children")
    path = models.CharField(max_length=500)
    sha256 = models.CharField(max_length=64, blank=True)
    scores = models.JSONField(default=dict)
    status = models.CharField(max_length=10, choices=VersionStatus, default=VersionStatus.DRAFT)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["number"]
        constraints = [models.UniqueConstraint(fields=["project", "number"], name="one_version_number")]

    def __str__(self) -> str:
        return _("version %(n)s") % {"n": self.number}


class RoundState(models.TextChoices):
    """See `states.ROUND_MOVES`."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN = (RoundState.QUEUED, RoundState.RUNNING)


class TrainingRound(models.Model):
    """A training job as a row: who runs it, how far it is, and what came of it."""

    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="rounds")
    number = models.PositiveIntegerField()
    base_version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="rounds_from")
    result_version = models.OneToOneField(ModelVersion, null=True, on_delete=models.PROTECT, related_name="made_by")
    settings = models.JSONField(default=dict)
    state = models.CharField(max_length=10, choices=RoundState, default=RoundState.QUEUED)
    cancel_requested = models.BooleanField(default=False)
    started_by = models.ForeignKey(
        django_settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    idempotency_key = models.CharField(max_length=64)
    owner = models.CharField(max_length=200, blank=True)
    token = models.PositiveIntegerField(default=0, help_text="Fencing token: grows with every claim.")
    attempt = models.PositiveSmallIntegerField(default=0, help_text="Claims since a checkpoint got further than ever.")
    heartbeat_at = models.DateTimeField(null=True)
    kept_step = models.PositiveIntegerField(default=0, db_default=0, help_text="Updates of the furthest checkpoint.")
    phase = models.CharField(max_length=20, blank=True)
    step = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    seconds_left = models.FloatField(default=0)
    scores_before = models.JSONField(default=dict)
    scores_after = models.JSONField(default=dict)
    groups_used = models.PositiveIntegerField(default=0)
    made_from = models.JSONField(
        default=dict, db_default={}, help_text="labels by who gave them, and how many people; written with the groups."
    )
    checkpoint = models.CharField(
        max_length=40,
        blank=True,
        db_default="",
        help_text="With a bucket: the folder that the next owner goes on from.",
    )
    error = models.TextField(blank=True)
    alarm = models.TextField(blank=True, db_default="", help_text="Why it stopped early, in a sentence.")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="one_round_number"),
            models.UniqueConstraint(fields=["project", "idempotency_key"], name="one_round_a_key"),
            models.UniqueConstraint(
                fields=["project"], condition=Q(state__in=["queued", "running"]), name="one_open_round_a_project"
            ),
        ]

    def __str__(self) -> str:
        return f"round {self.number}"


class RoundMetric(models.Model):
    """What a round measured at a step."""

    round = models.ForeignKey(TrainingRound, on_delete=models.CASCADE, related_name="metrics")
    step = models.PositiveIntegerField()
    values = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["step"]
        constraints = [models.UniqueConstraint(fields=["round", "step"], name="one_metric_a_step")]


class Basis(models.TextChoices):
    """What told whether a round was worth it."""

    COMPARISON = "comparison", gettext_lazy("a blind test")
    LABELS = "labels", gettext_lazy("labels of both versions")
    SCORES = "scores", gettext_lazy("validation scores")
    KEPT_OUT = "kept out", gettext_lazy("an admin kept the version out")
    TOO_FEW = "too few", gettext_lazy("too few labels to tell")


class RoundForecast(models.Model):
    """How many labels a round was forecast to need when it started, how many it had, and what came of it. Labels are of
    images in groups with signal. Housekeeping fills in the outcome, once: `forecasts.settle`."""

    round = models.OneToOneField(TrainingRound, primary_key=True, on_delete=models.CASCADE, related_name="forecast")
    needed = models.PositiveIntegerField()
    had = models.PositiveIntegerField(help_text="Newly labelled since the last round that made a version.")
    worth = models.BooleanField(null=True, help_text="Its version is better than the one before; empty: not known.")
    chance = models.FloatField(null=True, help_text="That it is, by labels or scores.")
    basis = models.CharField(max_length=12, choices=Basis, blank=True, db_default="", default="")
    known_at = models.DateTimeField(null=True)

    @property
    def hit(self) -> bool | None:
        """Whether the forecast was right; None while nobody can say."""
        return None if self.worth is None else Ended(self.needed, self.had, self.worth).hit


class ComparisonState(models.TextChoices):
    """Decided: the test ended it. Stopped: a person did, or the votes ran out."""

    OPEN = "open"
    DECIDED = "decided"
    STOPPED = "stopped"


class Comparison(models.Model):
    """A blind test of two versions or more: people see images of one noise and say which is better, or order them.

    Within it versions have letters: `a` and `b`, then those of its `entrants`."""

    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="comparisons")
    number = models.PositiveIntegerField()
    version_a = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    version_b = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=10, choices=ComparisonState, default=ComparisonState.OPEN)
    alpha = models.FloatField(default=0.05, help_text="How often two equal versions may be told apart.")
    margin = models.FloatField(default=0.1, help_text="Shares within one half ± this count as the same.")
    shown = models.PositiveSmallIntegerField(default=2, db_default=2, help_text="Images at once.")
    most_votes = models.PositiveIntegerField(default=400)
    wins_a = models.PositiveIntegerField(default=0, help_text="Of two versions; `orders` counts those of more.")
    wins_b = models.PositiveIntegerField(default=0)
    ties = models.PositiveIntegerField(default=0)
    orders = models.PositiveIntegerField(default=0, db_default=0)
    verdict = models.CharField(
        max_length=4, blank=True, help_text="The letter of the version that is better than each other one, or same."
    )
    started_by = models.ForeignKey(
        django_settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="one_comparison_number"),
            models.CheckConstraint(condition=~Q(version_a=models.F("version_b")), name="two_versions"),
        ]

    def __str__(self) -> str:
        return f"comparison {self.number}"

    @property
    def versions(self) -> list[ModelVersion]:
        """All of them, in the order of their letters."""
        return [self.version_a, self.version_b, *(e.version for e in self.entrants.all())]

    @property
    def votes(self) -> int:
        """Answers that are counted."""
        return self.wins_a + self.wins_b + self.ties + self.orders

    @property
    def winner(self) -> ModelVersion | None:
        """The version that is better than each other one, once that is sure."""
        return self.versions[ord(self.verdict) - ord("a")] if len(self.verdict) == 1 else None


class Entrant(models.Model):
    """A blind test's third version, fourth, …"""

    comparison = models.ForeignKey(Comparison, on_delete=models.CASCADE, related_name="entrants")
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["comparison", "version"], name="one_entrant_a_version")]


class PairState(models.TextChoices):
    """See `states.PAIR_MOVES`."""

    QUEUED = "queued"
    GENERATING = "generating"
    READY = "ready"
    DONE = "done"
    FAILED = "failed"


class Pair(models.Model):
    """One image of each of two versions from the same noise, and the one vote that it gets; of more versions where people
    order them."""

    comparison = models.ForeignKey(Comparison, on_delete=models.CASCADE, related_name="pairs")
    prompt = models.ForeignKey("campaigns.Prompt", on_delete=models.PROTECT, related_name="+")
    seed = models.BigIntegerField()
    image_size = models.CharField(
        max_length=bounds.SIZE, blank=True, default="", db_default="", help_text="As 1152x896; empty: the model's own."
    )
    input_image = models.CharField(
        max_length=64, blank=True, default="", db_default="", help_text="SHA-256 of the image that its prompt changes."
    )
    a_is_left = models.BooleanField(help_text="Of pairs without a layout, which are older.")
    letters = models.CharField(
        max_length=12, blank=True, default="", db_default="", help_text="Of its versions, sorted."
    )
    layout = models.CharField(max_length=12, blank=True, default="", db_default="", help_text="From left to right.")
    state = models.CharField(max_length=10, choices=PairState, default=PairState.QUEUED)
    attempt = models.PositiveSmallIntegerField(default=0)
    token = models.PositiveIntegerField(default=0, help_text="Fencing token: grows with every claim.")
    heartbeat_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=500, blank=True)
    leased_to = models.ForeignKey(
        django_settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    leased_until = models.DateTimeField(null=True)
    voter = models.ForeignKey(
        django_settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="pair_votes"
    )
    choice = models.CharField(max_length=4, blank=True, help_text="Of older votes, without an outcome: a, b or tie.")
    outcome = models.CharField(
        max_length=40, blank=True, default="", db_default="", help_text="Letters from the best on, as in c>a=d>b,e."
    )
    seconds = models.FloatField(default=0)
    voted_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["comparison", "state", "id"])]

    @property
    def sides(self) -> str:
        """The letters of its versions from left to right."""
        return self.layout or ("ab" if self.a_is_left else "ba")


class TrialState(models.TextChoices):
    """See `states.TRIAL_MOVES`."""

    QUEUED = "queued"
    GENERATING = "generating"
    READY = "ready"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Trial(models.Model):
    """Images of any prompt, made by versions, and the base, from the same noise: somebody looks at them, nobody rates them.
    Its number is never given twice, so that a link to one that has expired shows no other."""

    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="trials")
    prompt = models.CharField(max_length=1000)
    sides = models.JSONField(help_text="Columns as {version (a number; null: the base), steps, guidance}.")
    seeds = models.JSONField(help_text="Rows: noise seeds.")
    image_size = models.CharField(
        max_length=bounds.SIZE, blank=True, default="", db_default="", help_text="As 1152x896; empty: the model's own."
    )
    made = models.PositiveSmallIntegerField(default=0, help_text="Sides whose images are there.")
    state = models.CharField(max_length=10, choices=TrialState, default=TrialState.QUEUED)
    attempt = models.PositiveSmallIntegerField(default=0)
    token = models.PositiveIntegerField(default=0, help_text="Fencing token: grows with every claim.")
    heartbeat_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=500, blank=True)
    made_by = models.ForeignKey(django_settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["id"], condition=Q(state__in=["queued", "generating"]), name="pending_trials"),
            models.Index(fields=["created_at"], name="trials_by_age"),
        ]

    def __str__(self) -> str:
        return f"trial {self.pk}"


class SharingState(models.TextChoices):
    """See `states.SHARING_MOVES`."""

    QUEUED = "queued"
    SENDING = "sending"
    DONE = "done"
    FAILED = "failed"


class Sharing(models.Model):
    """A version on its way to a repository of the hub, or there."""

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="sharings")
    repository = models.CharField(max_length=193, help_text="owner/name")
    private = models.BooleanField(help_text="Where the repository is made for it.")
    state = models.CharField(max_length=10, choices=SharingState, default=SharingState.QUEUED)
    attempt = models.PositiveSmallIntegerField(default=0)
    token = models.PositiveIntegerField(default=0, help_text="Fencing token: grows with every claim.")
    heartbeat_at = models.DateTimeField(null=True)
    address = models.CharField(max_length=500, blank=True, help_text="Where it is.")
    error = models.CharField(max_length=500, blank=True)
    asked_by = models.ForeignKey(
        django_settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["id"], condition=Q(state__in=["queued", "sending"]), name="pending_sharings")]

    def __str__(self) -> str:
        return f"version {self.version_id} to {self.repository}"


class RoundPlan(models.Model):
    """What a round with these settings takes on the machine that trains, as its worker works it out; asked for by the form
    that starts one."""

    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="plans")
    digest = models.CharField(max_length=64, help_text="Of the model, the settings, what saves memory, and the card.")
    card = models.CharField(
        max_length=10,
        blank=True,
        db_default="",
        help_text="What the round is to fit into, as `plan --gpu` takes it, or `worker`; empty: whatever it takes.",
    )
    settings = models.JSONField()
    values = models.JSONField(
        null=True,
        help_text="bytes, has (bytes of the machine or card), flops, seconds, for a card options; empty until known.",
    )
    error = models.CharField(max_length=500, blank=True)
    asked_at = models.DateTimeField()

    class Meta:
        ordering = ["-asked_at"]
        constraints = [models.UniqueConstraint(fields=["project", "digest"], name="one_plan_of_settings")]

    def __str__(self) -> str:
        return f"plan {self.pk}"
