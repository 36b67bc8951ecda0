"""Prompts that a project has: found, taken back, put back, given another kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from django.db import transaction
from django.db.models import Count, Q, QuerySet, Sum
from django.utils import timezone
from django.utils.translation import gettext as _

from webapp.campaigns.archive import check_open
from webapp.campaigns.audit import audit
from webapp.campaigns.models import Project, Prompt, Split
from webapp.campaigns.services import CampaignError
from webapp.labelling.models import LABEL_WEIGHT, Group, GroupState, Label
from webapp.lib import bounds

WITHDRAWN = "withdrawn"
SHOWN = (*Split.values, WITHDRAWN)  # what the list can be narrowed to


def find(project: Project, *, words: str = "", show: str = "") -> QuerySet[Prompt]:
    """The project's prompts that contain all `words`, in any order; `show` is empty or one of `SHOWN`."""
    rows = project.prompts.order_by("pk")
    for word in words.split():
        rows = rows.filter(text__icontains=word)
    if show == WITHDRAWN:
        return rows.exclude(withdrawn_at=None)
    return rows.in_use().filter(split=show) if show else rows


@transaction.atomic
def withdraw(project: Project, ids: Collection[int], by) -> int:
    """Make no more images of these prompts, and drop the groups of them that nobody has rated or on screen; returns how
    many were in use. Their labels stay and count."""
    check_open(project, CampaignError)
    changed = project.prompts.in_use().filter(pk__in=ids).update(withdrawn_at=timezone.now())
    Group.objects.filter(project=project, prompt__in=ids).supersede()
    if changed:
        audit(project, by, "prompts withdrawn", prompts=changed)
    return changed


@transaction.atomic
def restore(project: Project, ids: Collection[int], by) -> int:
    """Images are made of these prompts again; returns how many were withdrawn."""
    check_open(project, CampaignError)
    changed = project.prompts.filter(pk__in=ids).exclude(withdrawn_at=None).update(withdrawn_at=None)
    if changed:
        audit(project, by, "prompts restored", prompts=changed)
    return changed


@transaction.atomic
def set_tag(project: Project, ids: Collection[int], tag: str, by) -> int:
    """Give these prompts the tag, or none; returns how many had another. Raises CampaignError for one that is too long."""
    check_open(project, CampaignError)
    tag = tag.strip()
    if len(tag) > bounds.WORD:
        raise CampaignError(_("tag: at most %(most)s characters") % {"most": bounds.WORD})
    changed = []
    for prompt in project.prompts.select_for_update().filter(pk__in=ids):
        if prompt.metadata.get("tag", "") != tag:
            prompt.metadata.pop("tag", None)
            if tag:
                prompt.metadata["tag"] = tag
            changed.append(prompt)
    Prompt.objects.bulk_update(changed, ["metadata"], batch_size=500)
    if changed:
        audit(project, by, "prompts tagged", prompts=len(changed), tag=tag)
    return len(changed)


def tags_of(project: Project) -> list[str]:
    """The tags that its prompts have, for a list of suggestions."""
    rows = project.prompts.filter(metadata__has_key="tag").values_list("metadata__tag", flat=True)
    return sorted(tag for tag in rows.order_by().distinct() if isinstance(tag, str))[:200]


def like_rates(prompts: Collection[int]) -> dict[int, list[tuple[int, float, int]]]:
    """By prompt: (version's number, share of likes, labels), by version. People's labels where there are any, else the
    oracles'; those of flagged groups and of own images are left out."""
    labels = Label.objects.filter(generation__group__prompt__in=prompts)
    rows = (
        labels.exclude(generation__group__state=GroupState.FLAGGED)
        .exclude(generation__group__version=None)
        .values_list("generation__group__prompt", "generation__group__version__number", "oracle")
        .annotate(labels=Count("pk"), weight=Sum(LABEL_WEIGHT), likes=Sum(LABEL_WEIGHT, filter=Q(liked=True)))
        .order_by()
    )
    counts: defaultdict[tuple[int, int], dict[bool, list]] = defaultdict(lambda: {True: [0, 0, 0], False: [0, 0, 0]})
    for prompt, version, oracle, given, weight, likes in rows:
        sums = counts[prompt, version][not oracle]
        sums[0] += given
        sums[1] += weight
        sums[2] += likes or 0
    found: defaultdict[int, list[tuple[int, float, int]]] = defaultdict(list)
    for (prompt, version), by_whom in sorted(counts.items()):
        given, weight, likes = by_whom[True] if by_whom[True][0] else by_whom[False]
        found[prompt].append((version, likes / weight, given))
    return dict(found)
