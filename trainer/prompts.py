"""A prompt as the trainer knows it, whatever judges its images."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Prompt:
    """A prompt, its tag, its split and what GenEval's evaluator or the OCR oracle needs to judge an image of it."""

    prompt: str
    tag: str
    split: str
    metadata: dict

    @classmethod
    def of_line(cls, line: dict, split: str) -> Prompt:
        """The row of a GenEval line, which need not have a tag."""
        return cls(line["prompt"], line.get("tag", ""), split, line)

    def to_json(self) -> dict:
        """The row as plain JSON values."""
        return asdict(self)
