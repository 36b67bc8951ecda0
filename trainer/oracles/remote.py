"""An oracle behind HTTP: images go out as PNG in JSON, verdicts come back as JSON.

Request (POST): `{"version": 1, "items": [{"image": base64 of a PNG, "prompt": str, "metadata": {...}}, ...]}`.
Answer (200): `{"verdicts": [{"score": 0..1, "liked": bool, "reason": str, "correct": bool}, ...]}`, one an item, in order;
`correct` may be left out and is then `liked`. Nothing else is accepted, and nothing is ever unpickled.
"""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence

import urllib3
from PIL import Image

from common.addresses import is_public
from common.intake import check_json
from trainer.oracles.base import OracleError, Verdict

LONGEST_REASON = 500  # characters
_RETRIED = {408, 429, 500, 502, 503, 504}


class RemoteOracleError(OracleError):
    """The remote oracle could not be asked, or its answer is not one."""


class _Passing(Exception):
    """A failure that another try may cure."""


class RemoteOracle:
    """Asks a server, in batches, with time-outs and bounded retries."""

    name = "remote"

    def __init__(
        self,
        *,
        url: str,
        allow_private: bool = False,
        token_env: str | None = None,
        batch: int = 16,
        timeout: float = 60.0,
        retries: int = 3,
        backoff: float = 1.0,
        max_response: int = 1_000_000,
    ):
        """`timeout` seconds are for one try: connecting, each wait for the server, and the whole body; the n-th retry
        waits backoff · 2ⁿ⁻¹ seconds; `max_response` is in bytes; `token_env` names the environment variable with the
        bearer token. Without `allow_private` only public addresses are asked. Raises ValueError that names the option.
        """
        try:
            self._url = urllib3.util.parse_url(url)
        except urllib3.exceptions.LocationParseError:
            self._url = urllib3.util.Url()
        if self._url.scheme not in ("http", "https") or not self._url.host or self._url.auth:
            raise ValueError(f"remote.url: {url!r} is not an http or https address without user and password")
        for field, value, least in (
            ("batch", batch, 1),
            ("timeout", timeout, 0.01),
            ("retries", retries, 0),
            ("backoff", backoff, 0),
            ("max_response", max_response, 1),
        ):
            if value < least:
                raise ValueError(f"remote.{field}: is {value:g}; it must be at least {least:g}")
        if token_env is not None and not os.environ.get(token_env):
            raise ValueError(f"remote.token_env: the environment variable {token_env} is not set")
        self._token = os.environ[token_env] if token_env else None
        self._allow_private, self._batch, self._timeout = allow_private, batch, timeout
        self._retries, self._backoff, self._max_response = retries, backoff, max_response

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Sequence[Mapping]
    ) -> list[Verdict]:
        """See `Oracle.score`. Raises RemoteOracleError when the server keeps failing or answers something else."""
        items = [
            {"image": _png(image), "prompt": prompt, "metadata": dict(line)}
            for image, prompt, line in zip(images, prompts, metadata, strict=True)
        ]
        verdicts: list[Verdict] = []
        for start in range(0, len(items), self._batch):
            part = items[start : start + self._batch]
            verdicts += read_verdicts(self._ask({"version": 1, "items": part}), len(part))
        return verdicts

    def _ask(self, request: Mapping) -> bytes:
        body = json.dumps(request).encode()
        for attempt in range(self._retries + 1):
            try:
                return self._post(body)
            except _Passing as e:
                problem = e
            if attempt < self._retries:
                time.sleep(self._backoff * 2**attempt)
        raise RemoteOracleError(f"remote: no answer after {self._retries + 1} tries; the last: {problem}") from problem

    def _address(self) -> str:
        """The host's first address; connecting to it, not to the name, means that what was checked is what is asked."""
        host = self._url.host.strip("[]")
        try:
            found = [entry[4][0] for entry in socket.getaddrinfo(host, self._port, type=socket.SOCK_STREAM)]
        except OSError as e:
            raise _Passing(f"{host} has no address ({e})") from e
        for address in found:
            if not self._allow_private and not is_public(address):
                raise RemoteOracleError(
                    f"remote.url: {host} has the address {address}, which is not public; set allow_private=true if meant"
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
                    raise RemoteOracleError(f"remote: the server answered with status {response.status}, not 200")
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
                raise RemoteOracleError(f"remote.max_response: the answer is longer than {self._max_response} bytes")
            if time.monotonic() > deadline:
                raise _Passing(f"the answer took longer than {self._timeout:g} s")
        return bytes(data)


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def read_verdicts(data: bytes, count: int) -> list[Verdict]:
    """The answer's verdicts. Raises RemoteOracleError, naming the field, unless there are `count` well-formed ones."""
    try:
        check_json(data)
        answer = json.loads(data)
    except ValueError as e:
        raise RemoteOracleError(f"remote: the answer is not JSON ({e})") from None
    rows = answer.get("verdicts") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise RemoteOracleError("remote.verdicts: the answer has no such list")
    if len(rows) != count:
        raise RemoteOracleError(f"remote.verdicts: {count} images were sent and {len(rows)} verdicts came back")
    return [_verdict(row, f"remote.verdicts[{i}]") for i, row in enumerate(rows)]


def _verdict(row: object, field: str) -> Verdict:
    if not isinstance(row, dict):
        raise RemoteOracleError(f"{field}: {row!r:.80} is not an object")
    score, liked, reason = row.get("score"), row.get("liked"), row.get("reason", "")
    correct = row.get("correct", liked)
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise RemoteOracleError(f"{field}.score: {score!r:.80} is not a number in 0..1")
    if not isinstance(liked, bool):
        raise RemoteOracleError(f"{field}.liked: {liked!r:.80} is not true or false")
    if not isinstance(correct, bool):
        raise RemoteOracleError(f"{field}.correct: {correct!r:.80} is not true or false")
    if not isinstance(reason, str):
        raise RemoteOracleError(f"{field}.reason: {reason!r:.80} is not text")
    return Verdict(float(score), liked, reason[:LONGEST_REASON], correct)
