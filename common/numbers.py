"""How a whole number is read from a text: by the same rule on the command line and in the web app."""

from __future__ import annotations

import re

_DIGITS = re.compile(r"-?[0-9]{1,20}", re.ASCII)  # 2⁶³ has 19


def whole_between(text: object, low: int, high: int) -> int | None:
    """The whole number from `low` to `high` that a text of ASCII digits is, with a minus in front or not; else None.
    Spaces, signs and digits of other scripts, which `int` would take, are nobody's number."""
    if not isinstance(text, str) or not _DIGITS.fullmatch(text):
        return None
    return int(text) if low <= int(text) <= high else None
