"""The demo project's oracle: scenes and words together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image

from trainer.oracles.base import Verdict
from trainer.oracles.ocr import OCROracle
from trainer.oracles.scenes import SceneOracle


class DemoOracle:
    """Scenes for prompts with GenEval metadata, OCR for prompts with a quoted text."""

    name = "demo"

    def check(self, prompt: str, metadata: Mapping) -> None:
        """See `Oracle.check`."""
        (OCROracle() if "text" in metadata else SceneOracle()).check(prompt, metadata)

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Sequence[Mapping]
    ) -> list[Verdict]:
        """See `Oracle.score`; groups the images by kind and keeps their order."""
        verdicts: list[Verdict | None] = [None] * len(images)
        scenes = [i for i, m in enumerate(metadata) if "text" not in m]
        words = [i for i, m in enumerate(metadata) if "text" in m]
        for oracle, index in ((SceneOracle(), scenes), (OCROracle(), words)):
            part = oracle.score(*([rows[i] for i in index] for rows in (images, prompts, metadata)))
            for i, verdict in zip(index, part, strict=True):
                verdicts[i] = verdict
        return verdicts  # type: ignore[return-value]
