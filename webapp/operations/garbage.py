"""What may be deleted: files that nobody can need again. Labelled groups, versions and their scores always stay."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from django.utils import timezone

from webapp import paths
from webapp.labelling.models import Group, GroupState
from webapp.rounds.models import OPEN, ModelVersion, TrainingRound

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
    strays: files and folders that no row names, such as what a killed process was writing
    """
    before = timezone.now() - older_than
    freed = {kind: Freed() for kind in ("unrated", "checkpoints", "strays")}
    for kind, found in (("unrated", _unrated), ("checkpoints", _checkpoints), ("strays", _strays)):
        for path in found(before, dry_run):
            files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
            freed[kind].files += len(files)
            freed[kind].bytes += sum(f.stat().st_size for f in files)
            if not dry_run:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return freed


def _unrated(before, dry_run: bool) -> Iterator[Path]:
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
            folder, file = paths.data(paths.image(project, pk, 0)).parent, paths.data(paths.trajectory(project, pk))
            yield from (path for path in (folder, file) if path.exists())


def _checkpoints(before, dry_run: bool) -> Iterator[Path]:
    for pk in TrainingRound.objects.exclude(state__in=OPEN).filter(finished_at__lt=before).values_list("pk", flat=True):
        for pattern in ("checkpoint", "checkpoint*.tmp", "checkpoint.old", "best"):
            yield from paths.round_dir(pk).glob(pattern)


def _strays(before, dry_run: bool) -> Iterator[Path]:
    root, oldest = paths.data(""), before.timestamp()
    groups = {str(pk) for pk in Group.objects.values_list("pk", flat=True)}
    rounds = {str(pk) for pk in TrainingRound.objects.values_list("pk", flat=True)}
    versions = set(ModelVersion.objects.values_list("path", flat=True))
    versions |= {paths.version(f"round-{pk}") for pk in rounds}
    kinds = (
        ("media/projects/*/groups/*", lambda path: path.name in groups),
        ("trajectories/*/*.safetensors", lambda path: path.stem in groups),
        ("rounds/*", lambda path: path.name in rounds),
        ("versions/*", lambda path: str(path.relative_to(root)) in versions),
    )
    found = [path for pattern, named in kinds for path in root.glob(pattern) if not named(path)]
    found += [path for folder in paths.FOLDERS for path in (root / folder).rglob(".*.tmp")]
    for path in found:
        if path.exists() and path.stat().st_mtime < oldest:
            yield path
