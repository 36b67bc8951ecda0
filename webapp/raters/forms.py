"""The form of a new study."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy as _

from webapp.lib import bounds
from webapp.raters.models import Study


class StudyForm(forms.ModelForm):
    """What an admin says of a study; its link comes of it."""

    days = forms.IntegerField(
        label=_("Days"),
        initial=30,
        min_value=bounds.STUDY_DAYS.low,
        max_value=bounds.STUDY_DAYS.high,
        help_text=_("How long its link takes somebody new."),
    )

    class Meta:
        model = Study
        fields = ["name", "groups", "places", "completion_code", "screened_code"]
        labels = {
            "name": _("Name"),
            "groups": _("Groups"),
            "places": _("Places"),
            "completion_code": _("Completion code"),
            "screened_code": _("Code for who is screened out"),
        }
        widgets = {"name": forms.TextInput(attrs={"dir": "auto"})}
