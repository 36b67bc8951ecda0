"""Forms of a project: its settings, and prompts by upload or paste with a preview."""

from __future__ import annotations

import hashlib
import json

from django import forms
from django.conf import settings
from django.utils.text import slugify
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from common import prompt_files
from common.texts import LONGEST
from webapp.campaigns import sizes
from webapp.campaigns.models import Project, PromptDraft, Split
from webapp.campaigns.queries import models_for
from webapp.campaigns.services import (
    EDITABLE,
    CampaignError,
    check_label_source,
    check_made,
    check_practice,
    check_range,
    find_draft,
    keep_draft,
    prompt_check,
)
from webapp.lib import bounds

MOST_TEXTS = 50  # prompts that are added with an image
MAIN = (
    "name",
    "group_size",
    "images_made",
    "sizes",
    "overlap",
    "overlap_most",
    "sure",
    "answer_budget",
    "label_source",
    "oracle",
    "ready_target",
    "auto_start_after",
    "gold_rate",
    "work_hour_cost",
    "machine_hour_cost",
)
OUTSIDE = ("practice_groups", "practice_right", "practice_tries", "practice_wait", "quota_day", "quota_all")


def _beside_people(label: object, measured) -> object:
    """An oracle's name, and how far it says what people say where that was measured."""
    if measured is None:
        return label
    shares = {"share": measured.agreement, "low": measured.low, "high": measured.high}
    said = {name: f"{100 * value:.0f}" for name, value in shares.items()}
    return gettext("%(oracle)s: as people on %(share)s%% of images (%(low)s to %(high)s)") % {"oracle": label, **said}


class LinesField(forms.CharField):
    """A list of texts, one a line."""

    widget = forms.Textarea

    def prepare_value(self, value: object) -> object:
        """Lines for the text field."""
        return "\n".join(map(str, value)) if isinstance(value, list) else value

    def to_python(self, value: object) -> list[str]:
        """Lines with something in them; a list is one already."""
        lines = value if isinstance(value, list) else (value or "").splitlines()
        return [line.strip() for line in lines if line.strip()]

    def has_changed(self, initial: object, data: object) -> bool:
        """Whether the lines differ."""
        return self.to_python(initial) != self.to_python(data)


class ProjectForm(forms.ModelForm):
    """The settings an admin may change while a project runs; those of rounds, and oracles'
    thresholds, have forms of their own."""

    oracle = forms.ChoiceField(
        label=_("Oracle"),
        choices=lambda: [("", _("None")), *((name, name) for name in settings.LIKESTEP_ORACLES)],
        required=False,
    )
    dislike_reasons = LinesField(
        label=_("Reasons for a dislike"),
        required=False,
        max_length=bounds.REASONS_JSON,
        help_text=_(
            "One a line, at most nine: people may then give one with a key, and mark a place on the image. Empty: they are "
            "not asked."
        ),
        widget=forms.Textarea(attrs={"rows": 3, "dir": "auto"}),
    )

    class Meta:
        model = Project
        fields = [name for name in EDITABLE if name not in ("round_settings", "round_memory", "oracle_thresholds")]
        labels = {
            "name": _("Name"),
            "group_size": _("Group size"),
            "images_made": _("Images made"),
            "sizes": _("Image sizes"),
            "steps": _("Steps"),
            "overlap": _("Overlap"),
            "overlap_most": _("Overlap at most"),
            "sure": _("Sure enough"),
            "answer_budget": _("Budget of answers"),
            "label_source": _("Label source"),
            "ready_target": _("Ready target"),
            "auto_start_after": _("Auto start after"),
            "auto_start_by_forecast": _("Auto start by forecast"),
            "gold_rate": _("Gold rate"),
            "work_hour_cost": _("Cost of an hour of rating"),
            "machine_hour_cost": _("Cost of an hour of the machine"),
            "tie_break": _("Tie break"),
            "guidelines": _("Guidelines"),
            "consent": _("Consent"),
            "practice_groups": _("Practice groups"),
            "practice_right": _("Right ones to pass"),
            "practice_tries": _("Tries at the practice"),
            "practice_wait": _("Hours between tries"),
            "quota_day": _("Groups a person and day"),
            "quota_all": _("Groups a person in all"),
        }
        help_texts = {
            "overlap": _(
                "How many people rate each group. Lowered, it finishes groups that have enough answers; raised, it "
                "opens no finished one again."
            ),
        }
        widgets = {
            "name": forms.TextInput(attrs={"dir": "auto"}),
            "sizes": forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
            "guidelines": forms.Textarea(attrs={"rows": 5, "dir": "auto"}),
            "consent": forms.Textarea(attrs={"rows": 5, "dir": "auto"}),
        }

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name in OUTSIDE:
            self.fields[name].required = False  # what is not sent stays as it is
        self.fields["sure"].required = False
        if self.instance.pk:
            known = {row.oracle: row for row in self.instance.oracle_qualities.filter(tag="")}
            choices = [(name, _beside_people(label, known.get(name))) for name, label in self.fields["oracle"].choices]
            self.fields["oracle"].choices = choices

    def clean_sizes(self) -> str:
        """Sizes that the model can make, as they are kept."""
        try:
            return sizes.read(self.cleaned_data["sizes"], self.model_dir())
        except ValueError as error:
            raise forms.ValidationError(str(error).partition(": ")[2]) from error

    def model_dir(self) -> str:
        """The model's folder."""
        return self.instance.model_dir

    def clean(self):
        """An oracle is chosen where one labels."""
        data = super().clean()
        for name in OUTSIDE:
            if data.get(name) is None and name not in self.errors:
                data[name] = getattr(self.instance, name)
        try:
            check_label_source(data.get("label_source", ""), data.get("oracle", ""))
        except CampaignError as error:
            self.add_error("oracle", str(error).partition(": ")[2])
        try:
            check_practice(data.get("practice_groups"), data.get("practice_right"))
        except CampaignError as error:
            self.add_error("practice_right", str(error).partition(": ")[2])
        try:
            check_range(data.get("overlap") or 1, data.get("overlap_most"))
        except CampaignError as error:
            self.add_error("overlap_most", str(error).partition(": ")[2])
        try:
            check_made(data.get("group_size") or bounds.GROUP_SIZE.low, data.get("images_made"))
        except CampaignError as error:
            self.add_error("images_made", str(error).partition(": ")[2])
        return data

    def clean_sure(self) -> float:
        """As it is where the field is empty."""
        return self.cleaned_data["sure"] or self.instance.sure

    def main_fields(self) -> list:
        """Short fields, for columns."""
        return [self[name] for name in MAIN]

    def outside_fields(self) -> list:
        """What is asked of people from outside, and how much they may do."""
        return [self[name] for name in OUTSIDE]

    def outside_errors(self) -> bool:
        """Whether one of these is wrong, so that it is shown."""
        return any(self[name].errors for name in (*OUTSIDE, "consent"))


