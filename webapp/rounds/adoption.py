"""Rounds that were trained elsewhere, entered as done: by `python -m trainer release --from-round`, for the demo."""

from __future__ import annotations

import json
from pathlib import Path

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from common.cards import LORA_NAME
from common.files import sha256_of
from webapp.campaigns.models import Project
from webapp.lib import paths, storage
from webapp.rounds.models import ModelVersion, RoundMetric, RoundState, TrainingRound, next_number
from webapp.rounds.services import RoundError


@transaction.atomic
def adopt_round(project: Project, folder: Path) -> TrainingRound:
    """The round of a release folder as the project's next, done, from the version that is published; what it made is a
    draft. The same folder gives the round that it gave before.

    Raises RoundError, naming the file, where the folder is not whole; then nothing is changed.
    """
    try:
        card = json.loads((folder / "round.json").read_text())
        pictures = {which: (folder / f"{which}.webp").read_bytes() for which in ("before", "after")}
        shown = file.read_bytes() if (file := folder / "comparison.json").is_file() else None
        found = sha256_of(folder / LORA_NAME)
        wanted, steps, scores_before, scores_after = (
            card[name] for name in ("sha256", "steps", "scores_before", "scores_after")
        )
        chosen, metrics = card["settings"], [(line["step"], line) for line in card["metrics"]]
        groups = sum(card["labels"].values()) // chosen["group_size"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise RoundError(_("round: %(folder)s is not whole: %(error)s") % {"folder": folder, "error": error}) from error
    if found != wanted:
        raise RoundError(_("round: %(file)s is not the file that round.json names") % {"file": folder / LORA_NAME})
    project = Project.objects.select_for_update().get(pk=project.pk)
    key = f"adopted-{wanted[:32]}"
    if (known := project.rounds.filter(idempotency_key=key).first()) is not None:
        return known
    version = ModelVersion.objects.create(
        project=project,
        number=next_number(project.versions),
        parent=project.active_version,
        path=str(folder),
        sha256=wanted,
        scores=scores_after,
    )
    training = TrainingRound.objects.create(
        project=project,
        number=next_number(project.rounds),
        base_version=project.active_version,
        result_version=version,
        settings=chosen,
        state=RoundState.DONE,
        idempotency_key=key,
        step=steps,
        total=steps,
        scores_before=scores_before,
        scores_after=scores_after,
        groups_used=groups,
        finished_at=timezone.now(),
    )
    RoundMetric.objects.bulk_create(
        RoundMetric(round=training, step=step, values={k: v for k, v in line.items() if k != "step"})
        for step, line in metrics
    )
    for which, picture in pictures.items():
        storage.store().write(paths.grid(training.pk, which), picture)
    if shown is not None:
        storage.store().write(paths.comparison(training.pk), shown)
    return training
