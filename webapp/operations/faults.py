"""Errors of the machine as sentences that say what to do, and what is wrong with the system now."""

from __future__ import annotations

import errno
import re
import shutil
from datetime import timedelta

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext as _

from webapp.lib import storage
from webapp.lib.broker import GENERATE, ORACLE, TRAIN
from webapp.operations.models import Heartbeat
from webapp.operations.queries import CHECKS

SILENT = timedelta(seconds=60)
LITTLE_SPACE = 500_000_000  # bytes; a round of the demo writes a tenth of it
FIXES = {
    errno.ENOSPC: "the disk with the data folder is full; free some space",
    errno.EDQUOT: "the quota of the data folder is used up; free some space",
    errno.EROFS: "the data folder is read-only; mount it writable",
    errno.EACCES: "the data folder may not be written by this user; change its owner",
    errno.EIO: "the disk with the data folder fails to read or write; replace it",
}


def sentence(error: BaseException) -> str:
    """The error for people: what to do first where it is known, then what was said."""
    if isinstance(error, storage.Unreachable | storage.Damaged):
        return str(error)
    said = f"{type(error).__name__}: {error}"
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (match := re.search(r"os error (\d+)", str(error))):  # safetensors' own type
        number = int(match[1])
    return f"{FIXES[number]} ({said})" if number in FIXES else said


def storage_problem() -> str:
    """Empty while files can be written, else the sentence that says why not."""
    try:
        CHECKS["storage"]()
    except OSError as error:
        return _("Images and checkpoints cannot be written: %(error)s.") % {"error": sentence(error)}
    free = shutil.disk_usage(settings.LIKESTEP_DATA).free
    if free < LITTLE_SPACE:
        return _("The disk with the data folder is nearly full (%(mb)s MB left); free some space.") % {
            "mb": f"{free / 1e6:.0f}"
        }
    return ""


def problems() -> list[str]:
    """What keeps the system from working now, a sentence each, for the dashboard."""
    found = [problem] if (problem := storage_problem()) else []
    try:
        CHECKS["redis"]()
    except Exception:  # whatever its client raises
        found.append(_("Redis does not answer: labels are kept, live updates and new jobs wait until it is back."))
    alive = set(Heartbeat.objects.filter(seen_at__gt=timezone.now() - SILENT).values_list("name", flat=True))
    if Heartbeat.objects.exists():  # workers of before this version do not beat
        kinds = {name.split("@")[0] for name in alive}
        silent = [queue for queue in (GENERATE, TRAIN, ORACLE) if queue not in kinds]
        found += [_("No %(queue)s worker is running; start one.") % {"queue": queue} for queue in silent]
        if "beat" not in kinds:
            found.append(_("Beat is not running: nothing is started by itself, and lost jobs are not found again."))
    return found
