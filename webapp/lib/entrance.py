"""What a request must be to be looked at: in UTF-8, and with a path and cookies that are text. Django takes other
character sets at their word, zlib and UTF-16 among them, and fails later, in the middle of its middleware."""

from __future__ import annotations

import io
import re

from django.core.handlers.asgi import ASGIRequest
from django.utils.translation import gettext as _

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii")


class Refused(Exception):
    """A request that is not answered: the status, and a sentence that says why."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


def judged(scope: dict) -> ASGIRequest:
    """The request without its body. Raises Refused where its path, query or headers are no text that can be read."""
    try:
        request = ASGIRequest(scope, io.BytesIO())
        cookies = request.COOKIES
    except UnicodeDecodeError as error:
        raise Refused(400, _("query: send UTF-8")) from error
    except ValueError as error:  # a parameter of the type names a character set that there is not
        raise Refused(400, _("Content-Type: it cannot be read")) from error
    if CONTROL.search(request.path):
        raise Refused(400, _("path: leave out control characters"))
    if request.content_params.get("charset", "utf-8").strip().lower() not in CHARSETS:
        raise Refused(400, _("Content-Type: send UTF-8"))
    if any(CONTROL.search(name) or CONTROL.search(value) for name, value in cookies.items()):
        raise Refused(400, _("Cookie: leave out control characters"))
    return request
