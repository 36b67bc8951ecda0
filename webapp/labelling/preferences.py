"""A person's own keys."""

from __future__ import annotations

from webapp.labelling import keys
from webapp.labelling.models import (
    Preferences,
)


def save_keys(user, chosen: dict[str, str], *, keys_on: bool) -> Preferences:
    """Keep which key does what for this person. Raises keys.KeyChoiceError that names the command."""
    differences = keys.check(chosen)
    preferences, _new = Preferences.objects.update_or_create(
        user=user, defaults={"keys": differences, "keys_on": keys_on}
    )
    return preferences
