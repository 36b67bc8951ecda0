"""What every request gets: an id and a line in the log, the browser's time zone, and headers that tell browsers what they
may do with the answer."""

from __future__ import annotations

import logging
import re
import time
import uuid
from urllib.parse import unquote
from zoneinfo import available_timezones

from django.conf import settings
from django.http import HttpResponseBadRequest
from django.utils import timezone

from webapp.lib import logs, storage, texts

log = logging.getLogger(__name__)
QUIET = ("healthz", "readyz", "metrics")  # asked every few seconds
REQUEST_ID = re.compile(r"[\w-]{1,64}")

# Nothing inline, nothing from elsewhere but images from the bucket where there is one.
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'self'; frame-ancestors 'none'; "
    "form-action 'self'"
)
# The themed Django admin needs Alpine's expressions and inline styles; nobody but admins gets there.
ADMIN_POLICY = POLICY + "; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'"


def security_headers(path: str) -> dict[str, str]:
    """What the answer at a path carries, whatever it is; refusals that never reach the middleware too."""
    policy = ADMIN_POLICY if path.startswith("/admin/") else POLICY
    if origin := storage.store().origin:  # images come from the bucket
        policy = policy.replace("img-src 'self'", f"img-src 'self' {origin}")
    headers = {"Content-Security-Policy": policy}
    if settings.SECURE_HSTS_SECONDS:
        headers["Strict-Transport-Security"] = f"max-age={settings.SECURE_HSTS_SECONDS}"
    return headers


def answer_headers(get_response):
    """Adds these headers to every answer, and keeps it out of caches unless it says itself how long it lasts, as static
    files and images do: a page is one person's, and some show a secret."""

    def middleware(request):
        response = get_response(request)
        for name, value in security_headers(request.path).items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "private, no-store")
        return response

    return middleware


def time_zone(get_response):
    """Days begin at midnight where the browser is, as its cookie `time_zone` says (page.js); UTC for programs."""
    known = available_timezones()

    def middleware(request):
        name = unquote(request.COOKIES.get("time_zone", ""))
        with timezone.override(name if name in known else None):
            return get_response(request)

    return middleware


def storable(get_response):
    """Refuses form fields and queries with null characters, which no database column takes."""

    def middleware(request):
        forms = [request.GET]
        if request.content_type in ("application/x-www-form-urlencoded", "multipart/form-data"):
            forms.append(request.POST)
        try:
            for form in forms:
                for name, values in form.lists():
                    texts.check([name, *values], name)
        except texts.Unstorable as error:
            return HttpResponseBadRequest(str(error), content_type="text/plain; charset=utf-8")
        return get_response(request)

    return middleware


def request_log(get_response):
    """Names the request in every log line it causes, and logs its end. Addresses are logged as their pattern: an
    invitation's own address is a secret."""

    def middleware(request):
        given = request.headers.get("X-Request-ID", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        request.request_id = request_id
        started = time.monotonic()
        with logs.about(request=request_id):
            response = get_response(request)
            match = request.resolver_match
            if match is None or match.url_name not in QUIET:
                took = 1000 * (time.monotonic() - started)
                log.info("%s %s %s in %.0f ms", request.method, logs.route_of(request), response.status_code, took)
        response.headers["X-Request-ID"] = request_id
        return response

    return middleware
