"""A prompt as the trainer knows it, whatever judges its images, and the input image that it may change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from common.intake import declared_size, picture
from common.sizes import Size

INPUT = "input_image"  # of a line: its file in the folder of inputs, with or without the ending .webp


class Instruction(str):
    """A prompt's text together with the input image that it changes. It is a text wherever texts are passed on; two are
    equal only if their images are the same file. `without_text` is what guidance leads away from."""

    file: Path
    pixels: Size

    def __new__(cls, text: str, file: Path) -> Instruction:
        """Raises ValueError, naming the file, on one that is gone or no PNG or WebP image."""
        made = super().__new__(cls, text)
        try:
            with file.open("rb") as opened:
                made.file, made.pixels = file, declared_size(opened.read(64))
        except (OSError, ValueError) as error:
            raise ValueError(f"{INPUT}: {file} cannot be read ({error})") from error
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Instruction) and (str(self), self.file) == (str(other), other.file)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __getnewargs__(self) -> tuple[str, Path]:
        return str(self), self.file

    def __hash__(self) -> int:
        return hash((str(self), self.file))

    def __str__(self) -> str:
        return self[:]

    def without_text(self) -> Instruction:
        """The same image and the empty prompt."""
        return Instruction("", self.file)

    def read(self):
        """The image, in RGB. Raises ValueError, naming the file."""
        try:
            return picture(self.file.read_bytes())
        except (OSError, ValueError) as error:
            raise ValueError(f"{INPUT}: {self.file} cannot be read ({error})") from error


def without_text(prompts: Sequence[str]) -> list[str]:
    """The empty prompt for each, beside its input image where it has one."""
    return [prompt.without_text() if isinstance(prompt, Instruction) else "" for prompt in prompts]


def input_size(prompt: str) -> Size | None:
    """Of a prompt's input image in pixels; only prompts in which it is equal go through a network together."""
    return prompt.pixels if isinstance(prompt, Instruction) else None


def with_inputs(lines: Sequence[dict], folder: Path | None) -> list[dict]:
    """The lines, in which the prompt of each that names an input image is an `Instruction`. Raises ValueError, naming what
    is missing."""
    return [
        {**line, "prompt": instruction(line["prompt"], line[INPUT], folder)} if line.get(INPUT) else line
        for line in lines
    ]


def instruction(text: str, name: object, folder: Path | None) -> Instruction:
    """The text with the input image `name` of the folder."""
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise ValueError(f"{INPUT}: {str(name)[:80]!r} is not a file's name in the folder of inputs")
    if folder is None:
        raise ValueError(f"{INPUT}: {name[:80]!r} is named, but no folder of inputs is given; give one with --inputs")
    file = folder / name
    return Instruction(text, file if file.exists() else file.with_name(f"{name}.webp"))


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
