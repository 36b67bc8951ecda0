"""What labels come to, how reliable people are, groups whose answer is known, and reviewers' last words."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MinLengthValidator
from django.db import models
from django.utils.translation import gettext_lazy as _


class Consensus(models.Model):
    """What the labels of a group come to; written in the transaction of each label by `services.settle`."""

    group = models.OneToOneField(
        "labelling.Group", primary_key=True, on_delete=models.CASCADE, related_name="consensus"
    )
    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="consensuses")
    rewards = models.JSONField(help_text="By position: 0..1, or null where nobody decided.")
    signal = models.BooleanField(help_text="The rewards differ, so the group can teach.")
    tie = models.BooleanField(
        default=False, help_text="All who were asked have answered, and an image is split evenly."
    )
    people = models.PositiveSmallIntegerField(default=0)
    certainty = models.FloatField(
        default=0, db_default=0, help_text="Expected share of its images whose label is right; 0: not known."
    )
    labelled_at = models.DateTimeField(help_text="Of the newest label.")

    class Meta:
        indexes = [
            models.Index(fields=["project", "signal", "labelled_at"]),
            models.Index(fields=["project", "labelled_at"]),
            models.Index(fields=["project", "-group"], condition=models.Q(tie=True), name="ties"),
            models.Index(fields=["project", "-group"], condition=models.Q(people__gt=1), name="rated_by_several"),
        ]

    def __str__(self) -> str:
        return f"consensus of group {self.group_id}"


class PersonQuality(models.Model):
    """How a person labels in a project, as the last measurement found it."""

    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="person_qualities")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="qualities")
    groups = models.PositiveIntegerField(default=0)
    labels = models.PositiveIntegerField(default=0)
    likes = models.PositiveIntegerField(default=0)
    seconds_per_image = models.FloatField(null=True, help_text="Median.")
    shared = models.PositiveIntegerField(default=0, help_text="Labels on images that others rated too.")
    agreement = models.FloatField(null=True, help_text="Share of those on which the others' majority says the same.")
    bias = models.FloatField(null=True, help_text="Likes minus the others' likes on the same images, as a share.")
    like_accuracy = models.FloatField(null=True)
    dislike_accuracy = models.FloatField(null=True)
    hasty = models.PositiveIntegerField(default=0, help_text="Groups answered faster than anybody can look at them.")
    measured_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "user"], name="one_quality_a_person")]
        verbose_name_plural = "person qualities"

    def __str__(self) -> str:
        return f"{self.user} in {self.project}"


class ProjectQuality(models.Model):
    """How far people agreed at a moment; a row a measurement that found something new."""

    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="qualities")
    alpha = models.FloatField(null=True, help_text="Krippendorff's alpha; empty while no image was rated twice.")
    prior = models.FloatField(default=0.5, help_text="Share of images that are liked, as estimated.")
    labels = models.PositiveIntegerField(help_text="Labels of people that there were.")
    shared = models.PositiveIntegerField(help_text="Labels on images that more than one person rated.")
    people = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "project qualities"


class LastLook(models.Model):
    """When a worker last looked whether there is something to measure. A ProjectQuality tells only of looks that found new
    labels of people."""

    project = models.OneToOneField(
        "campaigns.Project", primary_key=True, on_delete=models.CASCADE, related_name="last_look"
    )
    looked_at = models.DateTimeField()


class OracleQuality(models.Model):
    """How far an oracle says what people say, as a worker measured it; a row for all and one a tag."""

    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="oracle_qualities")
    oracle = models.CharField(max_length=40)
    tag = models.CharField(max_length=150, blank=True, help_text="Of the prompts; empty: all of them.")
    images = models.PositiveIntegerField(help_text="That both judged.")
    groups = models.PositiveIntegerField()
    agreement = models.FloatField(help_text="Share of the images on which both say the same.")
    low = models.FloatField(help_text="Of its 95% interval.")
    high = models.FloatField()
    threshold = models.FloatField(null=True, help_text="Of the score, fitted to reviewers' gold groups.")
    known = models.PositiveIntegerField(default=0, help_text="Images of these groups.")
    right = models.FloatField(null=True, help_text="Share of them that it judges rightly when left out of the fit.")
    measured_at = models.DateTimeField()

    class Meta:
        ordering = ["oracle", "tag"]
        constraints = [
            models.UniqueConstraint(fields=["project", "oracle", "tag"], name="one_quality_an_oracle_and_tag")
        ]
        verbose_name_plural = "oracle qualities"

    def __str__(self) -> str:
        return f"{self.oracle} in {self.project}"


class GoldKind(models.TextChoices):
    """Why a group's answer is known."""

    ORACLE = "oracle", _("An oracle is certain")
    REVIEW = "review", _("A reviewer decided")
    ATTENTION = "attention", _("Anybody who looks sees it")


