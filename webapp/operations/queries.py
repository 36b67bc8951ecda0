"""Reads of the running system: whether it can work, and its numbers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import redis
from django.conf import settings
from django.db import connection
from django.db.models import Count, Max, Min, Q
from django.utils import timezone
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from webapp.campaigns.models import Project
from webapp.labelling.models import Group, GroupState, LabelEvent, Lease
from webapp.lib import storage
from webapp.operations.models import Heartbeat
from webapp.quality import counts
from webapp.rounds.models import OPEN, RoundMetric, RoundState, TrainingRound

RATE_WINDOW = timedelta(minutes=5)
# Only so many of the newest labels are looked at, as few as reach back far enough: a scrape costs the same with millions.
RATE_ROWS = (2_000, 20_000, 200_000)
SPEED_STEPS = 10


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _redis() -> None:
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2)
    try:
        client.ping()
    finally:
        client.close()


def _storage() -> None:
    with tempfile.TemporaryFile(dir=settings.LIKESTEP_DATA) as file:
        file.write(b"likestep")
        file.flush()
    storage.store().check()


CHECKS: dict[str, Callable[[], None]] = {"database": _database, "redis": _redis, "storage": _storage}


def readiness() -> dict[str, str]:
    """What everything rests on, each "ok" or the sentence that says what is wrong: database, redis, storage."""
    found = {}
    for name, check in CHECKS.items():
        try:
            check()
            found[name] = "ok"
        except Exception as error:  # whatever a client raises, it is what is wrong
            found[name] = f"{type(error).__name__}: {error}".strip()
    return found


def metrics() -> bytes:
    """All numbers in Prometheus' text format, read from the database: any web process tells the same."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers())
    return generate_latest(registry)


class _Numbers:
    def collect(self) -> Iterator[GaugeMetricFamily]:
        now = timezone.now()
        yield from _queue(now)
        yield from _people(now)
        yield from _rounds(now)
        beats = Heartbeat.objects.values_list("name", "seen_at")
        yield _gauge("worker_silence_seconds", "Time since a worker or beat was alive.", ["worker"], _ages(beats, now))


def _gauge(name: str, text: str, labels: list[str], rows) -> GaugeMetricFamily:
    """Rows are the labels' values and the number."""
    family = GaugeMetricFamily(f"likestep_{name}", text, labels=labels)
    for *values, number in rows:
        family.add_metric([str(v) for v in values], float(number))
    return family


def _ages(rows, now: datetime) -> list[tuple]:
    return [(*labels, (now - at).total_seconds()) for *labels, at in rows]


def _queue(now: datetime) -> Iterator[GaugeMetricFamily]:
    # Large projects are counted by a worker, the others here.
    large = list(Project.objects.filter(count__isnull=False))
    small = Group.objects.exclude(project__in=large).values_list("project__slug", "state")
    by_state = list(small.annotate(n=Count("id")).order_by())
    by_state += [(p.slug, state, n) for p in large for state, n in counts.queue_counts(p).items() if n]
    yield _gauge("groups", "Groups by state.", ["project", "state"], by_state)
    waiting = Group.objects.filter(state=GroupState.QUEUED).order_by()
    oldest = waiting.values_list("project__slug").annotate(at=Min("created_at"))
    text = "Age of the oldest group that waits to be generated."
    yield _gauge("queue_age_seconds", text, ["project"], _ages(oldest, now))


def _people(now: datetime) -> Iterator[GaugeMetricFamily]:
    by_project = (
        Lease.objects.filter(decided=False)
        .values_list("group__project__slug")
        .annotate(live=Count("id", filter=Q(expires_at__gt=now)), expired=Count("id", filter=Q(expires_at__lte=now)))
    )
    leases = [row for slug, live, old in by_project for row in ((slug, "live", live), (slug, "expired", old))]
    text = "Groups on somebody's screen; expired ones were left undecided and are back in the queue."
    yield _gauge("leases", text, ["project", "state"], leases)
    newest = LabelEvent.objects.aggregate(n=Max("id"))["n"] or 0
    since = now - RATE_WINDOW
    recent = LabelEvent.objects.filter(id__gt=_edge(newest, since), created_at__gt=since, liked__isnull=False)
    recent = recent.filter(cause="")
    lately = recent.values_list("generation__group__project__slug").annotate(
        people=Count("id", filter=Q(oracle="")), oracle=Count("id", filter=~Q(oracle=""))
    )
    minutes = RATE_WINDOW.total_seconds() / 60
    rates = [row for slug, a, b in lately for row in ((slug, "people", a / minutes), (slug, "oracle", b / minutes))]
    yield _gauge("labels_per_minute", "Labels a minute, over the last five.", ["project", "by"], rates)


def _edge(newest: int, since: datetime) -> int:
    """An id before which labels are older than `since`, or `RATE_ROWS[-1]` before the newest."""
    for rows in RATE_ROWS:
        before = LabelEvent.objects.filter(id__lte=newest - rows).order_by("-id").values_list("created_at", flat=True)
        first = before.first()
        if first is None or first < since:
            break
    return newest - rows


def _rounds(now: datetime) -> Iterator[GaugeMetricFamily]:
    waits, steps, speeds, silences = [], [], [], []
    for training in TrainingRound.objects.filter(state__in=OPEN).select_related("project"):
        labels = (training.project.slug, training.number)
        steps += [(*labels, "done", training.step), (*labels, "total", training.total)]
        if training.state == RoundState.QUEUED:
            waits.append((*labels, (now - training.created_at).total_seconds()))
        else:
            silences.append((*labels, (now - training.heartbeat_at).total_seconds()))
        last = RoundMetric.objects.filter(round=training).order_by("-step")[:SPEED_STEPS]
        times = list(last.values_list("step", "created_at"))
        if len(times) > 1:
            seconds = (times[0][1] - times[-1][1]).total_seconds()
            speeds.append((*labels, (times[0][0] - times[-1][0]) / max(seconds, 1e-6)))
    labels = ["project", "round"]
    yield _gauge("round_queue_age_seconds", "Age of a round that waits for a worker.", labels, waits)
    yield _gauge("round_steps", "Steps of an open round.", [*labels, "kind"], steps)
    yield _gauge("round_steps_per_second", "Speed of an open round over its last steps.", labels, speeds)
    yield _gauge("round_silence_seconds", "Time since a running round's worker was alive.", labels, silences)
