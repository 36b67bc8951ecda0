"""Asking a server: JSON out, JSON back, within bounds of time, size and tries, and only at addresses that may be asked."""

from __future__ import annotations

import io
import json
import os
import socket
import time
from collections.abc import Mapping

import urllib3
from PIL import Image

from common.addresses import is_public
from common.intake import check_json
from trainer.oracles.base import OracleError

_RETRIED = {408, 429, 500, 502, 503, 504}


class ServerError(OracleError):
    """An oracle's server could not be asked, or its answer is not one."""


class _Passing(Exception):
    """A failure that another try may cure."""


class Server:
    """One address of an oracle's server. What is refused names the oracle's option."""

    def __init__(
        self,
        oracle: str,
        *,
        url: str,
        allow_private: bool = False,
        token_env: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        backoff: float = 1.0,
        max_response: int = 1_000_000,
    ):
        """`timeout` seconds are for one try: connecting, each wait for the server, and the whole body; the n-th retry
        waits backoff · 2ⁿ⁻¹ seconds; `max_response` is in bytes; `token_env` names the environment variable with the
        bearer token. Without `allow_private` only public addresses are asked. Raises ValueError that names the option.
        """
        self.oracle = oracle
        try:
            self._url = urllib3.util.parse_url(url)
        except urllib3.exceptions.LocationParseError:
            self._url = urllib3.util.Url()
        if self._url.scheme not in ("http", "https") or not self._url.host or self._url.auth:
            raise ValueError(f"{oracle}.url: {url!r} is not an http or https address without user and password")
        for field, value, least in (
            ("timeout", timeout, 0.01),
            ("retries", retries, 0),
            ("backoff", backoff, 0),
            ("max_response", max_response, 1),
        ):
            at_least(f"{oracle}.{field}", value, least)
        if token_env is not None and not os.environ.get(token_env):
            raise ValueError(f"{oracle}.token_env: the environment variable {token_env} is not set")
        self._token = os.environ[token_env] if token_env else None
        self._allow_private, self._timeout = allow_private, timeout
        self._retries, self._backoff, self._max_response = retries, backoff, max_response

    def ask(self, request: Mapping) -> bytes:
        """The body of the answer to this request. Raises ServerError when the server keeps failing."""
        body = json.dumps(request).encode()
        for attempt in range(self._retries + 1):
            try:
                return self._post(body)
            except _Passing as e:
                problem = e
            if attempt < self._retries:
                time.sleep(self._backoff * 2**attempt)
        raise ServerError(f"{self.oracle}: no answer after {self._retries + 1} tries; the last: {problem}") from problem

    def _address(self) -> str:
        """The host's first address; connecting to it, not to the name, means that what was checked is what is asked."""
        host = self._url.host.strip("[]")
        try:
            found = [entry[4][0] for entry in socket.getaddrinfo(host, self._port, type=socket.SOCK_STREAM)]
        except OSError as e:
            raise _Passing(f"{host} has no address ({e})") from e
        for address in found:
            if not self._allow_private and not is_public(address):
                raise ServerError(
                    f"{self.oracle}.url: {host} has the address {address}, which is not public; "
                    "set allow_private=true if meant"
                )
        return found[0]

    @property
    def _port(self) -> int:
        return self._url.port or (443 if self._url.scheme == "https" else 80)

    def _post(self, body: bytes) -> bytes:
        deadline = time.monotonic() + self._timeout
        address = self._address()
        host = self._url.host.strip("[]")
        headers = {"Host": self._url.netloc, "Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        shared = {"timeout": urllib3.Timeout(total=self._timeout), "retries": False, "maxsize": 1}
        if self._url.scheme == "https":
            pool = urllib3.HTTPSConnectionPool(
                address, self._port, server_hostname=host, assert_hostname=host, cert_reqs="CERT_REQUIRED", **shared
            )
        else:
            pool = urllib3.HTTPConnectionPool(address, self._port, **shared)
        with pool:
            try:
                response = pool.urlopen(
                    "POST", self._url.request_uri, body, headers, redirect=False, preload_content=False
                )
                if response.status in _RETRIED:
                    raise _Passing(f"status {response.status}")
                if response.status != 200:
                    raise ServerError(f"{self.oracle}: the server answered with status {response.status}, not 200")
                return self._read(response, deadline)
            except (urllib3.exceptions.HTTPError, OSError) as e:
                raise _Passing(str(e) or type(e).__name__) from e

    def _read(self, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        """The body, within the limits of size (counted after decompression) and time, however slowly it drips."""
        data = bytearray()
        # read1 hands over what has come; read would wait for a full chunk and so past the deadline.
        while chunk := response.read1(65_536):
            data += chunk
            if len(data) > self._max_response:
                raise ServerError(f"{self.oracle}.max_response: the answer is longer than {self._max_response} bytes")
            if time.monotonic() > deadline:
                raise _Passing(f"the answer took longer than {self._timeout:g} s")
        return bytes(data)


def at_least(field: str, value: float, least: float) -> None:
    """Raise ValueError, naming the option, on a number below `least`."""
    if value < least:
        raise ValueError(f"{field}: is {value:g}; it must be at least {least:g}")


def png(image: Image.Image) -> bytes:
    """The image as PNG."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def read_json(oracle: str, data: bytes) -> object:
    """An answer's JSON. Raises ServerError."""
    try:
        check_json(data)
        return json.loads(data)
    except ValueError as e:
        raise ServerError(f"{oracle}: the answer is not JSON ({e})") from None
