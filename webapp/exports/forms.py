"""What goes out, and in which shape."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from django import forms
from django.utils.translation import gettext_lazy as _

from webapp.campaigns.models import Project, Split
from webapp.exports import identity
from webapp.exports.formats import FORMATS
from webapp.exports.records import OWN, Filter
from webapp.lib import bounds

CONTAINERS = {
    "jsonl": "JSONL",
    "csv": "CSV",
    "parquet": "Parquet",
    "parquet-images": _("Parquet with the images inside"),
    "json": "JSON",
    "json-images": _("JSON with the images inside"),
    "zip-jsonl": _("Zip of the images and JSONL"),
    "zip-csv": _("Zip of the images and CSV"),
    "zip-parquet": _("Zip of the images and Parquet"),
    "zip-json": _("Zip of the images and JSON"),
}


class ExportForm(forms.Form):
    """A GET form: its query is the address of the download."""

    format = forms.ChoiceField(label=_("Format"), choices=[(f.name, f.label) for f in FORMATS.values()])
    container = forms.ChoiceField(
        label=_("File"), choices=[("", _("The usual one of the format")), *CONTAINERS.items()], required=False
    )
    version = forms.TypedChoiceField(label=_("Version"), required=False, coerce=int, empty_value=None)
    split = forms.ChoiceField(label=_("Split"), required=False, choices=[("", _("All")), *Split.choices])
    since = forms.DateField(
        label=_("Labelled from"),
        required=False,
        input_formats=["%Y-%m-%d"],
        validators=bounds.DAYS.validators,
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text=_("UTC, included."),
    )
    until = forms.DateField(
        label=_("Labelled to"),
        required=False,
        input_formats=["%Y-%m-%d"],
        validators=bounds.DAYS.validators,
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text=_("UTC, included."),
    )
    annotator = forms.ChoiceField(label=_("Annotator"), required=False, widget=forms.Select(attrs={"dir": "auto"}))
    signal = forms.BooleanField(required=False, label=_("Only groups with signal"))

    def __init__(self, *args, project: Project, **kwargs):
        super().__init__(*args, **kwargs)
        numbers = project.versions.order_by("number").values_list("number", flat=True)
        versions = [(n, _("version %(n)s") % {"n": n}) for n in numbers]
        self.fields["version"].choices = [("", _("All")), *versions, (OWN, _("own images"))]
        self.annotators = {identity.pseudonym(project, u.pk): u for u in identity.people(project)}
        shown = [(who, user.username) for who, user in self.annotators.items()]
        self.fields["annotator"].choices = [("", _("Everybody")), *shown]

    def clean(self):
        """Without a container it is the format's usual one; days are in order."""
        data = super().clean()
        since, until = data.get("since"), data.get("until")
        if since and until and since > until:
            days = {"since": since.isoformat(), "until": until.isoformat()}
            self.add_error("since", _("%(since)s is after %(until)s, the last day") % days)
        if (chosen := FORMATS.get(data.get("format", ""))) is None:
            return data
        data["container"] = data.get("container") or chosen.containers[0]
        if data["container"] not in chosen.containers:
            about = {"label": chosen.label, "values": ", ".join(chosen.containers)}
            self.add_error("container", _("%(label)s comes as one of %(values)s") % about)
        return data

    def filter(self) -> Filter:
        """The chosen limits."""
        data = self.cleaned_data
        return Filter(
            version=data["version"],
            split=data["split"] or None,
            since=_midnight(data["since"]),
            until=_day_after(data["until"]),
            annotator=self.annotators[data["annotator"]].pk if data["annotator"] else None,
            signal=data["signal"],
        )


def _day_after(day: date | None) -> datetime | None:
    """The end of a day, which has one after it: `bounds.DAYS`."""
    return _midnight(day + timedelta(days=1)) if day else None


def _midnight(day: date | None) -> datetime | None:
    return datetime.combine(day, time.min, UTC) if day else None
