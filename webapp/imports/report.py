"""What became of each file of an import: a sentence with places, in the reader's language when it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from common.intake import Unreadable
from webapp.lib.texts import BAD

LONGEST_NAME = 200
LONGEST_VALUE = 300  # characters of what stands in a sentence
MOST_LINES = 6_000


class ImageOutcome(StrEnum):
    """How it ended for a file."""

    TAKEN = "taken"
    KNOWN = "known"
    LEFT = "left"
    SKIPPED = "skipped"


WORDS = {
    ImageOutcome.TAKEN: gettext_lazy("taken"),
    ImageOutcome.KNOWN: gettext_lazy("there already"),
    ImageOutcome.LEFT: gettext_lazy("left over"),
    ImageOutcome.SKIPPED: gettext_lazy("passed over"),
}


@dataclass(frozen=True)
class Line:
    """A file, how it ended, and why: `template % about`."""

    name: str
    outcome: ImageOutcome
    template: str
    about: dict = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, error: Unreadable) -> Line:
        """A file that is passed over."""
        return cls(name, ImageOutcome.SKIPPED, error.template, error.about)

    def to_json(self) -> list:
        """As rows keep it."""
        about = {k: v if isinstance(v, int | float) else str(v)[:LONGEST_VALUE] for k, v in self.about.items()}
        return [shown(self.name), str(self.outcome), self.template, about]

    @classmethod
    def from_json(cls, value: list) -> Line:
        """What `to_json` gave."""
        name, outcome, template, about = value
        return cls(name, ImageOutcome(outcome), template, about)

    @property
    def word(self) -> str:
        """The outcome, for people."""
        return str(WORDS[self.outcome])

    @property
    def sentence(self) -> str:
        """Why, for people."""
        return _(self.template) % self.about if self.template else ""


def shown(name: str) -> str:
    """A file's name as it can be kept and shown: its end, where it is long."""
    return BAD.sub("\ufffd", name)[-LONGEST_NAME:]