class GoldGroup(models.Model):
    """A rated group that is shown again to people who have not seen it, to learn how they label."""

    group = models.OneToOneField("labelling.Group", on_delete=models.CASCADE, related_name="gold")
    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="gold_groups")
    kind = models.CharField(max_length=10, choices=GoldKind)
    answer = models.JSONField(help_text="Position to like (true) or dislike (false); positions may be left out.")
    active = models.BooleanField(default=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["project", "active"])]


class GoldAnswer(models.Model):
    """How many of a gold group's images a person saw as its answer has them."""

    gold = models.ForeignKey(GoldGroup, on_delete=models.CASCADE, related_name="answers")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="gold_answers")
    right = models.PositiveSmallIntegerField()
    total = models.PositiveSmallIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["gold", "user"], name="one_gold_answer")]


class Overrule(models.Model):
    """Append-only: a reviewer's last word on an image. The newest one counts; an empty `liked` takes it back."""

    generation = models.ForeignKey("labelling.Generation", on_delete=models.CASCADE, related_name="overrules")
    reviewer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    liked = models.BooleanField(null=True)
    reason = models.CharField(max_length=300, validators=[MinLengthValidator(3)])
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]


class QuarterCount(models.Model):
    """What was labelled in a quarter of an hour, counted by a worker, so that a chart of years adds up a few rows a day.
    Days begin at a quarter in every time zone, so each reader's days are sums of these. Flagged groups are in."""

    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="quarter_counts")
    start = models.DateTimeField()
    groups = models.PositiveIntegerField(default=0, help_text="Groups whose newest label is of that time.")
    signal = models.PositiveIntegerField(default=0, help_text="Those of them whose rewards differ.")
    labels = models.PositiveIntegerField(default=0, help_text="Labels of people.")
    likes = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["-start"]
        constraints = [models.UniqueConstraint(fields=["project", "start"], name="one_count_a_quarter")]


class VersionCount(models.Model):
    """Labels of people on a version's images, counted by a worker up to the label `counted_to`."""

    version = models.OneToOneField("rounds.ModelVersion", on_delete=models.CASCADE, related_name="label_count")
    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="version_counts")
    labels = models.PositiveIntegerField(default=0)
    likes = models.PositiveIntegerField(default=0)
    weight = models.FloatField(
        null=True, help_text="Of the labels, 1 / their images' inclusion each; empty: their number."
    )
    liked = models.FloatField(null=True, help_text="The same of the likes.")
    counted_to = models.BigIntegerField(default=0)
    counted_at = models.DateTimeField()


class ProjectCount(models.Model):
    """What a large project came to, counted by a worker about once a minute (`counts.count_large`), so that no page
    counts millions of rows. A project without one is small and counted when it is asked for."""

    project = models.OneToOneField("campaigns.Project", on_delete=models.CASCADE, related_name="count")
    states = models.JSONField(help_text="Groups by state.")
    labelled = models.PositiveIntegerField(help_text="Groups with labels.")
    signal = models.PositiveIntegerField(help_text="Those whose rewards differ, without flagged ones.")
    counted_at = models.DateTimeField()
