"""How large a request may be and how long it may take to come, asked before its body is read.

The limits are settings: `LIKESTEP_ANONYMOUS_LIMIT` for whoever has not logged in and has no token,
`LIKESTEP_PROMPTS_LIMIT`, `LIKESTEP_IMPORT_LIMIT`, `LIKESTEP_IMAGES_LIMIT` and `LIKESTEP_INPUT_LIMIT` for files,
`LIKESTEP_BODY_LIMIT` for all else. A body must come with `SLOWEST` bytes a second after the first `LIKESTEP_STALL_SECONDS`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from django.conf import settings
from django.contrib.auth import get_user
from django.core.handlers.asgi import ASGIRequest
from django.db import DatabaseError, close_old_connections
from django.urls import Resolver404, resolve
from django.utils import translation
from django.utils.translation import gettext as _

from webapp.lib.entrance import Refused
from webapp.lib.sessions import SessionStore

log = logging.getLogger(__name__)

SLOWEST = 1000  # bytes a second
# View → the setting that limits its file; its form's other fields come on top.
FILES = {
    "import-labels": "LIKESTEP_IMPORT_LIMIT",
    "api:import_labels": "LIKESTEP_IMPORT_LIMIT",
    "own-images": "LIKESTEP_IMAGES_LIMIT",
    "api:import_images": "LIKESTEP_IMAGES_LIMIT",
    "prompts": "LIKESTEP_PROMPTS_LIMIT",
    "new-project": "LIKESTEP_PROMPTS_LIMIT",
    "api:add_prompt_file": "LIKESTEP_PROMPTS_LIMIT",
    "add-input": "LIKESTEP_INPUT_LIMIT",
    "api:add_input": "LIKESTEP_INPUT_LIMIT",
}


def limit(path: str) -> tuple[int, str]:
    """The most bytes that a request to this address may bring, and the setting that says so."""
    with suppress(Resolver404):
        if name := FILES.get(resolve(path).view_name):
            return getattr(settings, name) + settings.LIKESTEP_BODY_LIMIT, name
    return settings.LIKESTEP_BODY_LIMIT, "LIKESTEP_BODY_LIMIT"


class Gate:
    """An ASGI `receive` that raises Refused before the first byte when a body says that it is too large, at the first byte
    too many when it does not say, and when it comes too slowly. `known` tells whether the caller has logged in or has a
    token."""

    def __init__(self, request: ASGIRequest, receive: Callable, known: Callable[[], Awaitable[bool]]):
        self.request, self.receive, self.known = request, receive, known
        self.count, self.waited, self.most = 0, 0.0, settings.LIKESTEP_ANONYMOUS_LIMIT

    async def open(self) -> None:
        """Look at what the body says of itself."""
        declared = self.request.META.get("CONTENT_LENGTH", "")
        if declared.isascii() and declared.isdigit():
            await self._check(int(declared))

    async def __call__(self) -> dict:
        """The next piece."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(settings.LIKESTEP_STALL_SECONDS + self.count / SLOWEST - self.waited):
                message = await self.receive()
        except TimeoutError as error:
            text = _("body: it came too slowly, after %(count)s bytes (LIKESTEP_STALL_SECONDS)")
            raise Refused(408, text % {"count": f"{self.count:,}"}) from error
        self.waited += time.monotonic() - started
        self.count += len(message.get("body", b""))
        await self._check(self.count)
        return message

    async def _check(self, size: int) -> None:
        if size <= self.most:
            return
        most, name = limit(self.request.path)
        if size > most:
            text = _("body: %(size)s bytes are too many; this address takes at most %(most)s (%(name)s)")
            raise Refused(413, text % {"size": f"{size:,}", "most": f"{most:,}", "name": name})
        if not await self.known():
            text = _("body: log in first; without it a request may bring at most %(most)s bytes (%(name)s)")
            raise Refused(401, text % {"most": f"{self.most:,}", "name": "LIKESTEP_ANONYMOUS_LIMIT"})
        self.most = most


def language(request: ASGIRequest) -> str:
    """What the caller reads, as LocaleMiddleware finds it."""
    return translation.get_language_from_request(request)


def is_known(request: ASGIRequest, live_token: Callable[[str], object | None]) -> bool:
    """Whether the caller has a live session or a token that `live_token` finds. Asks the database."""
    close_old_connections()  # as at the start of a request
    try:
        scheme, _space, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return live_token(token.strip()) is not None
        request.session = SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
        return get_user(request).is_authenticated
    except DatabaseError as error:
        log.warning("nobody can be known: %s", error)
        return False
    finally:
        close_old_connections()
