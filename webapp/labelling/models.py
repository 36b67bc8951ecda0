"""Groups of generations, who is looking at them and what was decided."""

from __future__ import annotations

import re
from datetime import datetime

from django.conf import settings
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from webapp.lib import bounds


class GroupState(models.TextChoices):
    """See `states.GROUP_MOVES`."""

    QUEUED = "queued"
    GENERATING = "generating"
    READY = "ready"
    DONE = "done"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    FLAGGED = "flagged"


class GroupQuerySet(models.QuerySet):
    """Groups that are dropped together."""

    def supersede(self) -> int:
        """Drop those that nobody has rated or is looking at; returns how many."""
        seen = Lease.objects.filter(expires_at__gt=timezone.now()).values("group")
        waiting = self.filter(state__in=[GroupState.QUEUED, GroupState.READY], decisions=0).exclude(pk__in=seen)
        return waiting.update(state=GroupState.SUPERSEDED)


class Group(models.Model):
    """Images of one prompt to be rated together: by one version, or somebody's own, of unknown origin."""

    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="groups")
    prompt = models.ForeignKey("campaigns.Prompt", on_delete=models.PROTECT, related_name="groups", db_index=False)
    version = models.ForeignKey(
        "rounds.ModelVersion",
        null=True,
        on_delete=models.PROTECT,
        related_name="groups",
        db_index=False,
        help_text="Empty: images that somebody brought in.",
    )
    state = models.CharField(max_length=10, choices=GroupState, default=GroupState.QUEUED)
    first_seed = models.BigIntegerField(
        null=True, help_text="The n-th image made has noise seed first_seed + n; empty: not known."
    )
    size = models.PositiveSmallIntegerField(help_text="Images that are shown.")
    image_size = models.CharField(
        max_length=bounds.SIZE, blank=True, default="", db_default="", help_text="As 1152x896; empty: the model's own."
    )
    input_image = models.CharField(
        max_length=64, blank=True, default="", db_default="", help_text="SHA-256 of the image that its prompt changed."
    )
    made = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="Images that were made, of which those shown were chosen; 0: as many."
    )
    trajectory_file = models.CharField(max_length=300, blank=True)
    attempt = models.PositiveSmallIntegerField(default=0)
    owner = models.CharField(max_length=200, blank=True)
    token = models.PositiveIntegerField(default=0, help_text="Fencing token: grows with every claim.")
    heartbeat_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    decisions = models.PositiveSmallIntegerField(default=0, help_text="People who submitted it.")
    chance = models.FloatField(
        default=1,
        db_default=1,
        help_text="Of its prompt when it was chosen, over that of an even draw; estimates of all prompts weigh by 1 / it.",
    )

    objects = GroupQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["project", "state", "id"]),
            models.Index(fields=["project", "id"]),
            models.Index(fields=["version", "id"], name="groups_of_a_version"),
            models.Index(fields=["prompt", "id"], name="groups_of_a_prompt"),
            models.Index(fields=["project", "-id"], condition=~Q(error=""), name="groups_with_an_error"),
        ]

    def __str__(self) -> str:
        return f"group {self.pk}"

    @property
    def is_own(self) -> bool:
        """Whether somebody brought its images in; a worker encodes them instead of making any."""
        return self.version_id is None

    @property
    def made_by(self) -> str:
        """Where its images come from, for people."""
        return str(_("own images")) if self.is_own else str(self.version)

    @property
    def seeds(self) -> range:
        """Of the noise of all its images, the ones that are not shown included."""
        return range(self.first_seed, self.first_seed + max(self.size, self.made))


class Generation(models.Model):
    """One image."""

    group = models.ForeignKey(Group, on_delete=models.CASCADE, related_name="generations")
    position = models.PositiveSmallIntegerField()
    seed = models.BigIntegerField(null=True, help_text="Of its noise; empty: not known.")
    image = models.CharField(max_length=300)
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    inclusion = models.FloatField(
        default=1,
        db_default=1,
        help_text="Its chance to be shown of the images made; estimates of all images made weigh it by 1 / it.",
    )

    class Meta:
        ordering = ["position"]
        constraints = [models.UniqueConstraint(fields=["group", "position"], name="one_image_a_position")]


class Scoring(models.Model):
    """A group that the project's oracle has yet to label: written with its images, gone with the labels."""

    group = models.OneToOneField(Group, on_delete=models.CASCADE, related_name="scoring")
    next_at = models.DateTimeField(null=True, db_index=True, help_text="Empty: given up.")
    attempts = models.PositiveSmallIntegerField(default=0, db_default=0)
    error = models.CharField(max_length=500, blank=True, default="", db_default="")


