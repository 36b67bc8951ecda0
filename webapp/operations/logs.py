"""Log lines that say what they are about: the request or the round. `LOG_FORMAT=json` makes each a JSON object."""

from __future__ import annotations

import contextlib
import contextvars
import logging

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
