"""Images at the size a page shows them: smaller files for phones and for groups of many images."""

from __future__ import annotations

import errno
import io
import os

from PIL import Image

from common.files import check_webp, image_bytes
from common.intake import picture
from webapp.labelling.models import Generation
from webapp.lib import paths, storage

WIDTHS = (256, 512, 1024)  # the only ones that are made


def write(name: str, image: Image.Image) -> None:
    """Keep a new image, and at each of WIDTHS that is smaller: were those made when somebody first looks, one could tell
    by the time which images others have seen."""
    keep(name, made(image))


def made(image: Image.Image) -> dict[int, bytes]:
    """The files of a new image by their width, the full one first."""
    data = image_bytes(image, "WEBP", quality=95)
    return {image.width: data} | {width: _shrunk(data, width) for width in WIDTHS if width < image.width}


def keep(name: str, files: dict[int, bytes]) -> None:
    """Keep what `made` gave as the image `name`."""
    full, *smaller = files
    storage.store().write(name, files[full])
    for width in smaller:
        storage.store().write(paths.small_image(name, width), files[width])


def read_at(generation: Generation, wanted: str = "") -> bytes:
    """The image's file, the full one unless `wanted` is one of WIDTHS and smaller; one of those that is not there is made
    and kept.

    Raises OSError when the image is gone and ValueError when it is damaged. A full disk costs only size.
    """
    store = storage.store()
    data = _whole(generation)
    if not _smaller(generation, wanted):
        return data
    small = paths.small_image(generation.image, int(wanted))
    try:
        if not store.exists(small):
            _shrink(data, small, int(wanted))
        return store.read(small)
    except OSError:
        return data


def name_at(generation: Generation, wanted: str = "") -> str:
    """The name of the same file, which is there; a full image is not read for it. Raises as `read_at`."""
    store = storage.store()
    name = paths.small_image(generation.image, int(wanted)) if _smaller(generation, wanted) else generation.image
    if not store.exists(name):
        if name == generation.image:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        _shrink(_whole(generation), name, int(wanted))
    return name


def _smaller(generation: Generation, wanted: str) -> bool:
    return wanted in map(str, WIDTHS) and int(wanted) < generation.width


def _whole(generation: Generation) -> bytes:
    data = storage.store().read(generation.image)
    check_webp(io.BytesIO(data))
    return data


def _shrink(data: bytes, name: str, width: int) -> None:
    storage.store().write(name, _shrunk(data, width))


def _shrunk(data: bytes, width: int) -> bytes:
    image = picture(data)
    height = round(image.height * width / image.width)
    return image_bytes(image.resize((width, height), Image.LANCZOS), "WEBP", quality=90)
