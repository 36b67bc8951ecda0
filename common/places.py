"""Where the files that are no code lie, in a checkout and in an installed package. Standard library only.

The wheel has `templates`, `static` and `locale` inside of `webapp`, since top-level folders of these names would meet other
packages' in site-packages; the demo's weights are in a wheel of their own, `likestep-demo`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

CODE = Path(__file__).resolve().parents[1]  # the folder that `common`, `webapp` and the others are imported from
CHECKOUT = not (CODE / "webapp" / "templates").is_dir()  # a checkout or the image, where nothing is installed


def shipped(name: str) -> Path:
    """The folder `templates`, `static` or `locale`."""
    return CODE / name if CHECKOUT else CODE / "webapp" / name


def models() -> Path:
    """The folder of the demo's models, which need not be there: without the package `likestep-demo` it is not."""
    if not CHECKOUT and (found := importlib.util.find_spec("likestep_demo")):
        return Path(next(iter(found.submodule_search_locations or [])))
    return CODE / "models"


def data() -> Path:
    """Where the product keeps what it makes, unless told otherwise: `data/` of a checkout; installed, the user's folder for
    data of programs."""
    if CHECKOUT:
        return CODE / "data"
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "likestep"
    return Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "likestep"


def collected() -> Path:
    """Where `collectstatic` puts files, unless told otherwise."""
    return (CODE if CHECKOUT else data()) / "staticfiles"
