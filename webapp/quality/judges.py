"""How each oracle of a project compares with its people, by tag. Slow: for a worker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from django.db import transaction
from django.utils import timezone

from webapp.campaigns.models import Project
from webapp.labelling.models import Group, GroupState, Label
from webapp.lib import bounds
from webapp.quality.calibration import Known, agreement, threshold
from webapp.quality.models import Consensus, GoldGroup, GoldKind, OracleQuality, Overrule

LOOKED_BACK = 2000  # groups that people rated, the newest
EVERYTHING = ""  # in place of a tag


def measure(project: Project, overruled: Callable[[Sequence[int]], dict[int, Overrule]]) -> int:
    """Write how far each oracle's likes and dislikes are people's (a reviewer's word, else the majority; even splits are
    left out), and the threshold that fits gold groups of reviewers: those that an oracle made would praise it. Returns
    how many oracles there are. `overruled` gives the reviewers' words that count, by image."""
    rated = Consensus.objects.filter(project=project, people__gt=0).exclude(group__state=GroupState.FLAGGED)
    newest = list(rated.order_by("-group").values_list("group", flat=True)[:LOOKED_BACK])
    judged = Label.objects.filter(generation__group__in=newest, annotator=None)
    groups = sorted(set(judged.values_list("generation__group", flat=True)))
    tags = {
        pk: _tag(metadata) for pk, metadata in Group.objects.filter(pk__in=groups).values_list("pk", "prompt__metadata")
    }
    known = {
        gold.group_id: {int(position): liked for position, liked in gold.answer.items()}
        for gold in GoldGroup.objects.filter(project=project, group__in=groups, kind=GoldKind.REVIEW)
    }
    votes: defaultdict[int, list[bool]] = defaultdict(list)
    said: list[tuple] = []
    rows = Label.objects.filter(generation__group__in=groups).values_list(
        "generation", "generation__group", "generation__position", "annotator", "oracle", "liked", "score"
    )
    for image, group, position, annotator, oracle, liked, score in rows.iterator(chunk_size=5000):
        if annotator is not None:
            votes[image].append(liked)
        else:
            said.append((oracle, group, image, position, liked, float(liked) if score is None else score))
    words = {image: word.liked for image, word in overruled(groups).items()}
    same: defaultdict[tuple[str, str], dict[int, list[bool]]] = defaultdict(lambda: defaultdict(list))
    scores: defaultdict[str, list[Known]] = defaultdict(list)
    for oracle, group, image, position, liked, score in said:
        if position in known.get(group, {}):
            scores[oracle].append(Known(group, score, known[group][position]))
        people = words.get(image, _majority(votes[image]))
        if people is not None:
            for tag in {EVERYTHING, tags[group]}:
                same[oracle, tag][group].append(liked == people)
    fitted = {oracle: threshold(found) for oracle, found in scores.items()}
    now, made = timezone.now(), []
    for (oracle, tag), by_group in same.items():
        found, fit = agreement(by_group), fitted.get(oracle) if tag == EVERYTHING else None
        made.append(
            OracleQuality(
                project=project,
                oracle=oracle,
                tag=tag,
                images=found.images,
                groups=found.groups,
                agreement=found.share,
                low=found.low,
                high=found.high,
                threshold=fit and fit.value,
                known=fit.images if fit else 0,
                right=fit and fit.right,
                measured_at=now,
            )
        )
    with transaction.atomic():
        project.oracle_qualities.all().delete()
        OracleQuality.objects.bulk_create(made)
    return len({row.oracle for row in made})


def _tag(metadata: dict) -> str:
    tag = metadata.get("tag")
    return tag[: bounds.WORD] if isinstance(tag, str) else EVERYTHING


def _majority(votes: Sequence[bool]) -> bool | None:
    """What more than half say; None where nobody or just half does."""
    likes = sum(votes)
    return None if 2 * likes == len(votes) else 2 * likes > len(votes)
