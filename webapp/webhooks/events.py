"""What a webhook may be told. Each event is declared here and nowhere else: the form, the API's schema and docs/api.md show
this table, and `outbox` tells nothing that is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True)
class Event:
    """`name` is what programs know it by, `label` what people read; `data` has each field of its message, with what it is
    where the field's name does not say it."""

    name: str
    label: str
    data: Mapping[str, str]


MILESTONE = Event(
    "labels.milestone",
    _("A number of groups was labelled"),
    {"labelled_groups": "sent each time that as many more groups have labels as the webhook asks for"},
)
ROUND = Event(
    "round.finished",
    _("A round is done, failed or cancelled"),
    {
        "round": "",
        "state": "done, failed, cancelled",
        "scores_after": "",
        "error": "",
        "alarm": "why it stopped early, or empty",
    },
)
PUBLISHED = Event("version.published", _("A version was published"), {"version": "", "before": ""})

EVENTS = {event.name: event for event in (MILESTONE, ROUND, PUBLISHED)}


def table() -> str:
    """The events for a page of the documents, in Markdown."""
    rows = ["| event | `data` |", "|---|---|"]
    for event in EVENTS.values():
        fields = [f"`{name}` ({about})" if about else f"`{name}`" for name, about in event.data.items()]
        rows.append(f"| `{event.name}` | {', '.join(fields)} |")
    return "\n".join(rows)
