"""Projects, their people and their prompts."""

from __future__ import annotations

import secrets
import uuid

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext_lazy as _

from common.settings import MemorySettings, SettingsError
from webapp.lib import bounds, texts


class Role(models.TextChoices):
    """What a member may do; each role may do all that the later ones may."""

    ADMIN = "admin", _("Admin")
    REVIEWER = "reviewer", _("Reviewer")
    ANNOTATOR = "annotator", _("Annotator")


class LabelSource(models.TextChoices):
    """Who decides on images."""

    PEOPLE = "people", _("People")
    ORACLE = "oracle", _("An oracle")
    BOTH = "both", _("An oracle, and people whose word wins")


def new_salt() -> str:
    """What nobody can guess."""
    return secrets.token_hex(16)


def few_reasons(value: object) -> None:
    """Raises ValidationError for what is no list of a few short texts."""
    if not isinstance(value, list) or len(value) > bounds.REASONS or len(value) != len(set(map(str, value))):
        raise ValidationError(_("at most %(most)s different reasons") % {"most": bounds.REASONS})
    if not all(isinstance(text, str) and len(text.strip()) > 0 and len(text) <= bounds.REASON for text in value):
        raise ValidationError(_("each reason a text of at most %(most)s characters") % {"most": bounds.REASON})


def shares(value: object) -> None:
    """Raises ValidationError for what is no object of names to numbers from 0 to 1."""
    if not isinstance(value, dict) or not all(type(v) in (int, float) and 0 <= v <= 1 for v in value.values()):
        raise ValidationError(_("an object of names to numbers from 0 to 1"))


def memory_options(value: object) -> None:
    """Raises ValidationError for what are no options of `MemorySettings` that a project may set: its machine's are not."""
    try:
        MemorySettings.from_json(value)
    except (SettingsError, TypeError, ValueError) as error:
        raise ValidationError(str(error)) from error
    if "embeddings" in value:
        raise ValidationError(_("embeddings: a folder belongs to the machine; set it in LIKESTEP_MEMORY"))


class Project(models.Model):
    """One model being aligned to one team's taste."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=120)
    model_dir = models.CharField(max_length=500, help_text="Folder of a diffusers pipeline, as the workers see it.")
    group_size = models.PositiveSmallIntegerField(default=8, validators=bounds.GROUP_SIZE.validators)
    images_made = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=bounds.MADE.validators,
        help_text=_(
            "How many images are made of a group, of which those that differ most are shown. Empty: as many as are shown."
        ),
    )
    steps = models.PositiveSmallIntegerField(default=4, validators=bounds.STEPS.validators)
    sizes = models.CharField(
        max_length=bounds.SIZES,
        blank=True,
        default="",
        db_default="",
        help_text=_(
            "Sizes of images in pixels, such as 1024x1024, 1152x896: each group gets one, unless its prompt names its own. "
            "Empty: the model's own."
        ),
    )
    overlap = models.PositiveSmallIntegerField(
        default=1, validators=bounds.OVERLAP.validators, help_text=_("How many people rate each group.")
    )
    overlap_most = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=bounds.OVERLAP.validators,
        help_text=_(
            "Up to how many people, one after the other, a group is asked about until its labels are sure enough. Empty: "
            "as many as the overlap, always."
        ),
    )
    sure = models.FloatField(
        default=0.85,
        db_default=0.85,
        validators=bounds.SURE.validators,
        help_text=_(
            "With a range: nobody more is asked once this share of a group's labels is right, as far as people's "
            "reliability tells."
        ),
    )
    answer_budget = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=bounds.ANSWERS.validators,
        help_text=_(
            "With a range: after so many answers in this project each group asks for the overlap only. Empty: no limit."
        ),
    )
    budget_spent = models.BooleanField(
        default=False, db_default=False, editable=False, help_text="So many answers are there; a worker notes it."
    )
    label_source = models.CharField(max_length=10, choices=LabelSource, default=LabelSource.PEOPLE)
    oracle = models.CharField(max_length=40, blank=True, help_text="One of the server's oracles, by its name.")
    oracle_thresholds = models.JSONField(
        default=dict,
        db_default=models.Value({}, models.JSONField()),
        blank=True,
        validators=[texts.Kept(bounds.REASONS_JSON), shares],
        help_text="By oracle, the score from which on an image is liked; without one it is as the oracle says.",
    )
    auto_start_after = models.PositiveIntegerField(
        default=0,
        validators=bounds.AUTO_START.validators,
        help_text=_("Start a round after this many newly labelled groups with signal; 0 is never."),
    )
    auto_start_by_forecast = models.BooleanField(
        default=False,
        db_default=False,
        help_text=_("Start a round as soon as the forecast says that it is worth it."),
    )
    ready_target = models.PositiveIntegerField(
        default=6, validators=bounds.READY_TARGET.validators, help_text=_("Unrated groups to keep ready.")
    )
    guidelines = models.TextField(
        blank=True, max_length=bounds.GUIDELINES, validators=bounds.at_most(bounds.GUIDELINES)
    )
    dislike_reasons = models.JSONField(
        default=list,
        db_default=models.Value([], models.JSONField()),
        blank=True,
        validators=[texts.Kept(bounds.REASONS_JSON), few_reasons],
        help_text="What people may say of a dislike, each on a key of its own; without one they are not asked.",
    )
    round_settings = models.JSONField(
        default=dict,
        blank=True,
        validators=[texts.Kept(bounds.METADATA)],
        help_text="Settings of rounds that differ from the defaults.",
    )
    round_memory = models.JSONField(
        default=dict,
        db_default=models.Value({}, models.JSONField()),
        blank=True,
        validators=[texts.Kept(bounds.MEMORY_JSON), memory_options],
        help_text="What the project's rounds save memory by, beside what the machine that trains is set to.",
    )
    active_version = models.ForeignKey(
        "rounds.ModelVersion", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    gold_rate = models.FloatField(
        default=0,
        validators=bounds.GOLD_RATE.validators,
        help_text=_("Share of the groups given out whose answer is known already; nobody is told which. 0 is none."),
    )
    tie_break = models.BooleanField(
        default=False,
        help_text=_("Ask one person more than the overlap when those who rated an image are split evenly."),
    )
    work_hour_cost = models.FloatField(
        default=0,
        validators=bounds.COST.validators,
        help_text=_("What an hour of a person's rating costs, in your currency, for the forecast; 0 if unknown."),
    )
    machine_hour_cost = models.FloatField(
        default=0,
        validators=bounds.COST.validators,
        help_text=_("What an hour of the machine that trains costs, in the same currency; 0 if unknown."),
    )
    consent = models.TextField(
        blank=True,
        db_default="",
        max_length=bounds.GUIDELINES,
        validators=bounds.at_most(bounds.GUIDELINES),
        help_text=_("People agree to it before they rate, anew when it changes; Markdown. Empty: nobody is asked."),
    )
    practice_groups = models.PositiveSmallIntegerField(
        default=0,
        db_default=0,
        validators=bounds.PRACTICE_GROUPS.validators,
        help_text=_(
            "Gold groups that annotators answer before they get real ones, and are told what is right; 0 is none."
        ),
    )
    practice_right = models.PositiveSmallIntegerField(
        default=7,
        db_default=7,
        validators=bounds.PRACTICE_RIGHT.validators,
        help_text=_("How many of these they must answer rightly."),
    )
    practice_tries = models.PositiveSmallIntegerField(
        default=3,
        db_default=3,
        validators=bounds.PRACTICE_TRIES.validators,
        help_text=_("How often a person may practise; participants of a study may once."),
    )
    practice_wait = models.PositiveSmallIntegerField(
        default=24,
        db_default=24,
        validators=bounds.PRACTICE_WAIT.validators,
        help_text=_("Hours from one try to the next."),
    )
    quota_day = models.PositiveIntegerField(
        default=0,
        db_default=0,
        validators=bounds.QUOTA.validators,
        help_text=_("Groups that an annotator may rate a day (of UTC); 0 is no limit."),
    )
    quota_all = models.PositiveIntegerField(
        default=0,
        db_default=0,
        validators=bounds.QUOTA.validators,
        help_text=_("Groups that an annotator may rate in all; 0 is no limit. A study has its own number."),
    )
    salt = models.CharField(
        max_length=64,
        default=new_salt,
        db_default="",
        editable=False,
        help_text="Of the ids that people have in exports.",
    )
    archived_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def last_asked(self) -> int:
        """Up to how many people a group is asked about, a tie's one more aside."""
        return self.overlap if self.budget_spent else max(self.overlap, self.overlap_most or 0)


