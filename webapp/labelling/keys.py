"""Which key does what on the rating page: the defaults, and what a person may choose instead."""

from __future__ import annotations

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

MOST_IMAGES = 24
COMMANDS = {
    "submit": gettext_lazy("Submit"),
    "like_all": gettext_lazy("Like all"),
    "dislike_all": gettext_lazy("Dislike all"),
    "invert": gettext_lazy("Invert"),
    "undo": gettext_lazy("Undo"),
    "skip": gettext_lazy("Skip"),
    "flag": gettext_lazy("Flag"),
    "zoom": gettext_lazy("Look closer"),
    "why": gettext_lazy("Say why"),
    "compare": gettext_lazy("Show the input image"),
    "guide": gettext_lazy("Guidelines"),
    "pause": gettext_lazy("Pause"),
}
DEFAULTS = {
    **dict(zip(COMMANDS, ["Enter", "l", "d", "i", "u", "s", "f", "k", "a", "o", "g", "p"], strict=True)),
    **{f"image_{n}": key for n, key in enumerate("1234567890qwertyzxcvbnm,", start=1)},
}
# Keys with a longer name that may be chosen; arrows, Tab, Space and Escape move about the page.
NAMED = ("Enter", "Backspace", "Delete", "Insert", "Home", "End", "PageUp", "PageDown")
RESERVED = ("?", " ")


class KeyChoiceError(ValueError):
    """Keys that cannot be used; `field` is the command, the message says why."""

    def __init__(self, field: str, message: str):
        super().__init__(message)
        self.field = field


def name_of(command: str) -> str:
    """What a person calls the command."""
    if command in COMMANDS:
        return str(COMMANDS[command])
    return _("Image %(n)s") % {"n": command.removeprefix("image_")}


def clean(choice: str) -> str:
    """One key as the browser names it, letters in lower case. Raises ValueError on anything else."""
    choice = choice.strip()
    named = {name.lower(): name for name in NAMED}
    if choice.lower() in named:
        return named[choice.lower()]
    if len(choice) == 1 and choice.isprintable() and choice not in RESERVED:
        return choice.lower()
    raise ValueError


def check(chosen: dict[str, str]) -> dict[str, str]:
    """The differences from the defaults, worth keeping. Raises KeyChoiceError on an unknown command, on what is no key
    and on a key that two commands would share."""
    keys = dict(DEFAULTS)
    for command, choice in chosen.items():
        if command not in DEFAULTS:
            raise KeyChoiceError(command, _("%(field)s: there is no such command") % {"field": command[:40]})
        try:
            keys[command] = clean(choice)
        except ValueError:
            message = _("%(field)s: choose one letter, digit or sign, or one of %(names)s")
            fields = {"field": name_of(command), "names": ", ".join(NAMED)}
            raise KeyChoiceError(command, message % fields) from None
    owner: dict[str, str] = {}
    for command, key in keys.items():
        if key in owner:
            message = _("%(field)s: the key %(key)s is taken by “%(other)s”; choose another one for one of the two")
            fields = {"field": name_of(command), "key": key.upper(), "other": name_of(owner[key])}
            raise KeyChoiceError(command, message % fields)
        owner[key] = command
    return {command: key for command, key in keys.items() if key != DEFAULTS[command]}


def merged(differences: dict[str, str]) -> dict[str, str]:
    """The whole map of a person. A default whose key the person gave to something else has no key."""
    mine = {command: key for command, key in differences.items() if command in DEFAULTS}
    taken = set(mine.values())
    return {command: mine.get(command, "" if key in taken else key) for command, key in DEFAULTS.items()}
