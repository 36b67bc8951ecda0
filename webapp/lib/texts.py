"""What the database cannot keep though Python reads it from JSON: null characters, halves of surrogate pairs, NaN."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.http.request import RawPostDataException
from django.utils.deconstruct import deconstructible
from django.utils.translation import gettext as _

from common.intake import check_json
from webapp.lib import bounds

BAD = re.compile("[\0\ud800-\udfff]")


class Unstorable(ValueError):
    """Names the field with the character."""


def check(value: Any, field: str) -> None:
    """Raise Unstorable if a text or number anywhere in `value` (as JSON has them) cannot be kept. `field` names it."""
    if isinstance(value, str):
        if BAD.search(value):
            raise Unstorable(_("%(field)s: leave out null characters and halves of characters") % {"field": field[:60]})
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Unstorable(_("%(field)s: send a finite number") % {"field": field[:60]})
    elif isinstance(value, int) and not bounds.ANY.low <= value <= bounds.ANY.high:
        raise Unstorable(_("%(field)s: send a number of at most 64 bits") % {"field": field[:60]})
    elif isinstance(value, dict):
        for name, inner in value.items():
            check(name, field)
            check(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            check(inner, field)


@deconstructible
class Kept:
    """A model field's validator: JSON that the database keeps, of at most `most` characters."""

    def __init__(self, most: int):
        self.most = most

    def __call__(self, value: Any) -> None:
        """Raises ValidationError."""
        try:
            check(value, "value")
        except Unstorable as error:
            raise ValidationError(str(error)) from error
        if len(json.dumps(value, ensure_ascii=False)) > self.most:
            raise ValidationError(_("at most %(most)s characters of JSON") % {"most": f"{self.most:,}"})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kept) and other.most == self.most

    def __hash__(self) -> int:
        return hash(self.most)


def body(request: HttpRequest) -> Any:
    """The JSON a request brings. Raises ValueError, also for a form, whose body Django has read by then."""
    try:
        return loads(request.body)
    except RawPostDataException as error:
        raise ValueError("it is a form") from error


def _whole(digits: str) -> int | float:
    """A number that is too long to be read counts as infinite, so that `check` names its field."""
    return int(digits) if len(digits) <= 20 else math.inf


def loads(body: bytes | str) -> Any:
    """JSON that can be kept. Raises ValueError: Unreadable where it holds too much or is nested too deep, Unstorable where
    JSON itself is fine."""
    check_json(body)
    value = json.loads(body, parse_int=_whole)
    check(value, "body")
    return value
