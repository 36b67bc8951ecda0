"""A version for other programs: its LoRA, and a zip with the model card. Written when asked for; nothing is kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from zipstream import ZIP_STORED, ZipStream

from common.cards import LORA_NAME, Base, Made, made_as, model_card
from common.portable import portable_lora
from common.round_folder import VERSION
from webapp.lib import paths, storage
from webapp.rounds.models import ModelVersion, TrainingRound


def lora(version: ModelVersion) -> Iterator[bytes]:
    """The LoRA in pieces. Raises ValueError, before the first, when its file is gone or damaged."""
    return portable_lora(_folder(version), title=_title(version), base=_base(version))


def archive(version: ModelVersion) -> Iterator[bytes]:
    """The zip's bytes: the LoRA, README.md, and its round's pictures where they are still there. Raises ValueError, before
    the first byte, when the LoRA is gone or damaged."""
    packed = ZipStream(compress_type=ZIP_STORED)
    packed.add(lora(version), LORA_NAME)
    packed.add(card(version).encode(), "README.md")
    training = TrainingRound.objects.filter(result_version=version).first()
    store = storage.store()
    for name in ("before", "after"):
        if training is not None and store.exists(picture := paths.grid(training.pk, name)):
            packed.add(store.pieces(picture), f"images/{name}.webp")
    return packed.finalize()


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
