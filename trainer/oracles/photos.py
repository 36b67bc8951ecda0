"""GenEval on photographs: detector and colours feed the rules; results are written in GenEval's own format.

`python -m trainer.oracles.photos IMAGES --oracle geneval:detector=…,clip=… --output results.jsonl` scores a folder that is
laid out as GenEval's generation scripts leave it; its summary_scores.py reads the results.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageOps

from common.files import write_atomic
from common.geneval_lines import checked_line
from trainer.oracles.base import Verdict
from trainer.oracles.detector import ColorNamer, Detector
from trainer.oracles.geneval import Detection, by_class, judge, result_line, threshold_for
from trainer.oracles.models import ClipScorer, pick_device


class GenEvalOracle:
    """GenEval with Mask2Former and CLIP; `liked` is the strict verdict, `correct` the benchmark's."""

    name = "geneval"

    def __init__(self, *, detector: Path, clip: Path, device: str = "auto"):
        """`detector` and `clip` are folders of saved transformers models with their processors and tokenizer. Raises
        ValueError that names the option when one is not there."""
        place = pick_device("geneval.device", device)
        self._detector = Detector(detector, device=place, field="geneval.detector")
        self._colors = ColorNamer(ClipScorer(clip, device=place, field="geneval.clip"))

    def check(self, prompt: str, metadata: Mapping) -> None:
        """See `Oracle.check`: GenEval's own lines, of classes that the detector knows."""
        if not metadata.get("include"):
            raise ValueError(f"include: prompt {prompt!r} has none; GenEval needs its own lines")
        for term in (*metadata["include"], *metadata.get("exclude", ())):
            if term["class"] not in self._detector.labels:
                raise ValueError(f"class: the detector knows no {term['class']!r}, asked for by {prompt!r}")

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Sequence[Mapping]
    ) -> list[Verdict]:
        """See `Oracle.score`."""
        return [judge(line, self.detect(image, line)) for image, line in zip(images, metadata, strict=True)]

    def detect(self, image: Image.Image, metadata: Mapping) -> dict[str, list[Detection]]:
        """The objects above the tag's threshold by class, most confident first, at most 16 a class. Colours are named
        where the prompt asks for one. Raises ValueError on a prompt that has no GenEval line or an unknown class."""
        self.check(metadata.get("prompt", ""), metadata)
        threshold = threshold_for(metadata)
        instances = self._detector.find(image, threshold=threshold)
        colored = {term["class"] for term in metadata["include"] if "color" in term}
        asked = [i for i in instances if i.detection.label in colored]
        detections = [i.detection for i in instances if i.detection.label not in colored]
        for instance, color in zip(asked, self._colors.name(image, asked), strict=True):
            detections.append(dataclasses.replace(instance.detection, color=color))
        return by_class(detections, threshold=threshold)


def evaluate_folder(oracle: GenEvalOracle, folder: Path, output: Path) -> int:
    """Judge `folder`/<number>/samples/<number>.png by `folder`/<number>/metadata.jsonl; write the results as JSON lines.

    Returns how many images were judged. Raises ValueError that names the folder when there are none.
    """
    lines = []
    for prompt in sorted((p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name)):
        metadata = _metadata(prompt / "metadata.jsonl")
        for path in sorted(p for p in (prompt / "samples").glob("*.png") if p.stem.isdigit()):
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file)
            found = oracle.detect(image, metadata)
            lines.append(json.dumps(result_line(str(path), metadata, judge(metadata, found), found)))
    if not lines:
        raise ValueError(f"images: {folder} has no <number>/samples/<number>.png")
    write_atomic(output, ("\n".join(lines) + "\n").encode())
    return len(lines)


def _metadata(path: Path) -> dict:
    try:
        line = json.loads(path.read_text())
        if not isinstance(line, dict) or not isinstance(line.get("prompt"), str):
            raise ValueError('it has no "prompt" that is a text')
        return checked_line(line)
    except (OSError, ValueError) as error:
        raise ValueError(f"metadata: {path} cannot be used ({error})") from error


def main() -> None:
    """The command line, see the module's docstring."""
    from trainer.oracles.registry import get_oracle

    parser = argparse.ArgumentParser(description="Judge a folder of images by GenEval.")
    parser.add_argument("images", type=Path, help="folder of <number>/metadata.jsonl and <number>/samples/<number>.png")
    parser.add_argument("--oracle", required=True, help="geneval:detector=FOLDER,clip=FOLDER")
    parser.add_argument("--output", type=Path, default=Path("results.jsonl"))
    a = parser.parse_args()
    oracle = get_oracle(a.oracle)
    if oracle.name != GenEvalOracle.name:
        parser.error(f"--oracle: {oracle.name} is not geneval")
    print(f"{evaluate_folder(oracle, a.images, a.output)} images judged: {a.output}")


if __name__ == "__main__":
    main()