class LeaseQuerySet(models.QuerySet):
    """Leases that begin or end together."""

    def set_end(self, end: datetime) -> None:
        """They end then. Rows are locked in their order, whoever does it: two tabs of one person would else wait for each
        other."""
        with transaction.atomic(savepoint=False):
            list(self.order_by("pk").select_for_update(of=("self",)).values_list("pk"))
            self.update(expires_at=end)


class Lease(models.Model):
    """A person was given a group. While the lease lasts nobody else gets it in their place; when it runs out the group is
    back in the queue and the row stays: only who was given a group may decide on it, also late."""

    group = models.ForeignKey(Group, on_delete=models.CASCADE, related_name="leases")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="leases")
    # The name and the group's number are bound to each other by a hash: that each is one person's once needs no constraint,
    # which the version before, that knows no names, would violate while it is being replaced.
    task = models.CharField(
        max_length=32,
        blank=True,
        default="",
        db_default="",
        help_text="The name the person knows the group by; it tells nothing of it. Without one it is the number.",
    )
    expires_at = models.DateTimeField(db_index=True)
    decided = models.BooleanField(default=False, db_default=False, help_text="The person is through with it.")

    objects = LeaseQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["group", "user"], name="one_lease")]
        indexes = [
            models.Index(fields=["user", "id"], condition=Q(decided=False), name="undecided_leases"),
            models.Index(fields=["user", "task"], name="lease_tasks"),
        ]

    @property
    def name(self) -> str:
        """What the person knows the group by. A page of the version before there were names knows its number."""
        return self.task or str(self.group_id)

    @staticmethod
    def named(name: str) -> Q:
        """Leases with that `name`."""
        if re.fullmatch(r"[1-9][0-9]{0,17}", name):
            return Q(task=name) | Q(task="", group=int(name))
        return Q(task=name)


class Label(models.Model):
    """The current like or dislike of an image by a person or an oracle."""

    generation = models.ForeignKey(Generation, on_delete=models.CASCADE, related_name="labels")
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="labels")
    oracle = models.CharField(max_length=40, blank=True)
    liked = models.BooleanField()
    score = models.FloatField(null=True, help_text="An oracle's score in 0..1.")
    reason = models.CharField(max_length=300, blank=True)
    box = models.JSONField(
        null=True,
        help_text="What a dislike is about: left, top, width, height as shares of the image; empty: all of it.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["generation"], condition=Q(annotator__isnull=False) & ~Q(reason=""), name="labels_with_a_reason"
            )
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["generation", "annotator"], condition=Q(annotator__isnull=False), name="one_label_a_person"
            ),
            models.UniqueConstraint(
                fields=["generation", "oracle"], condition=Q(annotator__isnull=True), name="one_label_an_oracle"
            ),
            models.CheckConstraint(
                condition=Q(annotator__isnull=False, oracle="") | (Q(annotator__isnull=True) & ~Q(oracle="")),
                name="label_of_a_person_or_an_oracle",
            ),
        ]


LABEL_WEIGHT = models.Value(1.0) / models.F("generation__inclusion")  # of a label among those of all images made


class Cause(models.TextChoices):
    """Why an entry of the history is there, where nobody gave a label or took it back."""

    FLAGGED = "flagged"
    RESTORED = "restored"
    OVERRULED = "overruled"


class Change(models.TextChoices):
    """What an entry of the history tells."""

    LABELLED = "labelled"
    UNDONE = "undone"
    LEFT_OUT = "left_out"
    RESTORED = "restored"
    OVERRULED = "overruled"


CHANGES = {Cause.FLAGGED: Change.LEFT_OUT, Cause.RESTORED: Change.RESTORED, Cause.OVERRULED: Change.OVERRULED}


