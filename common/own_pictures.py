"""Somebody's own images: PNG, JPEG or WebP of any size become squares of the model's size, with nothing of the file left
but its pixels. Sizes are asked of the header before anything is decoded."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common import notes, pngs
from common.intake import Unreadable, declared_size, kind
from common.language import gettext_noop

if TYPE_CHECKING:
    from PIL import Image

FORMS = {"PNG": "PNG", "JPEG": "JPEG", "WebP": "WEBP"}  # by `intake.kind`; pillow's names
MOST_PIXELS = 25_000_000  # of an image
LEAST_SIDE = 16
ORIENTATION, LYING = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values that turn by a quarter
LONGEST_NOTE = 1_000_000  # bytes of EXIF that are looked into
# Pixels of a side, by the pipeline's class, where its network does not say it; see trainer/backends.
DEFAULT_SIDE = {"ZImagePipeline": 1024}
DEFAULT_SAMPLES = dict.fromkeys(("Flux2KleinPipeline", "Flux2Pipeline", "FluxPipeline", "QwenImagePipeline"), 128)
NETWORKS = {"StableDiffusion3Pipeline": "transformer", "StableDiffusionXLPipeline": "unet"}


@dataclass(frozen=True)
class Fitted:
    """A square image, and what it was before: width and height as they are seen."""

    image: Image.Image
    width: int
    height: int

    @property
    def is_cut(self) -> bool:
        """Whether edges were cut off."""
        return self.width != self.height

    @property
    def is_resized(self) -> bool:
        """Whether it has not the size that it came with."""
        return (self.width, self.height) != self.image.size


def digest(data: bytes) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(data).hexdigest()


def size_of(data: bytes) -> tuple[int, int]:
    """(width, height) by the header. Raises Unreadable for what is no PNG, JPEG or WebP image, or has too many or too few
    pixels."""
    found = kind(data)
    if found not in FORMS:
        raise Unreadable(gettext_noop("its content is %(kind)s; PNG, JPEG and WebP images are taken"), kind=found)
    if found == "JPEG":
        with _opened(data, "JPEG") as image:
            width, height = image.size
    else:
        width, height = declared_size(data)
    if width * height > MOST_PIXELS:
        about = {"width": width, "height": height, "most": f"{MOST_PIXELS:,}"}
        raise Unreadable(gettext_noop("it has %(width)s × %(height)s pixels; %(most)s are the most"), **about)
    if min(width, height) < LEAST_SIDE:
        about = {"width": width, "height": height, "least": LEAST_SIDE}
        raise Unreadable(gettext_noop("it has %(width)s × %(height)s pixels; a side has at least %(least)s"), **about)
    return width, height


def fitted(data: bytes, side: int) -> Fitted:
    """The image's middle as a square of `side` pixels, in RGB: turned as its EXIF says, what is transparent on white.
    Raises Unreadable."""
    from PIL import Image, ImageOps

    form = FORMS.get(kind(data), "")
    width, height = size_of(data)
    try:
        with _opened(pngs.bare(data) if form == "PNG" else data, form) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise Unreadable(gettext_noop("it is animated; send a single image"))
            if form == "JPEG":
                image.draft("RGB", (2 * side, 2 * side))  # decodes large ones smaller
            if image.getexif().get(ORIENTATION) in LYING:
                width, height = height, width
            turned = ImageOps.exif_transpose(image)
            square = ImageOps.fit(_plain(turned), (side, side), Image.Resampling.LANCZOS)
    except Unreadable:
        raise
    except Exception as error:  # decoders raise of many types
        raise Unreadable(gettext_noop("it cannot be decoded (%(error)s)"), error=str(error)[:200]) from error
    return Fitted(square, width, height)


def noted_prompt(data: bytes) -> tuple[str, str] | None:
    """(prompt, program) that the file itself names, None where it names none. Raises Unreadable."""
    form = FORMS.get(kind(data), "")
    if form == "PNG":
        return notes.prompt_of(pngs.texts(data))
    try:
        with _opened(data, form) as image:
            if len(image.info.get("exif", b"")) > LONGEST_NOTE:
                return None
            comment = image.getexif().get_ifd(0x8769).get(0x9286, b"")
    except Exception:  # EXIF of any kind of damage says nothing
        return None
    return notes.prompt_of({"parameters": notes.exif_note(comment)}) if isinstance(comment, bytes) else None


def _opened(data: bytes, form: str):
    from PIL import Image

    try:
        return Image.open(io.BytesIO(data), formats=[form])
    except Exception as error:
        raise Unreadable(gettext_noop("it cannot be decoded (%(error)s)"), error=str(error)[:200]) from error


def _plain(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith(("I", "F")):  # 16 bits of grey, of which pillow would cut the upper ones off
        image = image.point(lambda v: v * (1 / 256)).convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def side_of(folder: Path | str) -> int | None:
    """Pixels of a side of what the pipeline in `folder` makes; None where it is not here or of another family."""
    folder = Path(folder)
    try:
        name = json.loads((folder / "model_index.json").read_text())["_class_name"]
        own = folder / "likestep.json"
        if own.is_file() and (size := json.loads(own.read_text()).get("size")):
            return int(size)
        if name in DEFAULT_SIDE:
            return DEFAULT_SIDE[name]
        vae = json.loads((folder / "vae" / "config.json").read_text())
        halved = len(vae["temperal_downsample"]) if "temperal_downsample" in vae else len(vae["block_out_channels"]) - 1
        if name in DEFAULT_SAMPLES:
            return DEFAULT_SAMPLES[name] * 2**halved
        return int(json.loads((folder / NETWORKS[name] / "config.json").read_text())["sample_size"]) * 2**halved
    except (OSError, ValueError, KeyError, TypeError):
        return None
