"""What machines ask: alive, ready, and the numbers."""

from __future__ import annotations

import hmac
import ipaddress
import logging

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_GET
from prometheus_client import CONTENT_TYPE_LATEST

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


@require_GET
def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus' text, for the bearer of METRICS_TOKEN; without a token for this machine only."""
    if not _may_read_metrics(request):
        text = "metrics: send METRICS_TOKEN as a bearer token; without one set, ask from this machine\n"
        return HttpResponse(text, status=403, content_type="text/plain")
    return HttpResponse(queries.metrics(), content_type=CONTENT_TYPE_LATEST)


def _may_read_metrics(request: HttpRequest) -> bool:
    if settings.METRICS_TOKEN:
        given = request.headers.get("Authorization", "")
        return hmac.compare_digest(given.encode(), f"Bearer {settings.METRICS_TOKEN}".encode())
    if any(name in request.headers for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP")):
        return False  # a proxy on this machine passes on somebody else's request
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False
