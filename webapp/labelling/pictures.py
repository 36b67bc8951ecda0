"""Images at the size a page shows them: smaller files for phones and for groups of many images."""

from __future__ import annotations

import io

from PIL import Image

from trainer.files import check_webp, write_image
from webapp import paths
from webapp.labelling.models import Generation

WIDTHS = (256, 512, 1024)  # the only ones that are made


def read_at(generation: Generation, wanted: str = "") -> bytes:
    """The image's file, the full one unless `wanted` is one of WIDTHS and smaller; a smaller one is made once and kept.

    Raises OSError when the image is gone and ValueError when it is damaged. A full disk costs only size.
    """
    with paths.data(generation.image).open("rb") as file:
        check_webp(file)
        data = file.read()
    if wanted not in map(str, WIDTHS) or int(wanted) >= generation.width:
        return data
    small = paths.data(paths.small_image(generation.image, int(wanted)))
    try:
        if not small.exists():
            with Image.open(io.BytesIO(data)) as image:
                height = round(image.height * int(wanted) / image.width)
                shrunk = image.convert("RGB").resize((int(wanted), height), Image.LANCZOS)
            write_image(small, shrunk, "WEBP", quality=90)
        return small.read_bytes()
    except OSError:
        return data
