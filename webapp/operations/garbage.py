"""What may be deleted: files that nobody can need again. Labelled groups, versions and their scores always stay."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone

from common import round_folder
from webapp.campaigns.models import InputImage
from webapp.imports.models import ImportedImage
from webapp.labelling.models import Group, GroupState
from webapp.lib import paths, storage
from webapp.rounds.models import OPEN, ModelVersion, TrainingRound, Trial

BATCH = 500


@dataclass
class Freed:
    """Files and bytes of one kind."""

    files: int = 0
    bytes: int = 0


def collect(*, older_than: timedelta, dry_run: bool) -> dict[str, Freed]:
    """Delete what is older than `older_than`, or only count it; by kind:

    unrated: groups of a replaced version, or that failed, that nobody ever decided on, with images and trajectories
    checkpoints: training states of rounds that have ended
    strays: files that no row names, such as what a killed process was writing
    """
    store, before = storage.store(), timezone.now() - older_than
    freed = {kind: Freed() for kind in ("unrated", "checkpoints", "strays")}
    for kind, found in (("unrated", _unrated), ("checkpoints", _checkpoints), ("strays", _strays)):
        entries = found(store, before, dry_run)
        while batch := list(itertools.islice(entries, BATCH)):
            freed[kind].files += len(batch)
            freed[kind].bytes += sum(entry.size for entry in batch)
            if not dry_run:
                store.delete([entry.name for entry in batch])
    return freed


def _unrated(store, before, dry_run: bool) -> Iterator[storage.Entry]:
    states = [GroupState.SUPERSEDED, GroupState.FAILED]
    groups = Group.objects.filter(
        state__in=states, created_at__lt=before, group_decisions=None, generations__label_events=None, leases=None
    )
    rows = list(groups.values_list("pk", "project_id").distinct())
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        if not dry_run:  # rows first: a stop in between leaves strays, not rows without files
            Group.objects.filter(pk__in=[pk for pk, _ in batch]).delete()
        for pk, project in batch:
            yield from store.walk(paths.image(project, pk, 0).rsplit("/", 1)[0])
            if entry := store.entry(paths.trajectory(project, pk)):
                yield entry


def _checkpoints(store, before, dry_run: bool) -> Iterator[storage.Entry]:
    for pk in TrainingRound.objects.exclude(state__in=OPEN).filter(finished_at__lt=before).values_list("pk", flat=True):
        folder = paths.training_round(pk)
        for entry in store.walk(folder):
            if round_folder.ends_with_the_round(entry.name.removeprefix(f"{folder}/")):
                yield entry


def _strays(store, before, dry_run: bool) -> Iterator[storage.Entry]:
    groups = {str(pk) for pk in Group.objects.values_list("pk", flat=True)}
    own = set(ImportedImage.objects.values_list("digest", flat=True))
    trials = {str(pk) for pk in Trial.objects.values_list("pk", flat=True)}
    rounds = dict(TrainingRound.objects.values_list("pk", "state"))
    inputs = set(InputImage.objects.values_list("digest", flat=True))
    versions = set(ModelVersion.objects.values_list("path", flat=True))

    def named(name: str) -> bool:
        match name.split("/"):
            case ["media", "projects", _, "groups", group, *_]:
                return group in groups
            case ["media", "projects", _, "own", file]:
                return file.partition(".")[0] in own
            case ["media", "projects", _, "trials", trial, *_]:
                return trial in trials
            case ["media", "inputs", file]:
                return file.removesuffix(".webp") in inputs
            case ["trajectories", _, file]:
                return file.removesuffix(".safetensors") in groups
            case ["rounds", number, *_]:
                return number.isdecimal() and int(number) in rounds
            case ["versions", folder, *_]:
                number = folder.removeprefix("round-").partition("-")[0]  # one that is being written has no row yet
                being_made = folder.startswith("round-") and number.isdecimal() and rounds.get(int(number)) in OPEN
                return paths.version(folder) in versions or being_made
        return True

    for folder in paths.FOLDERS:
        for entry in store.walk(folder):
            file = entry.name.rsplit("/", 1)[-1]
            cut_off = file.startswith(".") and file.endswith(".tmp")
            if entry.modified < before.timestamp() and (cut_off or not named(entry.name)):
                yield entry
