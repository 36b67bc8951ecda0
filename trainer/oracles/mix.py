"""A weighted mix of other oracles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image

from trainer.oracles.base import Verdict
from trainer.oracles.registry import get_oracle


class MixOracle:
    """The weighted mean of other oracles' scores; liked or correct only where all parts agree."""

    name = "mix"

    def __init__(self, **weights: float):
        """`weights` has other oracles' specs as keys; only the weights' proportions matter."""
        if not weights:
            raise ValueError("mix: has no parts; write mix:scenes=0.7,ocr=0.3")
        for spec, weight in weights.items():
            if weight <= 0:
                raise ValueError(f"mix.{spec}: the weight is {weight:g}; it must be above 0")
        self.parts = [(get_oracle(spec), weight / sum(weights.values())) for spec, weight in weights.items()]

    def check(self, prompt: str, metadata: Mapping) -> None:
        """See `Oracle.check`; every part must be able to judge it."""
        for oracle, _ in self.parts:
            oracle.check(prompt, metadata)

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Sequence[Mapping]
    ) -> list[Verdict]:
        """See `Oracle.score`; the reason has each part's name, score and reason."""
        columns = [oracle.score(images, prompts, metadata) for oracle, _ in self.parts]
        return [self._together(row) for row in zip(*columns, strict=True)]

    def _together(self, verdicts: Sequence[Verdict]) -> Verdict:
        parts = list(zip(self.parts, verdicts, strict=True))
        score = sum(weight * v.score for (_, weight), v in parts)
        reason = "; ".join(f"{oracle.name} {v.score:.2f} ({v.reason})" for (oracle, _), v in parts)
        return Verdict(min(1.0, score), all(v.liked for v in verdicts), reason, all(v.correct for v in verdicts))
