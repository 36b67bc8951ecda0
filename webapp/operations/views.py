"""What machines ask: alive, ready."""

from __future__ import annotations

import logging

from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_GET

from webapp.operations import queries

log = logging.getLogger(__name__)


@require_GET
def healthz(request: HttpRequest) -> JsonResponse:
    """200 while this process answers; it asks nothing else, so that a database that is down restarts nobody."""
    return JsonResponse({"status": "ok"})


@require_GET
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when database, Redis and storage can be used, else 503; each is named. The log says why, the answer does not:
    anybody may ask, and an error may hold an address."""
    found = queries.readiness()
    for name, state in found.items():
        if state != "ok":
            log.warning("not ready: %s: %s", name, state)
    parts = {name: "ok" if state == "ok" else "failed" for name, state in found.items()}
    ready = all(state == "ok" for state in found.values())
    return JsonResponse({"status": "ok" if ready else "failed", **parts}, status=200 if ready else 503)
