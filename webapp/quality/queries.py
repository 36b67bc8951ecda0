"""Reads of quality: people, measurements over time, groups to review."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Count, F, Q, Sum
from django.utils.translation import gettext_lazy as _

from webapp.campaigns.models import Project
from webapp.labelling.models import Group, GroupState, Label, LabelEvent
from webapp.quality.models import Consensus, GoldAnswer, GoldKind, Overrule, PersonQuality
from webapp.quality.signal import HAS_SIGNAL

# What makes a reviewer look at a person; see `concerns`.
LOW_GOLD, FEW_GOLD = 0.6, 5
LOW_AGREEMENT, FEW_SHARED = 0.55, 40
HASTY_SHARE, FEW_GROUPS = 0.1, 10
FAILED_ATTENTION = 2
MOST_REASONS = 50  # that the page lists


@dataclass(frozen=True)
class PersonRow:
    """A person of the quality page."""

    quality: PersonQuality
    gold_right: int
    gold_total: int
    attention_failed: int

    @property
    def like_rate(self) -> float | None:
        """Share of likes among the person's labels."""
        return self.quality.likes / self.quality.labels if self.quality.labels else None

    @property
    def gold_share(self) -> float | None:
        """Share of gold images seen as their answers have them."""
        return self.gold_right / self.gold_total if self.gold_total else None

    def concerns(self) -> list[str]:
        """Why a reviewer should look at this person's work; empty when nothing stands out."""
        q, found = self.quality, []
        if self.attention_failed >= FAILED_ATTENTION:
            found.append(
                _("missed %(attention_failed)s attention checks") % {"attention_failed": self.attention_failed}
            )
        if self.gold_total >= FEW_GOLD and self.gold_share < LOW_GOLD:
            found.append(_("right on %(gold_share)s of the known images") % {"gold_share": f"{self.gold_share:.0%}"})
        if q.shared >= FEW_SHARED and q.agreement is not None and q.agreement < LOW_AGREEMENT:
            found.append(_("agrees with others on %(agreement)s") % {"agreement": f"{q.agreement:.0%}"})
        if q.groups >= FEW_GROUPS and q.hasty / q.groups > HASTY_SHARE:
            found.append(
                _("answered %(hasty)s of %(groups)s groups too fast to have looked")
                % {"hasty": q.hasty, "groups": q.groups}
            )
        if q.labels >= FEW_SHARED and self.like_rate in (0.0, 1.0):
            found.append(_("gave the same answer to every image"))
        return found


def people(project: Project) -> list[PersonRow]:
    """Everybody who was measured, those to look at first."""
    answers = GoldAnswer.objects.filter(gold__project=project)
    gold = {row["user"]: row for row in answers.values("user").annotate(sum_right=Sum("right"), sum_total=Sum("total"))}
    failed = dict(
        answers.filter(gold__kind=GoldKind.ATTENTION, total__gt=2 * F("right"))
        .values_list("user")
        .annotate(n=Count("id"))
        .order_by()
    )
    rows = [
        PersonRow(
            q,
            gold.get(q.user_id, {}).get("sum_right", 0),
            gold.get(q.user_id, {}).get("sum_total", 0),
            failed.get(q.user_id, 0),
        )
        for q in PersonQuality.objects.filter(project=project).select_related("user")
    ]
    return sorted(rows, key=lambda r: (-len(r.concerns()), r.quality.user.username))


def reasons(project: Project) -> list[dict]:
    """Why people disliked images: `{reason, dislikes, boxes, versions}`, the most frequent first; `versions` has (number,
    dislikes). Flagged groups are left out."""
    labels = Label.objects.filter(generation__group__project=project, annotator__isnull=False, liked=False)
    rows = (
        labels.exclude(reason="")
        .exclude(generation__group__state=GroupState.FLAGGED)
        .values_list("reason", "generation__group__version__number")
        .annotate(n=Count("pk"), boxes=Count("pk", filter=Q(box__isnull=False)))
        .order_by("reason", "generation__group__version__number")
    )
    found: dict[str, dict] = {}
    for reason, version, n, boxes in rows:
        row = found.setdefault(reason, {"reason": reason, "dislikes": 0, "boxes": 0, "versions": []})
        row["dislikes"] += n
        row["boxes"] += boxes
        row["versions"].append((version, n))
    return sorted(found.values(), key=lambda row: (-row["dislikes"], row["reason"]))[:MOST_REASONS]


def alpha_over_time(project: Project, *, points: int = 500) -> list[dict]:
    """`{at, alpha, labels}` of the newest measurements with an alpha, oldest first."""
    rows = project.qualities.filter(alpha__isnull=False).values_list("created_at", "alpha", "labels")[:points]
    return [{"at": at.isoformat(), "alpha": alpha, "labels": labels} for at, alpha, labels in reversed(rows)]


ORDERS = {
    "ties": (_("evenly split"), Q(tie=True)),
    "several": (_("rated by several people"), Q(people__gt=1)),
    "signal": (_("with signal"), HAS_SIGNAL),
    "all": (_("all labelled"), Q()),
}


def to_review(project: Project, which: str, before: int | None, *, count: int = 24) -> list[Group]:
    """Labelled groups of one of `ORDERS`, newest first, with ids below `before`; a page of `count`."""
    settled = Consensus.objects.filter(ORDERS[which][1], project=project)
    if before is not None:
        settled = settled.filter(group__lt=before)
    ids = list(settled.order_by("-group").values_list("group", flat=True)[:count])
    rows = Group.objects.filter(pk__in=ids).order_by("-id").select_related("prompt", "version", "consensus", "gold")
    return list(rows.prefetch_related("generations"))


def review(group: Group) -> dict:
    """All that is known of a group's images: `images` in order with their labels, rewards, words and history."""
    rewards = group.consensus.rewards if hasattr(group, "consensus") else [None] * group.size
    words: dict[int, list[Overrule]] = {}
    for word in Overrule.objects.filter(generation__group=group).select_related("reviewer"):
        words.setdefault(word.generation_id, []).append(word)
    events: dict[int, list[LabelEvent]] = {}
    for event in (
        LabelEvent.objects.filter(generation__group=group, cause="").select_related("annotator").order_by("id")
    ):
        events.setdefault(event.generation_id, []).append(event)
    images = [
        {
            "generation": image,
            "reward": rewards[image.position],
            "labels": sorted(image.labels.all(), key=lambda v: (v.annotator is None, v.pk)),
            "boxes": [label.box for label in image.labels.all() if label.box],
            "words": words.get(image.pk, []),
            "events": events.get(image.pk, []),
        }
        for image in group.generations.prefetch_related("labels__annotator")
    ]
    decisions = group.group_decisions.select_related("user").order_by("id")
    return {"images": images, "decisions": decisions}