class Membership(models.Model):
    """A person's role in a project."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "project"], name="one_membership")]


class Invitation(models.Model):
    """A link that makes one person a member. Only a hash of its token is kept."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="invitations")
    role = models.CharField(max_length=10, choices=Role, default=Role.ANNOTATOR)
    token_hash = models.CharField(max_length=64, unique=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    used_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")


class Split(models.TextChoices):
    """What a prompt is for; people only ever see images of training prompts."""

    TRAIN = "train", _("Train")
    VALIDATION = "validation", _("Validation")
    TEST = "test", _("Test")


class PromptQuerySet(models.QuerySet):
    """Prompts by whether images are made of them."""

    def in_use(self) -> PromptQuerySet:
        """Those that were not withdrawn."""
        return self.filter(withdrawn_at=None)


class Prompt(models.Model):
    """A prompt with what an oracle needs to judge it (GenEval's line, or the text of a word). A withdrawn one stays with
    its groups and labels, and nothing new is made of it."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="prompts")
    text = models.CharField(max_length=1000)
    metadata = models.JSONField(default=dict, blank=True, validators=[texts.Kept(bounds.METADATA)])
    input_image = models.CharField(
        max_length=64, blank=True, default="", db_default="", help_text="SHA-256 of the image that it changes."
    )
    split = models.CharField(max_length=10, choices=Split, default=Split.TRAIN)
    shown = models.PositiveIntegerField(default=0, editable=False, help_text="Groups that were made of it.")
    withdrawn_at = models.DateTimeField(null=True, editable=False)

    objects = PromptQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "text", "input_image"], name="one_prompt")]
        indexes = [models.Index(fields=["project", "split"])]

    def __str__(self) -> str:
        return self.text


class InputImage(models.Model):
    """An image that prompts of a project change; its file is named by its content and may be other projects' too."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="inputs")
    digest = models.CharField(max_length=64, help_text="SHA-256 of the file.")
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    made_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "digest"], name="one_input_image")]
        indexes = [models.Index(fields=["digest"])]

    def __str__(self) -> str:
        return self.digest


class PromptDraft(models.Model):
    """Prompts that a person has previewed: what is added later is this, not a second reading. One a person and project."""

    token = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    project = models.ForeignKey(Project, null=True, on_delete=models.CASCADE, related_name="+", help_text="Empty: new.")
    name = models.CharField(max_length=200, blank=True, help_text="Of the file, which told its format.")
    digest = models.CharField(max_length=64, help_text="Of the text and how it was to be read.")
    rows = models.JSONField(help_text="As `services.add_prompts` takes them.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["created_at"])]


class AuditEntry(models.Model):
    """Append-only: who changed what in a project."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="audit_entries")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    action = models.CharField(max_length=40)
    detail = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return self.action
