"""Oracles stand in for people: images, prompts and metadata in; scores in 0..1 and reasons out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image

from trainer.oracles.base import Oracle, Verdict

__all__ = ["Oracle", "Verdict", "get_oracle"]


class DemoOracle:
    """Scenes for prompts with GenEval metadata, OCR for prompts with a quoted text."""

    name = "demo"

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Sequence[Mapping]
    ) -> list[Verdict]:
        """See `Oracle.score`; groups the images by kind and keeps their order."""
        verdicts: list[Verdict | None] = [None] * len(images)
        kinds = {"scenes": [i for i, m in enumerate(metadata) if "text" not in m]}
        kinds["ocr"] = [i for i, m in enumerate(metadata) if "text" in m]
        for name, index in kinds.items():
            if index:
                part = get_oracle(name).score(*([rows[i] for i in index] for rows in (images, prompts, metadata)))
                for i, verdict in zip(index, part, strict=True):
                    verdicts[i] = verdict
        return verdicts  # type: ignore[return-value]


def get_oracle(name: str) -> Oracle:
    """An oracle by name. Raises ValueError that lists the names when there is none of that name."""
    if name == "scenes":
        from trainer.oracles.scenes import SceneOracle

        return SceneOracle()
    if name == "ocr":
        from trainer.oracles.ocr import OCROracle

        return OCROracle()
    if name == "demo":
        return DemoOracle()
    raise ValueError(f"oracle: there is no oracle {name!r}; use scenes, ocr or demo")
