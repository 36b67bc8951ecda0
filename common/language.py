"""Sentences of shared code, in the reader's language where somebody reads: the web app says how, once, when it starts."""

from __future__ import annotations

from collections.abc import Callable

_translate: Callable[[str], str] = str


def speak_through(translate: Callable[[str], str]) -> None:
    """From now on `gettext` asks `translate`, for example Django's."""
    global _translate
    _translate = translate


def gettext(text: str) -> str:
    """The text in the reader's language; itself where no language was set up."""
    return _translate(text)


def gettext_noop(text: str) -> str:
    """Marks a sentence for translation that is translated later, where somebody reads it."""
    return text
