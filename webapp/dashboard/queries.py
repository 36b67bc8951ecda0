"""What an admin wants to see of the work: pace, backlog, who is stuck, whether the workers keep up, and lines over time."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from django.db.models import Count, Exists, Max, Min, OuterRef, Q, Subquery, Sum
from django.db.models.functions import TruncDate
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from webapp.accounts.permissions import managed_by
from webapp.campaigns.models import Project, Prompt
from webapp.labelling.models import (
    Flag,
    Generation,
    Group,
    GroupDecision,
    GroupState,
    Label,
    Lease,
    Outcome,
    Scoring,
    Tally,
)
from webapp.labelling.waiting import SLOW
from webapp.lib import broker, options
from webapp.quality import counts
from webapp.quality.models import Consensus
from webapp.quality.signal import HAS_SIGNAL
from webapp.rounds.models import (
    OPEN,
    Comparison,
    ComparisonState,
    ModelVersion,
    RoundState,
    TrainingRound,
    VersionStatus,
)

DRAFTS = 5  # the versions page has the others
MOST_WAITING = 100
STRIP = 8  # images of a card
STUCK = timedelta(minutes=5)  # with a group on screen and no answer
MOST_DAYS = 1000
MOST_ANSWERS = 500  # that the pace of a forecast is taken from


@dataclass(frozen=True)
class Card:
    """A project on somebody's home page. `images` are (address, prompt) of its newest ones, for an annotator of the group
    they rated last: nobody is shown what they may not see. Counts that only reviewers may know are None for others."""

    project: Project
    manages: bool
    compares: bool
    images: list[tuple[str, str]]
    groups_today: int
    images_today: int
    waiting: int | None
    round: TrainingRound | None
    draft: ModelVersion | None
    has_prompts: bool


def cards(user, projects: list[Project]) -> list[Card]:
    """The person's cards, in order; as many queries for one project as for many."""
    managed = managed_by(user, projects)
    tests = Comparison.objects.filter(state=ComparisonState.OPEN, project__in=projects)
    compared = set(tests.values_list("project", flat=True))
    mine = {t.project_id: t for t in Tally.objects.filter(user=user, project__in=projects, day=timezone.localdate())}
    rounds = {r.project_id: r for r in TrainingRound.objects.filter(state__in=OPEN, project__in=managed)}
    drafts = {v.project_id: v for v in ModelVersion.objects.filter(status=VersionStatus.DRAFT, project__in=managed)}
    some = Exists(Prompt.objects.filter(project=OuterRef("pk")))
    prompted = set(Project.objects.filter(some, pk__in=managed).values_list("pk", flat=True))
    waiting = counts.ready_counts(managed)
    images = {**_last_rated(user, projects), **_newest_images(managed)}
    found = []
    for project in projects:
        pk = project.pk
        done = mine.get(pk)
        found.append(
            Card(
                project,
                manages=pk in managed,
                compares=pk in compared and not user.outside,
                images=images.get(pk, []),
                groups_today=done.groups if done else 0,
                images_today=done.images if done else 0,
                waiting=waiting.get(pk, 0) if pk in managed else None,
                round=rounds.get(pk),
                draft=drafts.get(pk),
                has_prompts=pk in prompted,
            )
        )
    return found


def _newest_images(projects: set[int]) -> dict[int, list[tuple[str, str]]]:
    """By project, of its newest group that is there to look at."""
    there = Group.objects.filter(project=OuterRef("pk"), state__in=(GroupState.READY, GroupState.DONE)).order_by("-pk")
    rows = Project.objects.filter(pk__in=projects).annotate(newest=Subquery(there.values("pk")[:1]))
    groups = [group for group in rows.values_list("newest", flat=True) if group is not None]
    found: dict[int, list[tuple[str, str]]] = {}
    images = Generation.objects.filter(group__in=groups, position__lt=STRIP).order_by("group", "position")
    for pk, slug, image, prompt in images.values_list(
        "group__project", "group__project__slug", "pk", "group__prompt__text"
    ):
        found.setdefault(pk, []).append((f"{reverse('image', args=[slug, image])}?w=256", prompt))
    return found


