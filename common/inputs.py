"""Images that prompts change: which models take them, and what of an upload is kept."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

from common.files import image_bytes
from common.intake import Unreadable, declared_size, picture
from common.language import gettext_noop
from common.sizes import MOST_PIXELS, Size

CHANGE_IMAGES = ("Flux2KleinPipeline",)  # pipelines whose prompts may have an input image
SHORTEST, LONGEST_RATIO = 64, 8  # pixels of a side, and long side over short one, as these pipelines take them
USED_PIXELS = 1024 * 1024  # a larger image is made as small before it is used, by these pipelines themselves


def changes_images(model_dir: Path) -> bool:
    """Whether prompts of the pipeline in this folder may have an input image."""
    try:
        return json.loads((model_dir / "model_index.json").read_text()).get("_class_name") in CHANGE_IMAGES
    except (OSError, ValueError, AttributeError):
        return False


def kept(data: bytes) -> tuple[str, bytes, Size]:
    """(SHA-256, lossless WebP, size) of a PNG or WebP image: its pixels and nothing else that was in the file. Raises
    Unreadable for another file or an image that no model takes, and ValueError or OSError for a damaged one."""
    width, height = declared_size(data)
    about = {"width": width, "height": height}
    if min(width, height) < SHORTEST:
        raise Unreadable(gettext_noop("it has %(width)s × %(height)s pixels; a side needs at least 64"), **about)
    if max(width, height) > LONGEST_RATIO * min(width, height):
        raise Unreadable(
            gettext_noop("it has %(width)s × %(height)s pixels; one side is more than 8 times the other"), **about
        )
    if width * height > MOST_PIXELS:
        about["most"] = f"{MOST_PIXELS:,}"
        raise Unreadable(gettext_noop("it has %(width)s × %(height)s pixels; %(most)s are the most"), **about)
    image = picture(data)
    written = image_bytes(image, "WEBP", lossless=True)
    return hashlib.sha256(written).hexdigest(), written, image.size


def output_size(size: Size, step: int) -> Size:
    """What the stock pipelines make of an input image of this size when nobody asks for another."""
    width, height = size
    if width * height > USED_PIXELS:
        scale = math.sqrt(USED_PIXELS / (width * height))
        width, height = int(width * scale), int(height * scale)
    return width // step * step, height // step * step
