"""When the next round is worth it: what it needs by what earlier rounds came to, and whether each of those was worth it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from django.db import transaction
from django.utils import timezone

from webapp.campaigns.models import LabelSource, Project
from webapp.labelling import choice
from webapp.labelling import queries as labelling
from webapp.labelling.models import Group, GroupState
from webapp.lib import events
from webapp.quality import counts
from webapp.quality.models import Consensus
from webapp.rounds import standings
from webapp.rounds.models import Basis, ModelVersion, RoundForecast, RoundState, TrainingRound, VersionStatus
from webapp.rounds.staircase import LIKELY, Ended, chance_better, chance_of_scores, labels_needed

# Labelled groups of a new version from which it is compared, once: about what the labels of a first forecast come from.
ENOUGH = 30
FEWEST = 8  # groups of either version with which one that gets no more is compared
MOST = 200  # groups of a version that are looked at, the newest
JUDGED = 10  # forecasts that "right k of the last m times" is about
AT_ONCE = 100  # forecasts that a pass of housekeeping looks at, the newest


@dataclass(frozen=True)
class NextRound:
    """Labels of images in groups with signal that the next round needs and has; about how many labels more people (or the
    oracle) have to give for it, silent groups and overlap counted in; how often the last forecasts were right."""

    needed: int
    had: int
    more: int
    right: int
    judged: int


def next_round(project: Project) -> NextRound:
    """The forecast of now."""
    ended = _ended(project)
    last = project.rounds.exclude(state__in=[RoundState.FAILED, RoundState.CANCELLED]).first()
    fresh = counts.groups_with_signal_since(project, last.created_at if last else None)
    needed, had = labels_needed(ended), fresh * project.group_size
    each = counts.answers_a_group(project) if project.label_source != LabelSource.ORACLE else 1
    share = counts.signal_share(project) or 1.0
    more = rounded(max(0, needed - had) / share * each)
    hits = [e.hit for e in ended[-JUDGED:]]
    return NextRound(needed, had, more, sum(hits), len(hits))


def _ended(project: Project) -> list[Ended]:
    known = RoundForecast.objects.filter(round__project=project, worth__isnull=False).order_by("round__number")
    return [Ended(*values) for values in known.values_list("needed", "had", "worth")]


def rounded(labels: float) -> int:
    """Up to two digits: a forecast knows no more."""
    digits = max(1, 10 ** (len(str(ceil(labels))) - 2))
    return ceil(labels / digits) * digits


def groups_missing(project: Project) -> int | None:
    """Groups with signal until a round starts by itself; None when none ever does. A round that failed starts the count
    anew, so that it is not tried again and again."""
    wanted = []
    if project.auto_start_after:
        wanted.append(project.auto_start_after)
    if project.auto_start_by_forecast:
        wanted.append(ceil(labels_needed(_ended(project)) / project.group_size))
    if not wanted:
        return None
    last = project.rounds.first()
    return max(0, min(wanted) - counts.groups_with_signal_since(project, last.created_at if last else None))


def settle() -> int:
    """Fill in whether ended rounds were worth it, where that can be told now; returns how many. Two passes at once fill a
    row once."""
    waiting = RoundForecast.objects.filter(known_at=None, round__state=RoundState.DONE).order_by("-round_id")
    waiting = waiting.select_related("round__project", "round__base_version", "round__result_version")
    settled = 0
    for row in waiting[:AT_ONCE]:
        found = outcome(row.round)
        if found is None:
            continue
        with transaction.atomic():
            still = RoundForecast.objects.filter(pk=row.pk, known_at=None)
            if still.update(known_at=timezone.now(), **found):
                events.publish(row.round.project_id, "round", round=row.pk)
                settled += 1
    return settled


def outcome(training: TrainingRound) -> dict | None:
    """`worth`, `chance` and `basis` of a done round; None while they are not known.

    A blind test of the two versions decides, if one has ended. An oracle that labels decides by its validation scores.
    People decide by publishing or not, and then by the labels of both versions' images.
    """
    project, old, new = training.project, training.base_version, training.result_version
    tested = standings.better(old, new)
    if tested is not None:
        return _found(Basis.COMPARISON, tested)
    oracle = project.label_source == LabelSource.ORACLE
    before, after = training.scores_before.get("reward"), training.scores_after.get("reward")
    images = training.settings.get("validation_images", 0)
    if oracle and images and before is not None and after is not None:
        chance = chance_of_scores(before, after, images)
        return _found(Basis.SCORES, chance >= LIKELY, chance)
    if new.status == VersionStatus.KEPT_OUT:
        return _found(Basis.KEPT_OUT, False)
    if new.status == VersionStatus.DRAFT:
        return None
    return _by_labels(project, old, new, everybody=oracle)


def _by_labels(project: Project, old: ModelVersion, new: ModelVersion, *, everybody: bool) -> dict | None:
    likes = _likes(new, everybody)
    if len(likes) < ENOUGH and _gets_more(project, new):
        return None
    before = _likes(old, everybody)
    if min(len(likes), len(before)) < FEWEST:
        return _found(Basis.TOO_FEW, None)
    chance = chance_better(likes, before)
    return _found(Basis.LABELS, chance >= LIKELY, chance)


def _likes(version: ModelVersion, everybody: bool) -> list[tuple[float, float]]:
    """Of each of the version's newest labelled groups the share of likes among the images that were made of it, of people's
    labels unless `everybody`'s, and the group's weight among all prompts."""
    rows = Consensus.objects.filter(group__version=version).exclude(group__state=GroupState.FLAGGED)
    if not everybody:
        rows = rows.filter(people__gt=0)
    newest = list(rows.order_by("-group").values_list("group", "rewards", "group__chance", "group__made")[:MOST])
    chosen = labelling.inclusions([group for group, _rewards, _chance, made in newest if made])
    shares = ((choice.share(rewards, chosen.get(group)), chance) for group, rewards, chance, _made in newest)
    return [(share, 1 / chance) for share, chance in shares if share is not None]


def _gets_more(project: Project, version: ModelVersion) -> bool:
    on_the_way = [GroupState.QUEUED, GroupState.GENERATING, GroupState.READY]
    return (
        project.active_version_id == version.pk or Group.objects.filter(version=version, state__in=on_the_way).exists()
    )


def _found(basis: Basis, worth: bool | None, chance: float | None = None) -> dict:
    return {"basis": basis, "worth": worth, "chance": chance}
