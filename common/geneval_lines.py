"""GenEval's prompt lines, checked once, when they are read. Standard library only.

A line is a prompt's metadata: `{"tag", "prompt", "include": [{"class", "count", "color"?, "position"?}], "exclude": …}`
(djghosh13/geneval, prompts/evaluation_metadata.jsonl). Every reader of prompts calls `checked_line`, so that no oracle
meets a line that it would misread or fail on hours later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from common.language import gettext_noop
from common.sizes import SizeError, parse_size, size_text

RELATIONS = ("left of", "right of", "above", "below")
TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
_LISTS = ("include", "exclude")
_OPTIONAL = ("color", "position")


class LineError(ValueError):
    """What is wrong with a line, in one sentence that begins with the field: `template % about`."""

    def __init__(self, template: str, **about):
        super().__init__(template % about)
        self.template, self.about = template, about


def checked_line(line: Mapping) -> dict:
    """A copy of the line in which what is null is absent. Raises LineError, naming the field, on what GenEval's rules
    cannot judge, and on a `size` that is none. A line without `include` and `exclude` is any other oracle's, and right."""
    found = {k: v for k, v in line.items() if not (v is None and k in (*_LISTS, "tag", "text", "size"))}
    if not isinstance(found.get("tag", ""), str):
        raise LineError(gettext_noop("tag: give a text"))
    if "size" in found:
        try:
            found["size"] = size_text(parse_size(found["size"]))
        except SizeError as error:
            raise LineError(error.template, **error.about) from error
    for name in _LISTS:
        if name in found:
            if not isinstance(found[name], list):
                raise LineError(gettext_noop("%(name)s: give a list"), name=name)
            found[name] = [_term(name, place, term) for place, term in enumerate(found[name])]
    return found


def _term(name: str, place: int, term: object) -> dict:
    if not isinstance(term, Mapping) or not isinstance(term.get("class"), str) or not term["class"].strip():
        raise LineError(gettext_noop("%(name)s: every entry needs a `class`"), name=name)
    found = {k: v for k, v in term.items() if not (v is None and k in _OPTIONAL)}
    about = {"name": name, "class": found["class"]}
    if type(found.get("count")) is not int or found["count"] < 1:
        raise LineError(gettext_noop("%(name)s: `count` of %(class)s is not a whole number above 0"), **about)
    if not isinstance(found.get("color", ""), str):
        raise LineError(gettext_noop("%(name)s: `color` of %(class)s is not a text"), **about)
    if "position" in found and not _is_position(found["position"], place):
        raise LineError(
            gettext_noop("%(name)s: `position` of %(class)s is not [relation, number of an earlier entry]"), **about
        )
    return found


def _is_position(value: object, place: int) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    relation, other = value
    return relation in RELATIONS and type(other) is int and 0 <= other < place


def quoted_text(prompt: str) -> str:
    """The text to be written in an image: what stands between the prompt's first pair of double quotes. Raises LineError
    when there are none, or nothing that can be read between them."""
    match = re.search(r'"([^"]*)"', prompt)
    if match is None:
        raise LineError(
            gettext_noop('prompt: %(prompt)s has no text in double quotes ("); write it as: the word "CAT"'),
            prompt=repr(prompt),
        )
    if not match.group(1).strip():
        raise LineError(gettext_noop("prompt: %(prompt)s has nothing to read between its quotes"), prompt=repr(prompt))
    return match.group(1)