def _last_rated(user, projects: list[Project]) -> dict[int, list[tuple[str, str]]]:
    """By project, of the group that the person rated last, by the names that they know it by."""
    mine = GroupDecision.objects.filter(user=user, outcome=Outcome.SUBMITTED, group__project=OuterRef("pk"))
    last = Subquery(mine.order_by("-created_at").values("group")[:1])
    rows = Project.objects.filter(pk__in=[p.pk for p in projects]).annotate(last=last)
    groups = [group for group in rows.values_list("last", flat=True) if group is not None]
    leases = Lease.objects.filter(user=user, group__in=groups).select_related("group__prompt", "group__project")
    found = {}
    for lease in leases:
        group = lease.group
        places = [reverse("task-image", args=[group.project.slug, lease.name, n]) for n in range(group.size)]
        found[group.project_id] = [(f"{place}?w=256", group.prompt.text) for place in places[:STRIP]]
    return found


@dataclass(frozen=True)
class Person:
    """A member now: the groups on their screen, the last answer, and whether they seem stuck."""

    name: str
    held: int
    today: int
    last: datetime | None
    stuck: bool


def pace(project: Project, missing: int | None) -> dict:
    """Groups labelled in the last hour and day, an hour's mean while people work, and when the next round is due, for which
    groups with signal are `missing` (`forecasts.groups_missing`).

    `hours_to_round` is None without a threshold or without pace.
    """
    now = timezone.now()
    settled = Consensus.objects.filter(project=project)
    hour = settled.filter(labelled_at__gt=now - timedelta(hours=1)).count()
    day = settled.filter(labelled_at__gt=now - timedelta(days=1)).aggregate(
        groups=Count("pk"), signal=Count("pk", filter=HAS_SIGNAL), first=Min("labelled_at"), last=Max("labelled_at")
    )
    worked = max(1.0, (day["last"] - day["first"]).total_seconds() / 3600) if day["groups"] else 0
    hours = missing / (day["signal"] / worked) if missing is not None and day["signal"] else None
    return {"hour": hour, "day": day["groups"], "signal_day": day["signal"], "hours_to_round": hours}


@dataclass(frozen=True)
class Forecast:
    """What is ahead, in hours (None: not known yet) and money (None: not known, or no price is set)."""

    name: str
    work: float | None
    machine: float | None
    cost: float | None

    @property
    def work_seconds(self) -> float:
        """For a page, as `machine_seconds`: 0 where it is not known."""
        return 3600 * (self.work or 0)

    @property
    def machine_seconds(self) -> float:
        """The machine's."""
        return 3600 * (self.machine or 0)


def forecast(project: Project, missing: int | None) -> list[Forecast]:
    """The groups that wait, those with signal `missing` to the next round (`forecasts.groups_missing`), and a round; empty
    before anything is known."""
    hours = _hours_a_group(project)
    share = counts.signal_share(project)
    ended = project.rounds.filter(state=RoundState.DONE, finished_at__isnull=False)
    # From the first heartbeat's step on: a round may have waited for its machine all night.
    ended = ended.annotate(began=Min("metrics__created_at"))
    lasted = [(r.finished_at - (r.began or r.created_at)).total_seconds() / 3600 for r in ended[:3]]
    machine = statistics.median(lasted) if lasted else None
    ready = project.groups.filter(state=GroupState.READY).aggregate(n=Count("pk"), decisions=Sum("decisions"))
    each = counts.answers_a_group(project)
    answers = max(0, ready["n"] * each - (ready["decisions"] or 0))
    rows = [(_("The groups that wait now"), answers, 0.0)] if answers else []
    if missing is not None:
        rows.append((_("Up to the end of the next round"), missing / share * each if share else None, machine))
    elif machine is not None:
        rows.append((_("A round"), 0, machine))
    if hours is None and machine is None:
        return []
    found = []
    for name, groups, machine_hours in rows:
        work = 0.0 if groups == 0 else None if groups is None or hours is None else groups * hours
        found.append(Forecast(name, work, machine_hours, _cost(project, work, machine_hours)))
    return found


