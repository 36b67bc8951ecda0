"""The form that starts a round."""

from __future__ import annotations

from django import forms

from webapp.campaigns.training import TrainingForm


class RoundForm(TrainingForm):
    """A project's training form; `key` makes a double click one round."""

    key = forms.CharField(widget=forms.HiddenInput, max_length=64)
