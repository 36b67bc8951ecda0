"""What an oracle is: something that can stand in for a person and say why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image


@dataclass(frozen=True)
class Verdict:
    """`score` in 0..1 is the training reward; `liked` is the yes or no a strict person would give; `correct` is the
    benchmark's own rule, where it is laxer than `liked`."""

    score: float
    liked: bool
    reason: str
    correct: bool


class OracleError(RuntimeError):
    """An oracle could not be asked, or what it answered is no verdict on each image."""


class Oracle(Protocol):
    """Scores images of prompts; the three sequences have one length, `metadata` is each prompt's GenEval line."""

    name: str

    def check(self, prompt: str, metadata: Mapping) -> None:
        """Raise ValueError, naming the field, on a prompt that it cannot judge. An oracle need not have this."""
        ...

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Sequence[Mapping]
    ) -> list[Verdict]:
        """One verdict an image, in order. Raises ValueError, naming the field, on metadata it cannot judge."""
        ...