def _hours_a_group(project: Project) -> float | None:
    """What a group takes a person: the median of the last answers, which one long pause does not move; None before any."""
    rows = GroupDecision.objects.filter(group__project=project, outcome=Outcome.SUBMITTED, seconds__gt=0)
    lately = rows.filter(created_at__gte=timezone.now() - counts.LATELY).order_by("-created_at")
    seconds = lately.values_list("seconds", flat=True)[:MOST_ANSWERS]
    return statistics.median(seconds) / 3600 if seconds else None


def _cost(project: Project, work: float | None, machine: float | None) -> float | None:
    parts = [(work, project.work_hour_cost), (machine, project.machine_hour_cost)]
    if any(hours is None or (hours > 0 and not price) for hours, price in parts):
        return None
    return sum(hours * price for hours, price in parts)


@dataclass(frozen=True)
class Decisions:
    """What waits for somebody's word, the newest drafts of versions first; counts end at `MOST_WAITING`."""

    drafts: list[ModelVersion]
    flags: int
    ties: int

    @property
    def any(self) -> bool:
        """Whether there is something to decide."""
        return bool(self.drafts or self.flags or self.ties)


def decisions(project: Project) -> Decisions:
    """What the dashboard begins with."""
    drafts = project.versions.filter(status=VersionStatus.DRAFT).order_by("-number")
    flagged = Flag.objects.filter(group__project=project, resolved_at=None).values("group").distinct()
    ties = Consensus.objects.filter(project=project, tie=True)
    return Decisions(list(drafts[:DRAFTS]), flagged[:MOST_WAITING].count(), ties[:MOST_WAITING].count())


def damaged(project: Project, *, most: int = 5) -> list[Group]:
    """Labelled groups with an image that could not be shown, newest first."""
    rows = project.groups.exclude(error="").filter(state__in=[GroupState.READY, GroupState.DONE, GroupState.FLAGGED])
    return list(rows.order_by("-id")[:most])


def unscored(project: Project, *, most: int = 5) -> list[Scoring]:
    """Groups that the oracle failed to label, newest first."""
    rows = Scoring.objects.filter(group__project=project, next_at=None).exclude(group__state=GroupState.FAILED)
    return list(rows.order_by("-id")[:most])


def people(project: Project, *, most: int = 50) -> list[Person]:
    """Members with work on screen or done since midnight where the reader is, those that seem stuck first."""
    now = timezone.now()
    midnight = timezone.localtime(now).replace(hour=0, minute=0, second=0, microsecond=0)
    members = {m.user_id: m for m in project.memberships.select_related("user")}
    leases = Lease.objects.filter(group__project=project, expires_at__gt=now, user__in=members).order_by()
    held = {
        user: (n, until)
        for user, n, until in leases.values_list("user").annotate(n=Count("id"), until=Max("expires_at"))
    }
    mine = GroupDecision.objects.filter(group__project=project)
    days = mine.filter(user__in=members, created_at__gte=midnight).values_list("user").order_by()
    today = {
        user: (n, last)
        for user, n, last in days.annotate(n=Count("id", filter=Q(outcome=Outcome.SUBMITTED)), last=Max("created_at"))
    }
    found = []
    for user in held.keys() | today.keys():
        (groups, until), (done, last) = held.get(user, (0, None)), today.get(user, (0, None))
        if last is None:
            last = mine.filter(user=user).order_by("-created_at").values_list("created_at", flat=True).first()
        # A page renews its leases each time it asks for groups, which is after each answer.
        asked = until - options.LEASE if until else None
        quiet = max((moment for moment in (last, asked) if moment is not None), default=now)
        found.append(Person(members[user].user.username, groups, done, last, groups > 0 and now - quiet > STUCK))
    return sorted(found, key=lambda p: (not p.stuck, -p.held, -p.today, p.name))[:most]


