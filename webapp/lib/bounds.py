"""What every number and text that somebody may set lies between. Models, forms, the API, the admin and the pages' requests
all take it from here; `tests/webapp/test_bounds.py` has the table and fails for a field that is missing from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from django.core.validators import MaxLengthValidator, MaxValueValidator, MinValueValidator
from django.utils.translation import gettext as _

from common.numbers import whole_between


class OutOfBounds(ValueError):
    """A number that is none or too small or large; the message names the field and its range."""


@dataclass(frozen=True)
class Range:
    """A range of numbers or days, both ends included."""

    low: int | float | date
    high: int | float | date

    @property
    def validators(self) -> list:
        """For a model's or a form's field."""
        return [MinValueValidator(self.low), MaxValueValidator(self.high)]

    @property
    def limits(self) -> dict[str, int | float]:
        """For a field of the API's schemas."""
        return {"ge": self.low, "le": self.high}

    def whole(self, value: Any, field: str) -> int:
        """A whole number as JSON has it. Raises OutOfBounds."""
        if type(value) is int and self.low <= value <= self.high:
            return value
        about = {"field": field[:60], "low": f"{self.low:,}", "high": f"{self.high:,}"}
        raise OutOfBounds(_("%(field)s: send a whole number from %(low)s to %(high)s") % about)

    def of_text(self, value: str | None, field: str) -> int:
        """A whole number as a form, a query or a JSON key has it: ASCII digits and nothing else. Raises OutOfBounds."""
        return self.whole(whole_between(value, self.low, self.high), field)

    def real(self, value: Any, field: str) -> float:
        """A number as JSON has it. Raises OutOfBounds, also for NaN."""
        if type(value) in (int, float) and self.low <= value <= self.high:
            return float(value)
        about = {"field": field[:60], "low": f"{self.low:,}", "high": f"{self.high:,}"}
        raise OutOfBounds(_("%(field)s: send a number from %(low)s to %(high)s") % about)


ANY = Range(-(2**63), 2**63 - 1)  # what JSON may hold where nothing else is said
ROW = Range(1, 2**63 - 1)  # a row's id
AFTER = Range(0, 2**63 - 1)  # the id that a list goes on from
NUMBER = Range(0, 2**31 - 1)  # of a version, a round, a test

GROUP_SIZE = Range(2, 24)
MADE = Range(2, 96)  # images of a group, of which `group_size` are shown
POSITION = Range(0, GROUP_SIZE.high - 1)
STEPS = Range(1, 50)
OVERLAP = Range(1, 100)
SURE = Range(0.5, 0.999)  # certainty of a group's labels
ANSWERS = Range(1, 100_000_000)  # of a project's budget
READY_TARGET = Range(0, 1000)
AUTO_START = Range(0, 1_000_000)
GOLD_RATE = Range(0, 0.5)
COST = Range(0, 1_000_000)
GUIDANCE = Range(1.0, 20.0)
SEED = Range(0, 2**31 - 1)
SECONDS = Range(0, 86_400)  # that a decision took
EVERY = Range(1, 1_000_000)  # labelled groups between two milestones
SHARE = Range(0, 1)  # of an image's width or height
PRACTICE_GROUPS = Range(0, 50)  # known groups before real ones; 0 is none
PRACTICE_RIGHT = Range(1, PRACTICE_GROUPS.high)
PRACTICE_TRIES = Range(1, 10)
PRACTICE_WAIT = Range(0, 720)  # hours between two tries
QUOTA = Range(0, 100_000)  # groups of a person; 0 is no limit
STUDY_GROUPS = Range(1, 10_000)  # of a participant
STUDY_PLACES = Range(1, 10_000)
STUDY_DAYS = Range(1, 365)  # that a study's link works
VOTES = Range(10, 10_000)
ALPHA = Range(0.001, 0.2)
COMPARED = Range(2, 12)  # versions of a blind test
SHOWN = Range(2, 6)  # of their images at once
DAYS = Range(date(2000, 1, 1), date(2999, 12, 31))  # there is a day before and after each

WORD = 150  # characters of a name or a choice: Django's user names
REASON = 60  # characters of a reason for a dislike
REASONS = 9  # that a project may have: one a digit's key
STUDY_NAME = 80  # characters
CODE = 40  # characters of a completion code
OUTSIDE_ID = 64  # characters of an id that another site gives
REASONS_JSON = 1_000  # characters of all of them
SIZE = 9  # characters of an image's size: 1152x896
SIZES = 200  # characters of a project's sizes
INPUTS = 20_000  # input images of a project
GUIDELINES = 20_000  # characters
METADATA = 10_000  # characters of a prompt's metadata, or of a project's settings of rounds, as JSON
MEMORY_JSON = 500  # characters of what a project's rounds save memory by, as JSON
DETAIL = 300  # characters of a value in the audit log


def at_most(characters: int) -> list:
    """Validators of a long text; a model's TextField does not ask for its `max_length` itself."""
    return [MaxLengthValidator(characters)]