class LabelEvent(models.Model):
    """Append-only history of what became of labels: given, taken back, left out with a flagged group and restored, and
    reviewers' last words. `history` writes it and numbers it for those who follow."""

    generation = models.ForeignKey(Generation, on_delete=models.CASCADE, related_name="label_events")
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    oracle = models.CharField(max_length=40, blank=True)
    liked = models.BooleanField(
        null=True, help_text="Empty: the label, or the reviewer's word, does not count any more."
    )
    score = models.FloatField(null=True, help_text="An oracle's score in 0..1.")
    reason = models.CharField(max_length=300, blank=True, default="", db_default="", help_text="As the label's.")
    box = models.JSONField(null=True, help_text="As the label's.")
    cause = models.CharField(max_length=10, choices=Cause, blank=True, default="", db_default="")
    number = models.BigIntegerField(
        null=True, help_text="Its place among all that is committed; empty until somebody reads."
    )
    # What the image's group says, written with the number.
    project = models.ForeignKey(
        "campaigns.Project", null=True, on_delete=models.CASCADE, related_name="+", db_index=False, db_constraint=False
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [
            models.Index(fields=["id"], condition=Q(number__isnull=True), name="events_without_a_number"),
            models.Index(fields=["project", "number"], condition=Q(number__isnull=False), name="events_to_follow"),
            models.Index(fields=["number"], condition=Q(number__isnull=False), name="numbered_events"),
        ]

    @property
    def change(self) -> Change:
        """What it tells."""
        return CHANGES.get(self.cause) or (Change.UNDONE if self.liked is None else Change.LABELLED)


class Outcome(models.TextChoices):
    """How a person's look at a group ended."""

    SUBMITTED = "submitted"
    SKIPPED = "skipped"
    FLAGGED = "flagged"


class SkipReason(models.TextChoices):
    """Why a group was left without labels."""

    TORN = "torn", _("I cannot decide")
    UNCLEAR = "unclear", _("The prompt is unclear")
    UNKNOWN = "unknown", _("I do not know the subject")
    ALIKE = "alike", _("The images are all alike")
    OTHER = "other", _("Another reason")


class GroupDecision(models.Model):
    """A person is through with a group. Skipped and flagged are not disliked: they leave no labels."""

    group = models.ForeignKey(Group, on_delete=models.CASCADE, related_name="group_decisions")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="group_decisions")
    outcome = models.CharField(max_length=10, choices=Outcome)
    reason = models.CharField(max_length=300, blank=True, help_text="Why it was skipped: a SkipReason, then a note.")
    seconds = models.FloatField(default=0)
    idempotency_key = models.CharField(max_length=64)
    answer = models.JSONField(default=dict, help_text="What was submitted, to tell a replay from a conflict.")
    day = models.DateField(null=True, help_text="Where the person was: the tally it counts in. Empty: UTC.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["group", "user"], name="one_decision"),
            models.UniqueConstraint(fields=["user", "idempotency_key"], name="one_decision_a_key"),
        ]
        indexes = [
            models.Index(fields=["user", "-created_at"]),
            models.Index(fields=["user", "-group"], name="groups_of_a_person"),
        ]


class UndoneDecision(models.Model):
    """A decision that was taken back. Its key stays used: a copy of the request that arrives late must not count."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="undone_decisions")
    group = models.ForeignKey(Group, null=True, on_delete=models.CASCADE, related_name="undone_decisions")
    idempotency_key = models.CharField(max_length=64)
    outcome = models.CharField(max_length=10, choices=Outcome, blank=True)
    answer = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "idempotency_key"], name="undone_once")]


class FlagKind(models.TextChoices):
    """What is wrong with images that nobody should be asked to rate."""

    BROKEN = "broken", _("Broken: noise, an error, not an image")
    UNSAFE = "unsafe", _("Unsafe: should not be shown to people")


class Flag(models.Model):
    """A person reports a group, or one image of it. The group leaves the queue until a reviewer has looked."""

    group = models.ForeignKey(Group, on_delete=models.CASCADE, related_name="flags")
    generation = models.ForeignKey(
        Generation, null=True, blank=True, on_delete=models.CASCADE, related_name="flags", help_text="Empty: all of it."
    )
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="flags")
    kind = models.CharField(max_length=10, choices=FlagKind)
    note = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    resolved_at = models.DateTimeField(null=True)
    resolved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="resolved_flags"
    )
    restored = models.BooleanField(null=True, help_text="Whether the reviewer put the group back.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["group", "user"], name="one_flag_a_person")]


class Example(models.Model):
    """An image that shows people what the guidelines mean."""

    generation = models.OneToOneField(Generation, on_delete=models.CASCADE, related_name="example")
    good = models.BooleanField(help_text="To be liked.")
    note = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["-good", "pk"]


class Tally(models.Model):
    """What a person did in a project on a day of theirs: one row to read where decisions would be thousands."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="tallies")
    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="tallies")
    day = models.DateField()
    groups = models.IntegerField(default=0, help_text="Submitted ones.")
    images = models.IntegerField(default=0)
    likes = models.IntegerField(default=0)
    skips = models.IntegerField(default=0, help_text="Skipped or flagged groups.")
    seconds = models.FloatField(default=0, help_text="Spent on submitted groups, pauses left out.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "project", "day"], name="one_tally_a_day")]


class Preferences(models.Model):
    """How a person likes to work, the same on every machine."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="preferences")
    keys = models.JSONField(default=dict, help_text="Command to key, only what differs from `keys.DEFAULTS`.")
    keys_on = models.BooleanField(default=True)