class PromptsForm(forms.Form):
    """A file, or text that is pasted; what was uploaded comes back in the text field, where lines can be mended."""

    prompts_file = forms.FileField(
        label=_("File"),
        required=False,
        help_text=_("Text (a prompt a line), CSV with a column prompt, JSON or JSONL (GenEval's), or Parquet."),
    )
    prompts = forms.CharField(
        label=_("Prompts"),
        required=False,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 8, "spellcheck": "false", "dir": "auto"}),
    )
    validation_share = forms.FloatField(
        label=_("For validation"),
        min_value=0,
        max_value=0.5,
        initial=0.1,
        help_text=_(
            "Share of the prompts without a split, by their hash, that people never see and that score versions."
        ),
    )

    draft = forms.UUIDField(required=False, widget=forms.HiddenInput)
    column_prompt = forms.CharField(label=_("Column of prompts"), required=False, max_length=100)
    column_split = forms.CharField(label=_("Column of splits"), required=False, max_length=100)
    column_metadata = forms.CharField(
        label=_("Column of metadata"),
        required=False,
        max_length=100,
        help_text=_("For CSV, JSONL and Parquet whose columns have other names than prompt, split and metadata."),
    )

    parsed: prompt_files.Parsed | None = None
    text = name = ""
    known: PromptDraft | None = None  # what was previewed

    def __init__(self, *args, user, project: Project | None = None, oracle: str = "", model: str = "", **kwargs):
        super().__init__(*args, **kwargs)
        self.user, self.project, self.oracle, self.model = user, project, oracle, model

    def clean(self):
        """Read the prompts; `parsed` holds rows and problems. What was previewed is read as the format it was then."""
        data = super().clean()
        upload = data.get("prompts_file")
        self.text = data.get("prompts") or ""
        if data.get("draft") and upload is None:
            self.known = find_draft(self.user, self.project, data["draft"])
        name = self.name = self.known.name if self.known else ""
        if upload is not None:
            name = self.name = upload.name
            try:
                prompt_files.check_size(upload.size, settings.LIKESTEP_PROMPTS_LIMIT)
                self.text = prompt_files.decode(upload.read(), name, most=settings.LIKESTEP_PROMPTS_LIMIT)
            except ValueError as error:
                self.add_error("prompts_file", str(error).partition(": ")[2])
                return data
        columns = {field: data.get(f"column_{field}") or "" for field in prompt_files.FIELDS}
        self.parsed = prompt_files.parse(
            self.text,
            name=name,
            validation=data.get("validation_share") or 0,
            columns=columns,
            check=prompt_check(self.oracle),
            model=self.model or None,
        )
        if not self.parsed.rows and not self.parsed.errors:
            self.add_error("prompts", _("give at least one prompt"))
        return data

    def digest(self) -> str:
        """Of the text and how it is to be read; line ends are a browser's matter."""
        text = self.text.replace("\r\n", "\n").replace("\r", "\n")
        how = {k: v for k, v in self.cleaned_data.items() if k == "validation_share" or k.startswith("column_")}
        return hashlib.sha256(json.dumps([text, how], sort_keys=True).encode()).hexdigest()

    def changed(self) -> bool:
        """Whether this is not what was previewed; a draft that is gone counts as changed."""
        return bool(self.cleaned_data.get("draft")) and (self.known is None or self.known.digest != self.digest())

    def rows(self) -> list[dict]:
        """The rows to add: the previewed ones where there was a preview."""
        return self.known.rows if self.known else [row.plain() for row in self.parsed.rows]

    def columns(self) -> list:
        """The fields of the column map."""
        return [self[f"column_{field}"] for field in prompt_files.FIELDS]

    def maps_columns(self) -> bool:
        """Whether one of them is filled in."""
        return any(field.value() for field in self.columns())

    def shown_again(self) -> PromptsForm:
        """The form with the uploaded text in its text field, and its rows kept as a draft if they can be imported."""
        data = self.data.copy()
        data["prompts"] = self.text
        data["draft"] = ""
        if self.ready():
            rows = [row.plain() for row in self.parsed.rows]
            kept = keep_draft(self.user, self.project, name=self.name, digest=self.digest(), rows=rows)
            data["draft"] = str(kept.pk)
        again = type(self)(data, user=self.user, project=self.project, oracle=self.oracle)
        again.full_clean()
        again.parsed = self.parsed
        again._errors = self.errors
        return again

    def ready(self) -> bool:
        """Whether every line can be imported."""
        return self.is_valid() and self.parsed is not None and not self.parsed.errors


