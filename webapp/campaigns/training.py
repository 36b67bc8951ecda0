"""The form of a project's training settings, made from the trainer's settings so that there is one definition of each."""

from __future__ import annotations

import dataclasses

from django import forms
from django.utils.html import format_html
from django.utils.translation import gettext as _

from common.settings import TDMR1Settings, label_and_help

# What an admin is likely to change; the rest is folded away.
MAIN = ("updates", "student_lr", "surrogate_updates", "prompts_per_update", "guidance_weight", "reference", "seed")
KINDS = {"int": forms.IntegerField, "float": forms.FloatField, "bool": forms.BooleanField}


class TrainingForm(forms.Form):
    """One field per setting, with the trainer's label, help, range and default. The help ends with the name that the
    setting has on the command line, in the API and in error messages."""

    def __init__(self, *args, defaults: dict | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        for f in dataclasses.fields(TDMR1Settings):
            label, explanation = label_and_help(_(f.metadata["help"]))
            options = {
                "label": label,
                "help_text": format_html("{} <code>{}</code>", explanation, f.name),
                "initial": (defaults or {}).get(f.name, f.default),
            }
            if f.metadata["choices"]:
                self.fields[f.name] = forms.ChoiceField(choices=[(c, c) for c in f.metadata["choices"]], **options)
                continue
            kind = KINDS[f.type]
            options["required"] = f.type != "bool"
            if f.type != "bool":
                options |= {"min_value": f.metadata["min"], "max_value": f.metadata["max"]}
            self.fields[f.name] = kind(**options)

    def settings(self) -> dict:
        """The chosen values."""
        return {k: v for k, v in self.cleaned_data.items() if k != "key"}

    def differences(self) -> dict:
        """The chosen values that are not the trainer's defaults."""
        defaults = TDMR1Settings().to_json()
        return {k: v for k, v in self.settings().items() if v != defaults[k]}

    def main_fields(self) -> list:
        """The fields shown at once."""
        return [self[name] for name in MAIN]

    def other_fields(self) -> list:
        """The fields folded away."""
        return [self[name] for name in self.fields if name not in (*MAIN, "key")]
