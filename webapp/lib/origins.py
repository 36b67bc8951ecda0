"""Whose pages may open a live socket: this site's own, by the whole origin, as Django's CSRF check has it."""

from __future__ import annotations

from urllib.parse import urlsplit

from channels.security.websocket import WebsocketDenier
from django.conf import settings
from django.http.request import split_domain_port, validate_host

PORTS = {"http": 80, "https": 443}


def parts(origin: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an origin; None for what is none."""
    try:
        found = urlsplit(origin)
        if found.scheme not in PORTS or not found.hostname:
            return None
        return found.scheme, found.hostname, found.port or PORTS[found.scheme]
    except ValueError:
        return None


def is_own(scope: dict) -> bool:
    """Whether the page that asks is of the origin it asks, or of a trusted one (CSRF_TRUSTED_ORIGINS)."""
    headers = dict(scope["headers"])
    origin, host = headers.get(b"origin", b"").decode("latin-1"), headers.get(b"host", b"").decode("latin-1")
    if not validate_host(split_domain_port(host)[0], settings.ALLOWED_HOSTS):
        return False
    secure = settings.SECURE_SSL_REDIRECT or scope.get("scheme") in ("wss", "https")
    own = f"{'https' if secure else 'http'}://{host}"
    asked = parts(origin)
    return asked is not None and asked in {parts(known) for known in (own, *settings.CSRF_TRUSTED_ORIGINS)}


class OwnOrigins:
    """Refuses sockets of other sites' pages."""

    def __init__(self, application):
        self.application = application

    async def __call__(self, scope, receive, send):
        """Pass the socket on, or close it."""
        application = self.application if is_own(scope) else WebsocketDenier()
        await application(scope, receive, send)
