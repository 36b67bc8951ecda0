"""Where files are. The only module that builds their names; docs/architecture.md draws the tree."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from common import round_folder

# Everything that a back-up must hold lies in these folders of the data folder; what else is there can be made again.
FOLDERS = ("media", "trajectories", "versions", "rounds")
INPUTS = "media/inputs"


def image(project_id: int, group_id: int, position: int) -> str:
    """An image of a group, relative to the data folder."""
    return f"media/projects/{project_id}/groups/{group_id}/{position}.webp"


def own_image(project_id: int, digest: str) -> str:
    """An image that somebody brought in, relative to the data folder: it lies there before its group has a number."""
    return f"media/projects/{project_id}/own/{digest}.webp"


def small_image(image_name: str, width: int) -> str:
    """An image no wider than `width` pixels, beside the full one; made when it is first asked for."""
    return f"{image_name.removesuffix('.webp')}.w{width}.webp"


def input_image(digest: str) -> str:
    """An image that prompts change, by the hash of its content, relative to the data folder."""
    return f"{INPUTS}/{digest}.webp"


def pair_image(project_id: int, pair_id: int, version: str) -> str:
    """The image of version "a", "b", … of a comparison's pair, relative to the data folder."""
    return f"media/projects/{project_id}/pairs/{pair_id}/{version}.webp"


def trial_image(project_id: int, trial_id: int, column: int, row: int) -> str:
    """The image of a trial's side `column` from its seed `row`, relative to the data folder."""
    return f"media/projects/{project_id}/trials/{trial_id}/{column}-{row}.webp"


def trajectory(project_id: int, group_id: int) -> str:
    """A group's trajectories, relative to the data folder."""
    return f"trajectories/{project_id}/{group_id}.safetensors"


def version(version_id: int | str) -> str:
    """A model version's folder, relative to the data folder."""
    return f"versions/{version_id}"


def round_version(round_id: int, token: int) -> str:
    """The folder of what a round made, relative to the data folder. Each owner of the round has its own, so that one who
    lost the round cannot write over the version of the one who ended it."""
    return version(f"round-{round_id}-{token}")


def training_round(round_id: int) -> str:
    """A training round's folder, relative to the data folder."""
    return f"rounds/{round_id}"


def round_dir(round_id: int) -> Path:
    """A training round's folder on this machine."""
    return data(training_round(round_id))


def work_dir(round_id: int, token: int) -> Path:
    """Where an owner of a round works on it when its files are kept in a bucket. As deep as `round_dir`, so that names
    relative to either are the same."""
    return data(f"work/{round_id}-{token}")


def grid(round_id: int, which: str) -> str:
    """The picture `before`, `after` or `surrogate` of a round, relative to the data folder."""
    return f"{training_round(round_id)}/{round_folder.grid(which)}"


def comparison(round_id: int) -> str:
    """What those pictures show, relative to the data folder."""
    return f"{training_round(round_id)}/{round_folder.COMPARISON}"


def cached(sha256: str) -> Path:
    """This machine's copy of a file in the bucket, by its hash."""
    return data(f"cache/files/{sha256[:2]}/{sha256}")


def cached_version(sha256: str) -> Path:
    """This machine's copy of a version's folder, by the hash of its LoRA."""
    return data(f"cache/versions/{sha256}")


def copies() -> list[Path]:
    """What `cached` and `cached_version` name and is there."""
    root = data("cache")
    return [*root.glob("files/*/*"), *root.glob("versions/*")]


def data(relative: str) -> Path:
    """A file of the data folder. Raises ValueError on a name that leads out of it."""
    root = settings.LIKESTEP_DATA.resolve()
    path = (root / relative).resolve()
    if not path.is_relative_to(root):
        raise ValueError(f"path: {relative!r} leads out of the data folder")
    return path


def model_version(stored: str) -> Path:
    """The folder of a version's LoRA: relative names lie in the data folder, the shipped student where it is shipped."""
    return Path(stored) if Path(stored).is_absolute() else data(stored)
