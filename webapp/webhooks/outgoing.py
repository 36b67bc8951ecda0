"""Requests to addresses that a person typed. They must not reach what only this machine or its network should.

The name is resolved once, every address it has must be public, and the connection is made to one of those addresses, so
a name that answers differently the second time changes nothing. Redirects are not followed.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import logging
import socket
import ssl
import threading
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.translation import gettext as _

from common.addresses import is_public

log = logging.getLogger(__name__)
SECONDS = 10  # for connecting, and for each wait
LONGEST = 20  # seconds in all: a receiver that answers byte by byte must not hold a worker


class Refused(ValueError):
    """An address that is never asked; the message says why."""


def check_url(url: str) -> tuple[str, str, int, str]:
    """(scheme, host, port, path with query) of an http or https address. Raises Refused that says what is wrong."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    except ValueError as error:
        raise Refused(_("url: %(error)s") % {"error": error}) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused(_("url: give an address that starts with https://"))
    if parts.username or parts.password:
        raise Refused(_("url: leave name and password out; messages are signed instead"))
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if any(ord(c) <= 32 or ord(c) > 126 for c in path + parts.hostname):
        raise Refused(_("url: write other characters than ASCII, and spaces, in their encoded form"))
    return parts.scheme, parts.hostname, port, path


def _allowed(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    return is_public(address) or any(ip in ipaddress.ip_network(net) for net in settings.LIKESTEP_WEBHOOK_NETWORKS)


def resolve(host: str, port: int) -> str:
    """An address of the host, all of whose addresses may be asked. Raises Refused, or OSError when there is none."""
    found = {info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    for address in sorted(found):
        if not _allowed(address):
            # Who may set a webhook need not learn how names resolve inside this network; the operator may.
            log.warning("a webhook's host %s is at %s, which is not a public address", host, address)
            raise Refused(_("url: %(host)s is not at a public address") % {"host": host})
    return sorted(found)[0]


class _Pinned(http.client.HTTPConnection):
    """A connection to one address under a host's name."""

    def __init__(self, host: str, port: int, address: str, secure: bool):
        super().__init__(host, port, timeout=SECONDS)
        self._address, self._secure = address, secure

    def connect(self) -> None:
        """To the checked address; TLS is checked against the name."""
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._secure:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)

    def hang_up(self) -> None:
        """End a wait of another thread."""
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """POST and return the status; the answer's body is not read. Raises Refused or OSError."""
    scheme, host, port, path = check_url(url)
    connection = _Pinned(host, port, resolve(host, port), scheme == "https")
    late = threading.Timer(LONGEST, connection.hang_up)
    late.start()
    try:
        connection.request("POST", path, body, headers)
        return connection.getresponse().status
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    finally:
        late.cancel()
        connection.close()
