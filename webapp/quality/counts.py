"""How many: of a project's groups by state and of those that teach, of labels by version and by quarter of an hour. What
would be slow to count in a large project a worker counts; pages read its counts."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.db.models import Count, Max, Q, Sum
from django.db.models.functions import ExtractMinute, Floor, TruncHour
from django.utils import timezone

from webapp.campaigns.models import Project
from webapp.labelling.models import LABEL_WEIGHT, Group, GroupState, Label
from webapp.lib import options
from webapp.quality.models import Consensus, ProjectCount, QuarterCount, VersionCount
from webapp.quality.signal import HAS_SIGNAL

LIKED = Sum(LABEL_WEIGHT, filter=Q(liked=True))
COUNTED_EVERY = timedelta(minutes=1)
RECOUNT = timedelta(minutes=10)  # a transaction that was open while the last count was made has ended since
LAST_DONE = 500  # groups that the answers of a range are counted over
LATELY = timedelta(days=14)  # work of this long ago is what forecasts are made from


# ---------------------------------------------------------------- a worker counts


@transaction.atomic
def count_quarters(project: Project) -> int:
    """Count the quarters of an hour from a day before the last counted one on; returns how many have labels."""
    last = project.quarter_counts.values_list("start", flat=True).first()
    settled = Consensus.objects.filter(project=project)
    if last is not None:
        last -= timedelta(days=1)
        settled = settled.filter(labelled_at__gte=last)
    found: dict[datetime, QuarterCount] = {}
    for start, groups, signal in _by_quarter(settled, "labelled_at", Count("pk"), Count("pk", filter=HAS_SIGNAL)):
        found[start] = QuarterCount(project=project, start=start, groups=groups, signal=signal)
    # A label's time may be before its group's: look at the labels of the groups that have one since.
    labels = Label.objects.filter(annotator__isnull=False, generation__group__consensus__in=settled.values("pk"))
    if last is not None:
        labels = labels.filter(created_at__gte=last)
    for start, count, likes in _by_quarter(labels, "created_at", Count("pk"), Count("pk", filter=Q(liked=True))):
        row = found.setdefault(start, QuarterCount(project=project, start=start))
        row.labels, row.likes = count, likes
    if last is not None:  # what was taken back is counted no longer
        project.quarter_counts.filter(start__gte=last).delete()
    QuarterCount.objects.bulk_create(
        found.values(),
        update_conflicts=True,
        unique_fields=["project", "start"],
        update_fields=["groups", "signal", "labels", "likes"],
    )
    return len(found)


def _by_quarter(rows, moment: str, first, second) -> Iterator[tuple[datetime, int, int]]:
    """The two aggregates of the rows of each quarter of an hour, by its start."""
    rows = rows.annotate(hour=TruncHour(moment, tzinfo=UTC), quarter=Floor(ExtractMinute(moment, tzinfo=UTC) / 15.0))
    for hour, quarter, a, b in rows.order_by().values_list("hour", "quarter").annotate(a=first, b=second):
        yield hour + timedelta(minutes=15 * int(quarter)), a, b


def count_versions(project: Project) -> int:
    """Count the labels of the versions that have new ones since the last count; returns how many versions."""
    now, counts = timezone.now(), project.version_counts
    last = counts.aggregate(at=Max("counted_at"))["at"]
    newest = Label.objects.aggregate(n=Max("pk"))["n"] or 0
    settled = Consensus.objects.filter(project=project)
    if last is not None:
        settled = settled.filter(labelled_at__gte=last - RECOUNT)
    settled = settled.exclude(group__version=None)  # own images
    versions = list(settled.order_by().values_list("group__version", flat=True).distinct())
    for version in versions:
        row = Label.objects.filter(generation__group__version=version, annotator__isnull=False, pk__lte=newest)
        found = row.aggregate(
            labels=Count("pk"), likes=Count("pk", filter=Q(liked=True)), weight=Sum(LABEL_WEIGHT), liked=LIKED
        )
        VersionCount.objects.update_or_create(
            version_id=version, defaults={"project": project, "counted_at": now, "counted_to": newest, **found}
        )
    counts.update(counted_to=newest)
    return len(versions)


def count_large() -> int:
    """Count the groups of projects that have more than `options.LARGE` and were not counted lately; returns how many.
    Smaller ones are counted when somebody asks, also those that were large before."""
    now, found = timezone.now(), 0
    lately = ProjectCount.objects.filter(counted_at__gt=now - COUNTED_EVERY)
    for project in Project.objects.exclude(pk__in=lately.values("project")):
        if project.groups.order_by("pk")[options.LARGE : options.LARGE + 1].exists():
            count_project(project)
            found += 1
        else:
            ProjectCount.objects.filter(project=project).delete()
    return found


def count_project(project: Project) -> ProjectCount:
    """Count the groups now and keep it."""
    settled = Consensus.objects.filter(project=project)
    values = {
        "states": dict(project.groups.values_list("state").annotate(n=Count("pk")).order_by()),
        "labelled": settled.count(),
        "signal": signal_count(project),
        "counted_at": timezone.now(),
    }
    return ProjectCount.objects.update_or_create(project=project, defaults=values)[0]


def signal_count(project: Project, since: datetime | None = None) -> int:
    """Groups labelled after `since` (all when None) whose rewards differ; flagged ones are left out."""
    found = Consensus.objects.filter(HAS_SIGNAL, project=project)
    if since is not None:
        found = found.filter(labelled_at__gt=since)
    # Two counts over indexes: an exclusion would read every group's state.
    return found.count() - found.filter(group__project=project, group__state=GroupState.FLAGGED).count()


# ---------------------------------------------------------------- what pages read


def queue_counts(project: Project) -> dict[str, int]:
    """Groups by state, every state present. States that the last count of a large project found full are as it found
    them, at most a minute or so ago; the others are counted now."""
    known = counted(project)
    full = {state: n for state, n in known.states.items() if n > options.LARGE} if known else {}
    few = project.groups.filter(state__in=[s for s in GroupState.values if s not in full])
    return (
        dict.fromkeys(GroupState.values, 0) | full | dict(few.values_list("state").annotate(n=Count("id")).order_by())
    )


def ready_counts(projects: Collection[int]) -> dict[int, int]:
    """Groups that wait for people by project, those of large projects as `queue_counts` has them."""
    known = ProjectCount.objects.filter(project__in=projects).values_list("project", "states")
    full = {pk: states.get(GroupState.READY, 0) for pk, states in known}
    full = {pk: n for pk, n in full.items() if n > options.LARGE}
    rows = Group.objects.filter(state=GroupState.READY, project__in=set(projects) - set(full))
    return full | dict(rows.values_list("project").annotate(n=Count("id")).order_by())


def counted(project: Project) -> ProjectCount | None:
    """The last count of a large project, by a worker; None before the first."""
    return ProjectCount.objects.filter(project=project).first()


def labelled_count(project: Project) -> int:
    """Groups with labels; in a large project as of its last count."""
    known = counted(project)
    return (
        known.labelled
        if known and known.labelled > options.LARGE
        else Consensus.objects.filter(project=project).count()
    )


def like_rates(project: Project) -> list[dict]:
    """By version: number, labels of people, and the share of likes among all images made (`Generation.inclusion`); without
    flagged groups. A worker's count, and the labels since it."""
    counts = {
        c.version_id: [c.labels, c.labels if c.weight is None else c.weight, c.likes if c.liked is None else c.liked]
        for c in project.version_counts.all()
    }
    counted_to = project.version_counts.aggregate(n=Max("counted_to"))["n"] or 0
    rows = (
        Label.objects.filter(pk__gt=counted_to, generation__group__project=project, annotator__isnull=False)
        .exclude(generation__group__version=None)
        .values_list("generation__group__version")
        .annotate(labels=Count("id"), weight=Sum(LABEL_WEIGHT), liked_weight=LIKED)
        .order_by()
    )
    for version, *sums in rows:
        counts[version] = [n + (m or 0) for n, m in zip(counts.get(version, (0, 0, 0)), sums, strict=True)]
    # Subtracted, not excluded: few groups are flagged, and a flag comes after the count.
    flagged = Label.objects.filter(
        generation__group__project=project, generation__group__state=GroupState.FLAGGED, annotator__isnull=False
    )
    by_version = flagged.exclude(generation__group__version=None).values_list("generation__group__version").order_by()
    for version, *sums in by_version.annotate(n=Count("id"), weight=Sum(LABEL_WEIGHT), liked_weight=LIKED):
        counts[version] = [n - (m or 0) for n, m in zip(counts.get(version, (0, 0, 0)), sums, strict=True)]
    numbers = dict(project.versions.filter(pk__in=counts).values_list("pk", "number"))
    found = [(numbers[pk], *sums) for pk, sums in counts.items() if sums[0] > 0]
    return [
        {"version": n, "labels": labels, "rate": min(1.0, max(0.0, liked / weight))}
        for n, labels, weight, liked in sorted(found)
    ]


def groups_with_signal_since(project: Project, since) -> int:
    """Groups labelled after `since` (all when None) whose rewards differ (`common.signal`); flagged ones
    are left out. All of a large project's are as of its last count."""
    known = counted(project) if since is None else None
    return known.signal if known and known.signal > options.LARGE else signal_count(project, since)


def answers_a_group(project: Project) -> float:
    """How many people a group asks for: the overlap, or with a range the mean of those that were done last; the middle of
    the range before any was."""
    least, most = project.overlap, project.last_asked
    if most <= least:
        return least
    done = project.groups.filter(state=GroupState.DONE, decisions__gt=0).order_by("-id")
    answers = [max(least, min(n, most)) for n in done.values_list("decisions", flat=True)[:LAST_DONE]]
    return sum(answers) / len(answers) if answers else (least + most) / 2


def signal_share(project: Project) -> float | None:
    """The share of groups with signal among those labelled lately; None before any was counted. One of each kind is added
    to them, so that a few silent groups do not make it nought."""
    counts = project.quarter_counts.filter(start__gte=timezone.now() - LATELY).aggregate(
        groups=Sum("groups"), signal=Sum("signal")
    )
    return (counts["signal"] + 1) / (counts["groups"] + 2) if counts["groups"] else None
