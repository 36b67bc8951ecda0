"""An oracle behind HTTP: images go out as PNG in JSON, verdicts come back as JSON.

Request (POST): `{"version": 1, "items": [{"image": base64 of a PNG, "prompt": str, "metadata": {...}}, ...]}`.
Answer (200): `{"verdicts": [{"score": 0..1, "liked": bool, "reason": str, "correct": bool}, ...]}`, one an item, in order;
`correct` may be left out and is then `liked`. Nothing else is accepted, and nothing is ever unpickled.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from PIL import Image

from trainer.oracles.base import Verdict
from trainer.oracles.server import Server, ServerError, at_least, png, read_json

LONGEST_REASON = 500  # characters


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
        """`batch` images go into a request; the others are those of `Server`. Raises ValueError that names the option."""
        at_least("remote.batch", batch, 1)
        self._batch = batch
        self._server = Server(
            self.name,
            url=url,
            allow_private=allow_private,
            token_env=token_env,
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            max_response=max_response,
        )

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Sequence[Mapping]
    ) -> list[Verdict]:
        """See `Oracle.score`. Raises ServerError when the server keeps failing or answers something else."""
        items = [
            {"image": base64.b64encode(png(image)).decode(), "prompt": prompt, "metadata": dict(line)}
            for image, prompt, line in zip(images, prompts, metadata, strict=True)
        ]
        verdicts: list[Verdict] = []
        for start in range(0, len(items), self._batch):
            part = items[start : start + self._batch]
            verdicts += read_verdicts(self._server.ask({"version": 1, "items": part}), len(part))
        return verdicts


def read_verdicts(data: bytes, count: int) -> list[Verdict]:
    """The answer's verdicts. Raises ServerError, naming the field, unless there are `count` well-formed ones."""
    answer = read_json("remote", data)
    rows = answer.get("verdicts") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise ServerError("remote.verdicts: the answer has no such list")
    if len(rows) != count:
        raise ServerError(f"remote.verdicts: {count} images were sent and {len(rows)} verdicts came back")
    return [_verdict(row, f"remote.verdicts[{i}]") for i, row in enumerate(rows)]


def _verdict(row: object, field: str) -> Verdict:
    if not isinstance(row, dict):
        raise ServerError(f"{field}: {row!r:.80} is not an object")
    score, liked, reason = row.get("score"), row.get("liked"), row.get("reason", "")
    correct = row.get("correct", liked)
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise ServerError(f"{field}.score: {score!r:.80} is not a number in 0..1")
    if not isinstance(liked, bool):
        raise ServerError(f"{field}.liked: {liked!r:.80} is not true or false")
    if not isinstance(correct, bool):
        raise ServerError(f"{field}.correct: {correct!r:.80} is not true or false")
    if not isinstance(reason, str):
        raise ServerError(f"{field}.reason: {reason!r:.80} is not text")
    return Verdict(float(score), liked, reason[:LONGEST_REASON], correct)
