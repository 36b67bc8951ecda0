"""The forms that start a round and a trial."""

from __future__ import annotations

import re
from random import SystemRandom

from django import forms
from django.utils.translation import gettext_lazy as _

from common.texts import LONGEST
from webapp.campaigns import sizes
from webapp.campaigns.models import Project
from webapp.campaigns.training import TrainingForm
from webapp.lib import bounds
from webapp.rounds.trials import MOST_SEEDS

SHOWN = 20  # versions to choose from, the newest
USUAL_SEEDS = 4
BASE_STEPS, BASE_GUIDANCE = 40, 4.0  # what results compare the student with


class RoundForm(TrainingForm):
    """A project's training form; `key` makes a double click one round."""

    key = forms.CharField(widget=forms.HiddenInput, max_length=64)


class TrialForm(forms.Form):
    """What to look at: a prompt, versions, the base, and noise."""

    prompt = forms.CharField(
        label=_("Prompt"),
        max_length=LONGEST,
        widget=forms.TextInput(attrs={"list": "known-prompts", "dir": "auto", "autocomplete": "off"}),
        help_text=_("Anything, or one of the project's: begin to type."),
    )
    versions = forms.MultipleChoiceField(
        label=_("Versions"), required=False, choices=(), widget=forms.CheckboxSelectMultiple
    )
    base = forms.BooleanField(label=_("The base"), required=False)
    steps = forms.IntegerField(
        label=_("Steps of the base"),
        min_value=bounds.STEPS.low,
        max_value=bounds.STEPS.high,
        help_text=_("With guidance each takes as long as two of a version's."),
    )
    guidance = forms.FloatField(
        label=_("Guidance of the base"),
        min_value=bounds.GUIDANCE.low,
        max_value=bounds.GUIDANCE.high,
        help_text=_("How strongly the prompt counts; 1 is none."),
    )
    seeds = forms.CharField(
        label=_("Seeds"),
        max_length=bounds.WORD,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text=_("One row of images each, with commas between them: the same seed is the same noise."),
    )

    size = forms.CharField(
        label=_("Image size"),
        required=False,
        max_length=bounds.SIZE,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "placeholder": "1152x896"}),
        help_text=_("Width and height in pixels; empty: the model's own."),
    )

    def __init__(self, *args, project: Project, **kwargs):
        super().__init__(*args, **kwargs)
        numbers = project.versions.order_by("-number").values_list("number", flat=True)[:SHOWN]
        self.fields["versions"].choices = [(str(n), _("version %(n)s") % {"n": n}) for n in numbers]
        active = project.active_version
        usual = [n for n in {active and active.number, active and active.parent and active.parent.number} if n]
        defaults = {
            "versions": [str(n) for n in usual],
            "steps": BASE_STEPS,
            "guidance": BASE_GUIDANCE,
            "size": (sizes.of_project(project) or [""])[0],
            "seeds": ", ".join(map(str, sorted(SystemRandom().sample(range(1, 1000), USUAL_SEEDS)))),
        }
        self.initial = {**defaults, **self.initial}

    def clean_seeds(self) -> list[int]:
        """Whole numbers, in their order."""
        words = [word for word in re.split(r"[,;\s]+", self.cleaned_data["seeds"]) if word]
        try:
            return [bounds.SEED.of_text(word, "seeds") for word in words[: MOST_SEEDS + 1]]
        except bounds.OutOfBounds as error:
            raise forms.ValidationError(str(error)) from error
