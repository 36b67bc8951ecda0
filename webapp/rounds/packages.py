"""A version for other programs: its LoRA, and a zip with the model card. Written when asked for; nothing is kept."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from zipstream import ZIP_STORED, ZipStream

from common import hub
from common.cards import LORA_NAME, Base, Made, made_as, model_card
from common.comfy import WORKFLOW_NAME, workflow
from common.portable import portable_lora
from common.round_folder import VERSION
from webapp.lib import paths, storage
from webapp.rounds.models import ModelVersion, TrainingRound


def lora(version: ModelVersion) -> Iterator[bytes]:
    """The LoRA in pieces. Raises ValueError, before the first, when its file is gone or damaged."""
    return portable_lora(_folder(version), title=_title(version), base=_base(version))


def archive(version: ModelVersion) -> Iterator[bytes]:
    """The zip's bytes: the LoRA, README.md, a ComfyUI workflow, and its round's pictures where they are still there. Raises
    ValueError, before the first byte, when the LoRA is gone or damaged."""
    packed = ZipStream(compress_type=ZIP_STORED)
    packed.add(lora(version), LORA_NAME)
    for name, text in _texts(version).items():
        packed.add(text.encode(), name)
    for name, pieces in _pictures(version).items():
        packed.add(pieces, name)
    return packed.finalize()


def send(version: ModelVersion, repository: str, *, private: bool) -> str:
    """Send the same files to a repository of the hub; returns its address. Raises what `hub.push` does, and ValueError when
    the LoRA is gone or damaged. Slow: for a worker."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / LORA_NAME
        with file.open("wb") as opened:
            opened.writelines(lora(version))
        files: dict[str, bytes | Path] = {LORA_NAME: file}
        files |= {name: text.encode() for name, text in _texts(version).items()}
        files |= {name: b"".join(pieces) for name, pieces in _pictures(version).items()}
        return hub.push(files, repository, message=_title(version), private=private)


def _texts(version: ModelVersion) -> dict[str, str]:
    """Card and workflow by name."""
    nodes = workflow(_base(version), steps=version.project.steps)
    return {"README.md": card(version), **({WORKFLOW_NAME: json.dumps(nodes, indent=1)} if nodes else {})}


def _pictures(version: ModelVersion) -> dict[str, Iterator[bytes]]:
    """Of the version's round, by name."""
    training, store = TrainingRound.objects.filter(result_version=version).first(), storage.store()
    if training is None:
        return {}
    found = {name: paths.grid(training.pk, name) for name in ("before", "after")}
    return {f"images/{name}.webp": store.pieces(path) for name, path in found.items() if store.exists(path)}


def card(version: ModelVersion) -> str:
    """README.md of the version."""
    return model_card(_title(version), _base(version), history(version), steps=version.project.steps)


def history(version: ModelVersion) -> list[Made]:
    """The version and those it came from, newest first. Scores and settings are the database's; what only the version's
    folder tells (labels by source) is left out where the folder is gone."""
    found = []
    rounds = {r.result_version_id: r for r in version.project.rounds.filter(result_version__isnull=False)}
    rows = {v.pk: v for v in version.project.versions.all()}
    row: ModelVersion | None = version
    while row is not None:
        made = made_as(f"version {row.number}", _about(row))
        if (training := rounds.get(row.pk)) is not None:
            made = dataclasses.replace(
                made,
                sha256=row.sha256,
                updates=training.step,
                settings=training.settings,
                scores_before=training.scores_before,
                scores_after=training.scores_after,
            )
        found.append(made)
        row = rows.get(row.parent_id)
    return found


def _folder(version: ModelVersion) -> Path:
    try:
        return storage.store().version(version.path, version.sha256)
    except FileNotFoundError:  # what reads it says what is missing
        return paths.model_version(version.path)


def _about(version: ModelVersion) -> dict:
    """Its version.json, which is read without its LoRA; empty when it is gone."""
    name = f"{version.path}/{VERSION}"
    try:
        data = Path(name).read_bytes() if Path(name).is_absolute() else storage.store().read(name)
    except FileNotFoundError:
        return {}
    return json.loads(data)


def _title(version: ModelVersion) -> str:
    return f"{version.project.name}, version {version.number}"


def _base(version: ModelVersion) -> Base:
    return Base.of(Path(version.project.model_dir))
