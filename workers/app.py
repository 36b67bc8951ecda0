"""The workers' Celery app: `celery -A workers.app worker -Q generate`."""

from __future__ import annotations

import os

import django
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
django.setup()

from webapp.lib.broker import configure  # noqa: E402 - settings must be loaded first
from workers import devices, pulse  # noqa: E402

app = configure(Celery("likestep", include=["workers.tasks"]))
pulse.connect()
devices.connect()
