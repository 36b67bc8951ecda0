"""What stands between a person and real groups: consent, practice, and the studies that bring people from outside."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from webapp.lib import bounds


class Terms(models.Model):
    """One version of a project's consent text, kept as people were shown it."""

    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="terms")
    number = models.PositiveIntegerField()
    text = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["project", "number"], name="one_terms_number")]


class Agreement(models.Model):
    """A person agreed to a version."""

    terms = models.ForeignKey(Terms, on_delete=models.PROTECT, related_name="agreements")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="agreements")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["terms", "user"], name="one_agreement")]


class Practice(models.Model):
    """One try of a person at known groups, in the order of `asked`."""

    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="practices")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="practices")
    number = models.PositiveSmallIntegerField()
    asked = models.JSONField(help_text="Ids of gold groups, in their order.")
    needed = models.PositiveSmallIntegerField(help_text="Right ones that pass.")
    passed = models.BooleanField(null=True, help_text="Empty: not at its end.")
    started_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["project", "user", "number"], name="one_practice_number")]


class PracticeAnswer(models.Model):
    """What a person said of one of these groups. It is no label: nothing is learned from it."""

    practice = models.ForeignKey(Practice, on_delete=models.CASCADE, related_name="answers")
    turn = models.PositiveSmallIntegerField(help_text="Its place among those asked, from 0.")
    gold = models.ForeignKey("quality.GoldGroup", on_delete=models.CASCADE, related_name="practised")
    answer = models.JSONField(help_text="Position to like (true) or dislike (false).")
    right = models.BooleanField()

    class Meta:
        ordering = ["turn"]
        constraints = [models.UniqueConstraint(fields=["practice", "turn"], name="one_practice_answer")]


CODE = RegexValidator(r"\A[A-Za-z0-9_-]*\Z", _("Use letters, digits, - and _."))


class Study(models.Model):
    """A link for people that another site sends, as Prolific does. Only a hash of its token is kept."""

    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="studies")
    name = models.CharField(max_length=bounds.STUDY_NAME)
    token_hash = models.CharField(max_length=64, unique=True)
    groups = models.PositiveIntegerField(
        default=20,
        validators=bounds.STUDY_GROUPS.validators,
        help_text=_("How many each participant rates."),
    )
    places = models.PositiveIntegerField(
        default=100,
        validators=bounds.STUDY_PLACES.validators,
        help_text=_("How many people may take part; those who fail the practice do not count."),
    )
    completion_code = models.CharField(
        max_length=bounds.CODE,
        validators=[CODE],
        help_text=_("Shown with the link back to Prolific when all groups are rated."),
    )
    screened_code = models.CharField(
        max_length=bounds.CODE,
        blank=True,
        validators=[CODE],
        help_text=_("The same for those who fail the practice; empty: they are asked to return the submission."),
    )
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "studies"

    def __str__(self) -> str:
        return self.name


class Ending(models.TextChoices):
    """How somebody's part in a study ended."""

    COMPLETED = "completed", _("Completed")
    SCREENED_OUT = "screened_out", _("Did not pass the practice")


class Participant(models.Model):
    """Somebody whom another site sent, under the id that they have there, with an account for this project alone."""

    study = models.ForeignKey(Study, on_delete=models.PROTECT, related_name="participants")
    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="participants")
    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="participant")
    pid = models.CharField(max_length=bounds.OUTSIDE_ID, help_text="PROLIFIC_PID.")
    their_study = models.CharField(max_length=bounds.OUTSIDE_ID, help_text="STUDY_ID.")
    session_hash = models.CharField(max_length=64, help_text="Of SESSION_ID: who comes back has the same one.")
    ending = models.CharField(max_length=15, choices=Ending, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["project", "pid"], name="one_participant")]
