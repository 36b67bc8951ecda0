"""What the running system says about itself."""

from __future__ import annotations

from django.db import models


class Heartbeat(models.Model):
    """A worker's or beat's sign of life."""

    name = models.CharField(max_length=200, unique=True, help_text="As Celery calls it: queue@host.")
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.name
