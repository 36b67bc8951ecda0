"""What goes out, and in which shape."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from django import forms
from django.utils.translation import gettext_lazy as _

from webapp.campaigns.models import Project, Split
from webapp.exports.formats import FORMATS
from webapp.exports.records import Filter

CONTAINERS = {
    "jsonl": "JSONL",
    "parquet": "Parquet",
    "parquet-images": _("Parquet with the images inside"),
    "zip-jsonl": _("Zip of the images and JSONL"),
    "zip-parquet": _("Zip of the images and Parquet"),
}


class ExportForm(forms.Form):
    """A GET form: its query is the address of the download."""

    format = forms.ChoiceField(label=_("Format"), choices=[(f.name, f.label) for f in FORMATS.values()])
    container = forms.ChoiceField(label=_("File"), choices=list(CONTAINERS.items()), required=False)
    version = forms.TypedChoiceField(label=_("Version"), required=False, coerce=int, empty_value=None)
    split = forms.ChoiceField(label=_("Split"), required=False, choices=[("", _("All")), *Split.choices])
    since = forms.DateField(
        label=_("Labelled from"),
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text=_("UTC, included."),
    )
    until = forms.DateField(
        label=_("Labelled to"),
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text=_("UTC, included."),
    )
    annotator = forms.ChoiceField(label=_("Annotator"), required=False)
    signal = forms.BooleanField(required=False, label=_("Only groups with signal"))

    def __init__(self, *args, project: Project, **kwargs):
        super().__init__(*args, **kwargs)
        numbers = project.versions.order_by("number").values_list("number", flat=True)
        self.fields["version"].choices = [("", _("All")), *((n, _("version %(n)s") % {"n": n}) for n in numbers)]
        names = project.memberships.order_by("user__username").values_list("user__username", flat=True)
        self.fields["annotator"].choices = [("", _("Everybody")), *((n, n) for n in names)]

    def clean(self):
        """Images fit only where the format has a place for them."""
        data = super().clean()
        chosen = FORMATS.get(data.get("format", ""))
        data["container"] = container = data.get("container") or "jsonl"
        if chosen is not None and container == "parquet-images" and not chosen.images:
            self.add_error(
                "container", _("%(label)s names its images in lists; choose a zip instead") % {"label": chosen.label}
            )
        if chosen is not None and chosen.schema is None and container in ("parquet", "zip-parquet"):
            self.add_error(
                "container",
                _("%(label)s has no Parquet form; choose JSONL or the zip with it") % {"label": chosen.label},
            )
        return data

    def filter(self) -> Filter:
        """The chosen limits."""
        data = self.cleaned_data
        return Filter(
            version=data["version"],
            split=data["split"] or None,
            since=_midnight(data["since"]),
            until=_midnight(data["until"] + timedelta(days=1)) if data["until"] else None,
            annotator=data["annotator"] or None,
            signal=data["signal"],
        )


def _midnight(day) -> datetime | None:
    return datetime.combine(day, time.min, UTC) if day else None
