"""The OCR oracle: reads the image with RapidOCR, whose PP-OCR weights are in its wheel, and compares with the prompt.

Score as in the TDM-R1 and Flow-GRPO recipes: the text between the first pair of double quotes, spaces dropped and in
lower case; 1 if it is a substring of what was read, else `1 - min(edit distance, length) / length`.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from common.geneval_lines import quoted_text
from trainer.oracles.base import Verdict

# Pixels of the shorter side; the detector was trained on text larger than the demo world's. RapidOCR itself would enlarge
# everything to 736, which takes three times as long.
UPSCALE_BELOW = 320


def normalise(text: str) -> str:
    """Spaces dropped, lower case."""
    return re.sub(r"\s+", "", text).lower()


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def text_score(target: str, read: str) -> float:
    """The reward in 0..1 for what was read, both already normalised."""
    if not target:
        return 0.0
    if target in read:
        return 1.0
    return 1 - min(edit_distance(target, read), len(target)) / len(target)


def _on_gpu(device: str) -> tuple[bool, int]:
    """(whether CUDA runs the models, its number). Raises ValueError that names the option when CUDA is asked for and
    onnxruntime has none."""
    import onnxruntime

    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not (kind == "cuda" and number.isdigit())):
        raise ValueError(f"ocr.device: {device!r} is not auto, cpu, cuda or cuda:<number>")
    there = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if kind == "cuda" and not there:
        raise ValueError("ocr.device: this onnxruntime has no CUDA; run pip install onnxruntime-gpu in its place")
    return kind != "cpu" and there, int(number or 0)


@functools.cache
def _engine(device: str, batch: int, threads: int):
    from rapidocr import RapidOCR

    gpu, number = _on_gpu(device)
    logging.getLogger("RapidOCR").setLevel(logging.WARNING)
    runtime = "EngineConfig.onnxruntime"
    return RapidOCR(
        params={
            "Global.log_level": "warning",
            "Det.limit_side_len": UPSCALE_BELOW,
            "Cls.cls_batch_num": batch,
            "Rec.rec_batch_num": batch,
            f"{runtime}.intra_op_num_threads": threads,
            f"{runtime}.use_cuda": gpu,
            f"{runtime}.cuda_ep_cfg.device_id": number,
        }
    )


def read_text(engine, image: Image.Image) -> str:
    """Everything the engine reads in the image, normalised; small images are enlarged first."""
    scale = max(1, -(-UPSCALE_BELOW // min(image.size)))
    if scale > 1:
        image = image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
    result = engine(np.asarray(image.convert("RGB"))[:, :, ::-1])
    return normalise("".join(result.txts or ()))


class OCROracle:
    """Is the quoted text in the image?"""

    name = "ocr"

    def __init__(self, *, device: str = "cpu", batch: int = 6, threads: int = 1):
        """`device` is cpu, cuda, cuda:<number>, or auto for CUDA where onnxruntime has it; `batch` is how many lines of
        text are read at once, `threads` how many threads serve a model. Raises ValueError that names the option."""
        for name, value in (("batch", batch), ("threads", threads)):
            if value < 1:
                raise ValueError(f"ocr.{name}: is {value}; it must be at least 1")
        self._engine = _engine(device, batch, threads)

    def check(self, prompt: str, metadata: Mapping) -> None:
        """See `Oracle.check`."""
        quoted_text(prompt)

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Sequence[Mapping]
    ) -> list[Verdict]:
        """See `Oracle.score`."""
        verdicts = []
        for image, prompt in zip(images, prompts, strict=True):
            target, read = normalise(quoted_text(prompt)), read_text(self._engine, image)
            reward = text_score(target, read)
            exact = read == target
            verdicts.append(Verdict(reward, exact, f'read "{read}"' if read else "read nothing", exact))
        return verdicts