def warnings(project: Project) -> list[str]:
    """What keeps work from moving, each a sentence that says what to do. Cheap: asked with every refresh."""
    now, found = timezone.now(), []
    annotators = project.memberships.count()
    if project.last_asked > annotators:
        found.append(
            _(
                "Each group asks for %(overlap)s people and the project has %(annotators)s: invite more, or lower the "
                "overlap."
            )
            % {"overlap": project.last_asked, "annotators": annotators}
        )
    if not project.prompts.in_use().filter(split="train").exists():
        found.append(_("There is no prompt for training: add some, or no group can be generated."))
    oldest = project.groups.filter(state=GroupState.QUEUED).aggregate(n=Min("created_at"))["n"]
    if oldest is not None and now - oldest > SLOW:
        found.append(
            _("A group has waited %(time)s to be generated: is a generate worker running?")
            % {"time": _minutes(now - oldest)}
        )
    waiting = project.rounds.filter(state=RoundState.QUEUED).first()
    if waiting is not None and now - waiting.created_at > SLOW:
        found.append(
            _("Round %(number)s has waited %(time)s: is a train worker running?")
            % {"number": waiting.number, "time": _minutes(now - waiting.created_at)}
        )
    begun = project.groups.filter(state=GroupState.READY, decisions__gt=0)
    if stale := begun.filter(consensus__labelled_at__lt=now - timedelta(days=1))[:1000].count():
        found.append(
            _("%(stale)s groups have waited over a day for another person who has not rated them.") % {"stale": stale}
        )
    return found


def _minutes(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    if minutes < 120:
        return _("%(n)s minutes") % {"n": minutes}
    return _("%(n)s hours") % {"n": minutes // 60}


def health(project: Project) -> dict:
    """Where the project's jobs stand, and the lengths of the broker's queues (None: it cannot be reached)."""
    now = timezone.now()
    generating = project.groups.filter(state=GroupState.GENERATING)
    running = project.rounds.filter(state__in=OPEN).first()
    return {
        "queues": broker.queue_lengths(),
        "generating": generating.count(),
        "owners": sorted(set(generating.values_list("owner", flat=True)[:50])),
        "round": running,
        "round_silence": (now - running.heartbeat_at).total_seconds() if running and running.heartbeat_at else None,
        "failed": project.groups.filter(state=GroupState.FAILED).count(),
    }


def series(project: Project) -> list[dict]:
    """A point a day with labels, and one a measurement of agreement, oldest first; absent values are None. Days are the
    reader's own; flagged groups are left out."""
    names = ("groups", "signal", "labels", "likes")
    since = timezone.now() - timedelta(days=MOST_DAYS)
    rows = (
        project.quarter_counts.filter(start__gte=since).order_by().annotate(day=TruncDate("start")).values_list("day")
    )
    days = {
        day: dict(zip(names, sums, strict=True)) for day, *sums in rows.annotate(**{f"{n}_": Sum(n) for n in names})
    }
    for day, found in _flagged(project, since):
        for name, n in found.items():
            if day in days:
                days[day][name] = max(0, days[day][name] - n)
    points = [
        {
            "at": datetime.combine(day, time(12), timezone.get_current_timezone()).astimezone(UTC).isoformat(),
            "labels": c["labels"],
            "groups": c["groups"],
            "like_rate": c["likes"] / c["labels"] if c["labels"] else None,
            "signal_rate": c["signal"] / c["groups"] if c["groups"] else None,
        }
        for day, c in days.items()
    ]
    measured = project.qualities.filter(alpha__isnull=False).values_list("created_at", "alpha")[:MOST_DAYS]
    points += [{"at": at.isoformat(), "alpha": alpha} for at, alpha in measured]
    return sorted(points, key=lambda p: p["at"])


def _flagged(project: Project, since: datetime):
    """By day, what flagged groups added to the counts: (day, counts). Subtracted, not excluded: they are few, and a flag
    comes after the count."""
    flagged = Consensus.objects.filter(group__project=project, group__state=GroupState.FLAGGED, labelled_at__gte=since)
    by_day = flagged.annotate(day=TruncDate("labelled_at")).values_list("day").order_by()
    for day, groups, signal in by_day.annotate(n=Count("pk"), s=Count("pk", filter=HAS_SIGNAL)):
        yield day, {"groups": groups, "signal": signal}
    labels = Label.objects.filter(
        generation__group__project=project,
        generation__group__state=GroupState.FLAGGED,
        annotator__isnull=False,
        created_at__gte=since,
    )
    by_day = labels.annotate(day=TruncDate("created_at")).values_list("day").order_by()
    for day, count, likes in by_day.annotate(n=Count("pk"), liked_=Count("pk", filter=Q(liked=True))):
        yield day, {"labels": count, "likes": likes}
