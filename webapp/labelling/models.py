"""Groups of generations, who is looking at them and what was decided."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q


class GroupState(models.TextChoices):
    """See `states.GROUP_MOVES`."""

    QUEUED = "queued"
    GENERATING = "generating"
    READY = "ready"
    DONE = "done"
    FAILED = "failed"
    SUPERSEDED = "superseded"


class Group(models.Model):
    """Images of one prompt by one version, to be rated together."""

    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="groups")
    prompt = models.ForeignKey("campaigns.Prompt", on_delete=models.PROTECT, related_name="groups")
    version = models.ForeignKey("rounds.ModelVersion", on_delete=models.PROTECT, related_name="groups")
    state = models.CharField(max_length=10, choices=GroupState, default=GroupState.QUEUED)
    first_seed = models.BigIntegerField(help_text="Image n has noise seed first_seed + n.")
    size = models.PositiveSmallIntegerField()
    trajectory_file = models.CharField(max_length=300, blank=True)
    attempt = models.PositiveSmallIntegerField(default=0)
    owner = models.CharField(max_length=200, blank=True)
    token = models.PositiveIntegerField(default=0, help_text="Fencing token: grows with every claim.")
    heartbeat_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    decisions = models.PositiveSmallIntegerField(default=0, help_text="People who submitted it.")

    class Meta:
        indexes = [models.Index(fields=["project", "state", "id"])]

    def __str__(self) -> str:
        return f"group {self.pk}"


class Generation(models.Model):
    """One image."""

    group = models.ForeignKey(Group, on_delete=models.CASCADE, related_name="generations")
    position = models.PositiveSmallIntegerField()
    seed = models.BigIntegerField()
    image = models.CharField(max_length=300)
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()

    class Meta:
        ordering = ["position"]
        constraints = [models.UniqueConstraint(fields=["group", "position"], name="one_image_a_position")]


class Lease(models.Model):
    """A person is looking at a group; it comes back to the queue when the lease runs out."""

    group = models.ForeignKey(Group, on_delete=models.CASCADE, related_name="leases")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="leases")
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["group", "user"], name="one_lease")]


class Label(models.Model):
    """The current like or dislike of an image by a person or an oracle."""

    generation = models.ForeignKey(Generation, on_delete=models.CASCADE, related_name="labels")
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="labels")
    oracle = models.CharField(max_length=40, blank=True)
    liked = models.BooleanField()
    score = models.FloatField(null=True, help_text="An oracle's score in 0..1.")
    reason = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
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


class LabelEvent(models.Model):
    """Append-only history: every label given and taken back."""

    generation = models.ForeignKey(Generation, on_delete=models.CASCADE, related_name="label_events")
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    oracle = models.CharField(max_length=40, blank=True)
    liked = models.BooleanField(null=True, help_text="Empty: the label was taken back.")
    created_at = models.DateTimeField(auto_now_add=True)


class Outcome(models.TextChoices):
    """How a person's look at a group ended."""

    SUBMITTED = "submitted"
    SKIPPED = "skipped"


class GroupDecision(models.Model):
    """A person is through with a group. Skipped is not disliked: it leaves no labels."""

    group = models.ForeignKey(Group, on_delete=models.CASCADE, related_name="group_decisions")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="group_decisions")
    outcome = models.CharField(max_length=10, choices=Outcome)
    reason = models.CharField(max_length=300, blank=True)
    seconds = models.FloatField(default=0)
    idempotency_key = models.CharField(max_length=64)
    answer = models.JSONField(default=dict, help_text="What was submitted, to tell a replay from a conflict.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["group", "user"], name="one_decision"),
            models.UniqueConstraint(fields=["user", "idempotency_key"], name="one_decision_a_key"),
        ]
        indexes = [models.Index(fields=["user", "-created_at"])]
