"""What the gallery is asked for."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from django import forms
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from webapp.accounts.models import User
from webapp.campaigns.models import Project
from webapp.dashboard.gallery import DISLIKED, LIKED, OWN, UNDECIDED, Wanted
from webapp.lib import bounds

DAY = {
    "required": False,
    "input_formats": ["%Y-%m-%d"],
    "validators": bounds.DAYS.validators,
    "help_text": _("UTC, included."),
}


class GalleryForm(forms.Form):
    """A GET form: its query is the page's address, and the download's."""

    text = forms.CharField(
        label=_("Prompt has"), required=False, max_length=bounds.WORD, widget=forms.TextInput(attrs={"dir": "auto"})
    )
    tag = forms.CharField(label=_("Tag"), required=False, max_length=bounds.WORD)
    version = forms.TypedChoiceField(label=_("Version"), required=False, coerce=int, empty_value=None)
    verdict = forms.ChoiceField(
        label=_("Verdict"),
        required=False,
        choices=[
            ("", _("All")),
            (LIKED, _("liked")),
            (DISLIKED, _("disliked")),
            (UNDECIDED, _("undecided")),
        ],
        help_text=_("What all labels come to; with a person, what they said."),
    )
    person = forms.TypedChoiceField(
        label=_("Rated by"), required=False, coerce=int, empty_value=None, widget=forms.Select(attrs={"dir": "auto"})
    )
    since = forms.DateField(label=_("Labelled from"), widget=forms.DateInput(attrs={"type": "date"}), **DAY)
    until = forms.DateField(label=_("Labelled to"), widget=forms.DateInput(attrs={"type": "date"}), **DAY)
    disagree = forms.BooleanField(label=_("Only images that some people like and others dislike"), required=False)

    def __init__(self, *args, project: Project, **kwargs):
        super().__init__(*args, **kwargs)
        self.versions = dict(project.versions.order_by("number").values_list("number", "pk"))
        versions = [(n, _("version %(n)s") % {"n": n}) for n in self.versions]
        self.versions[OWN] = OWN  # versions are numbered from 1
        self.fields["version"].choices = [("", _("All")), *versions, (OWN, _("own images"))]
        # Members, and who left after they were measured: without a look at every decision.
        people = User.objects.filter(Q(memberships__project=project) | Q(qualities__project=project)).distinct()
        self.fields["person"].choices = [
            ("", _("Everybody")),
            *people.order_by("username").values_list("pk", "username"),
        ]

    def wanted(self) -> Wanted:
        """What a valid form asks for."""
        data = self.cleaned_data
        return Wanted(
            version=self.versions.get(data["version"]),
            text=data["text"],
            tag=data["tag"],
            verdict=data["verdict"],
            person=data["person"],
            disagree=data["disagree"],
            since=_midnight(data["since"]),
            until=_midnight(data["until"] + timedelta(days=1)) if data["until"] else None,
        )


def _midnight(day: date | None) -> datetime | None:
    return datetime.combine(day, time.min, UTC) if day else None
