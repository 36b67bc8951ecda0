"""The workers' Celery app: `celery -A workers.app worker -Q generate`."""

from __future__ import annotations

import os

import django
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
# Celery would run Django's checks, which load every page of the web app; `manage.py` and the tests have run them.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")
django.setup()

from webapp.lib.broker import configure  # noqa: E402 - settings must be loaded first
from workers import devices, pulse  # noqa: E402

app = configure(Celery("likestep", include=["workers.tasks"]))
pulse.connect()
devices.connect()
