"""What somebody brings in, and what they decide about it."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy as _

from common.texts import LONGEST
from webapp.imports.raters import LONGEST as RATER
from webapp.imports.reading import Choices


class Files(forms.ClearableFileInput):
    """Several files at once."""

    allow_multiple_selected = True


class OwnImagesForm(forms.Form):
    """The files themselves are read from the request: a form's field takes one."""

    files = forms.FileField(
        label=_("Files"),
        required=False,
        widget=Files(attrs={"accept": ".zip,.png,.jpg,.jpeg,.webp,.txt,.jsonl,.parquet"}),
        help_text=_(
            "An archive (ZIP), a table with the images inside (Parquet or JSONL), or images with the texts that belong to "
            "them."
        ),
    )
    prompt = forms.CharField(
        label=_("Prompt of images that bring none"),
        required=False,
        max_length=LONGEST,
        widget=forms.TextInput(attrs={"dir": "auto", "autocomplete": "off"}),
        help_text=_("Without it such images are passed over."),
    )
    generate = forms.BooleanField(
        label=_("Make new images of their prompts too"),
        required=False,
        help_text=_("Prompts that the project does not have are added withdrawn otherwise."),
    )

    rater = forms.CharField(
        label=_("Labels of a table are those of"),
        required=False,
        max_length=RATER,
        widget=forms.TextInput(attrs={"dir": "auto", "autocomplete": "off"}),
        help_text=_("A name for who gave them. Without it they are left out, and people rate the images."),
    )

    def choices(self) -> Choices:
        """What a valid form says."""
        return Choices(**{name: self.cleaned_data[name] for name in ("prompt", "generate", "rater")})
