"""Log lines that say what they are about: the request or the round. `LOG_FORMAT=json` makes each a JSON object."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import re

from django.http import HttpRequest
from django.urls import Resolver404, resolve
from pythonjsonlogger.json import JsonFormatter

_about: contextvars.ContextVar[dict | None] = contextvars.ContextVar("about", default=None)


@contextlib.contextmanager
def about(**values):
    """Every line logged inside, in this thread, carries the values: `with about(round=3): ...`."""
    token = _about.set({**(_about.get() or {}), **values})
    try:
        yield
    finally:
        _about.reset(token)


class About(logging.Filter):
    """Puts what a line is about on its record: `about` for people, `context` for machines."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.context = _about.get() or {}
        record.about = "".join(f" {k}={v}" for k, v in record.context.items())
        return True


def pattern(path: str) -> str:
    """What may be logged of an address: the pattern of its page."""
    try:
        return f"/{resolve(path).route}"
    except Resolver404:
        return "(no such page)"


def route_of(request: HttpRequest) -> str:
    """A request's address as its pattern: an invitation's own address is a secret."""
    match = request.resolver_match
    return f"/{match.route}" if match else "(no such page)"


class Routes(logging.Filter):
    """Django's own lines about a request name its address; they get the pattern instead, and the request's id."""

    def filter(self, record: logging.LogRecord) -> bool:
        request = getattr(record, "request", None)
        if isinstance(request, HttpRequest):
            path = request.path.encode("unicode_escape").decode("ascii")  # as Django's log_response puts it
            args = record.args if isinstance(record.args, tuple) else ()
            record.args = tuple(route_of(request) if arg in (path, request.path) else arg for arg in args)
            record.request = getattr(request, "request_id", "")
        return True


def for_sentry(event: dict, hint: dict) -> dict:
    """An event without addresses, headers and queries; the transaction's name is the pattern already."""
    if "request" in event:
        event["request"] = {"method": event["request"].get("method", "")}
    return event


def crumb_for_sentry(crumb: dict, hint: dict) -> dict | None:
    """What led to an event, without requests of our own: a webhook's address may hold a key."""
    return None if crumb.get("category") == "httplib" else crumb


CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def visible(text: str) -> str:
    """The text with control characters as escapes, so that it is one line and colours nothing."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class OneLine(logging.Formatter):
    """A line a record, whatever its message holds. The lines of a traceback are indented: none of them looks like a
    record."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The record's own line."""
        return visible(super().formatMessage(record))

    def formatException(self, ei) -> str:
        """What was raised."""
        return "\n".join(f"  {visible(line)}" for line in super().formatException(ei).split("\n"))

    def formatStack(self, stack_info: str) -> str:
        """Where it was logged."""
        return "\n".join(f"  {visible(line)}" for line in super().formatStack(stack_info).split("\n"))


class _Formatter(JsonFormatter):
    def add_fields(self, log_data, record, message_dict):
        super().add_fields(log_data, record, message_dict)
        del log_data["about"]
        log_data.update(log_data.pop("context"))


def json_formatter() -> logging.Formatter:
    """One JSON object a line: time, level, logger, message, and request or round where there is one."""
    return _Formatter(
        "%(asctime)s %(levelname)s %(name)s %(message)s",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
    )
