"""Writes of the running system: signs of life."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from webapp.operations.models import Heartbeat

FORGET = timedelta(days=1)


def beat(name: str, started_at) -> None:
    """The process `name` is alive. Those that were silent for a day are forgotten."""
    now = timezone.now()
    Heartbeat.objects.update_or_create(name=name, defaults={"started_at": started_at, "seen_at": now})
    Heartbeat.objects.filter(seen_at__lt=now - FORGET).delete()
