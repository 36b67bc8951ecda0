"""What an oracle answers, checked in one place, whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np
from PIL import Image

from trainer.oracles.base import Oracle, OracleError, Verdict


class CheckedOracle:
    """Has everything the oracle has; `score` gives one right verdict an image or raises OracleError.

    One score that is not a number would make a whole batch's rewards so, and the round would go on without them.
    """

    def __init__(self, oracle: Oracle):
        self._oracle = oracle

    def __getattr__(self, name: str):
        return getattr(self._oracle, name)

    def check(self, prompt: str, metadata: Mapping) -> None:
        """See `Oracle.check`; an oracle without one judges any prompt."""
        if hasattr(self._oracle, "check"):
            self._oracle.check(prompt, metadata)

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Sequence[Mapping]
    ) -> list[Verdict]:
        """See `Oracle.score`. Raises OracleError, naming the oracle and the image, on an answer that is not one."""
        answer = self._oracle.score(images, prompts, metadata)
        if not isinstance(answer, Sequence):
            raise OracleError(f"oracle {self.name}: it answered {answer!r:.80}, not a list of verdicts")
        if len(answer) != len(images):
            raise OracleError(f"oracle {self.name}: it gave {len(answer)} verdicts for {len(images)} images")
        return [
            self._checked(verdict, f"oracle {self.name}: image {i + 1} of {len(images)} ({prompt!r:.80})")
            for i, (verdict, prompt) in enumerate(zip(answer, prompts, strict=True))
        ]

    def _checked(self, verdict: object, where: str) -> Verdict:
        if not isinstance(verdict, Verdict):
            raise OracleError(f"{where} has {verdict!r:.80}, not a Verdict")
        score = verdict.score
        if isinstance(score, bool) or not isinstance(score, Real) or not 0 <= score <= 1:
            raise OracleError(f"{where} has the score {score!r:.80}, which is not a number in 0..1")
        for name in ("liked", "correct"):
            if not isinstance(getattr(verdict, name), bool | np.bool_):
                raise OracleError(f"{where} has {name} {getattr(verdict, name)!r:.80}, which is not true or false")
        if not isinstance(verdict.reason, str):
            raise OracleError(f"{where} has the reason {verdict.reason!r:.80}, which is not text")
        return Verdict(float(score), bool(verdict.liked), verdict.reason, bool(verdict.correct))
