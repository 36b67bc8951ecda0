"""Sizes of images in pixels: written as 1152x896, width first, and bounded in this one place."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from common.language import gettext_noop

Size = tuple[int, int]  # width, height

SMALLEST, LARGEST = 16, 8192  # pixels of a side
MOST_PIXELS = 4096 * 4096
MOST_SIZES = 16  # of a project
USUAL_STEP = 16  # twice the eight pixels that most autoencoders make one of


class SizeError(ValueError):
    """What is wrong with a size, in one sentence that begins with the field: `template % about`."""

    def __init__(self, template: str, **about):
        super().__init__(template % about)
        self.template, self.about = template, about


def parse_size(text: object, step: int = 1) -> Size:
    """The size that a text such as "1152x896" names. Raises SizeError, saying what it could be, on anything else, and on
    sides that are no multiples of `step` or out of bounds."""
    found = re.fullmatch(r"([0-9]{2,4})[x×]([0-9]{2,4})", text.strip().lower()) if isinstance(text, str) else None
    if found is None:
        template = gettext_noop("size: %(text)s is not written as WIDTHxHEIGHT, such as 1152x896")
        raise SizeError(template, text=repr(str(text)[:40]))
    size = int(found[1]), int(found[2])
    for side in size:
        if not SMALLEST <= side <= LARGEST:
            template = gettext_noop("size: %(size)s has a side that is not within %(low)s and %(high)s pixels")
            raise SizeError(template, size=size_text(size), low=SMALLEST, high=LARGEST)
        if size[0] * size[1] > MOST_PIXELS:
            template = gettext_noop("size: %(size)s has more than %(most)s pixels")
            raise SizeError(template, size=size_text(size), most=f"{MOST_PIXELS:,}")
        if side % step:
            template = gettext_noop("size: %(size)s is not of multiples of %(step)s pixels, as this model needs")
            raise SizeError(template, size=size_text(size), step=step)
    return size


def parse_sizes(text: str, step: int = 1) -> tuple[Size, ...]:
    """Several, separated by commas, spaces or lines; each once. Raises SizeError as `parse_size` does, and on too many."""
    sizes = tuple(dict.fromkeys(parse_size(part, step) for part in re.split(r"[\s,;]+", text) if part))
    if len(sizes) > MOST_SIZES:
        raise SizeError(gettext_noop("sizes: %(count)s are more than %(most)s"), count=len(sizes), most=MOST_SIZES)
    return sizes


def size_text(size: Sequence[int]) -> str:
    """As `parse_size` reads it."""
    return f"{size[0]}x{size[1]}"


def size_in(line: dict, default: Size | None = None) -> Size | None:
    """The size that a prompt's line names, or the default."""
    return parse_size(line["size"]) if line.get("size") else default


def dealt_out(lines: Sequence[dict], sizes: Sequence[Size]) -> list[dict]:
    """The lines, of which those that name no size get one of `sizes` in turn."""
    if not sizes:
        return list(lines)
    return [
        line if line.get("size") else line | {"size": size_text(sizes[i % len(sizes)])} for i, line in enumerate(lines)
    ]


def largest(sizes: Sequence[Size]) -> Size | None:
    """The one of the most pixels; None of none."""
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def step_of(model_dir: Path) -> int:
    """What the sides of a pipeline folder's images must be multiples of: two of the autoencoder's steps, since every family
    patches its latents by two. The usual 16 where its configuration does not tell."""
    try:
        config = json.loads((model_dir / "vae" / "config.json").read_text())
        return 2 * 2 ** (len(config["block_out_channels"]) - 1)
    except (OSError, ValueError, KeyError, TypeError):
        return USUAL_STEP