class InputForm(forms.Form):
    """An image, and what is to be made of it."""

    image = forms.FileField(label=_("Image"), help_text=_("PNG or WebP, with sides of 64 pixels or more."))
    texts = LinesField(
        label=_("What to change"),
        max_length=LONGEST * MOST_TEXTS,
        help_text=_("A prompt a line; each gets this image."),
        widget=forms.Textarea(attrs={"rows": 3, "dir": "auto"}),
    )
    split = forms.ChoiceField(label=_("Split"), choices=Split.choices)

    def clean_texts(self) -> list[str]:
        """A few lines."""
        if len(lines := self.cleaned_data["texts"]) > MOST_TEXTS:
            raise forms.ValidationError(_("at most %(most)s lines") % {"most": MOST_TEXTS})
        return lines


class NewProjectForm(ProjectForm):
    """A project from zero: an address, a model, the settings."""

    slug = forms.SlugField(
        label=_("Address"),
        required=False,
        max_length=50,
        help_text=_("Part of the project's links; made from the name."),
    )
    model = forms.ChoiceField(
        label=_("Model"),
        help_text=_("Where the project starts from."),
        widget=forms.Select(attrs={"dir": "auto"}),
    )

    class Meta(ProjectForm.Meta):
        fields = [*ProjectForm.Meta.fields, "steps"]

    def __init__(self, *args, user, **kwargs):
        super().__init__(*args, **kwargs)
        self.models = models_for(user)
        self.fields["model"].choices = [(value, label) for value, (label, *_dirs) in self.models.items()]

    def clean_slug(self) -> str:
        """Given, or made from the name; free."""
        slug = self.cleaned_data["slug"] or slugify(self.data.get(self.add_prefix("name"), ""))[:50]
        if not slug:
            raise forms.ValidationError(_("give an address of letters, digits and hyphens"))
        if Project.objects.filter(slug=slug).exists():
            raise forms.ValidationError(_("a project has this address already; choose another"))
        return slug

    def model_dir(self) -> str:
        """The chosen model's folder; empty where none of the choices was sent."""
        return self.models.get(self.data.get(self.add_prefix("model")), ("", ""))[1]

    def values(self) -> dict:
        """What `services.create_project` takes beside the prompts."""
        data = dict(self.cleaned_data)
        _label, model_dir, student_dir = self.models[data.pop("model")]
        return {**data, "model_dir": model_dir, "student_dir": student_dir}

    def main_fields(self) -> list:
        """Short fields, for columns."""
        return [self[name] for name in ("name", "slug", "model", "steps", *MAIN[1:])]
