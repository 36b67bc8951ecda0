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
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.cache import get_conditional_response, set_response_etag
from django.utils.translation import gettext as _

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


API = "/api/"


def api_error(status: int, sentence: str) -> HttpResponse:
    """An error of the API."""
    return JsonResponse({"detail": sentence}, status=status)


def no_token() -> HttpResponse:
    """401."""
    return api_error(
        401, _("Authorization: send Bearer and a token that is made on the project's API page and still valid")
    )


def for_programs(get_response):
    """What programs rely on below /api/, whoever answers: every error is `{"detail": sentence}`; 401 names the scheme; HEAD
    and OPTIONS work wherever GET does; what was read before and is the same is not sent again (ETag)."""

    def middleware(request):
        if not request.path.startswith(API):
            return get_response(request)
        asked = request.method
        if asked == "HEAD":
            request.method = "GET"
        response = get_response(request)
        request.method = asked
        if "Allow" in response.headers:
            response.headers["Allow"] = ", ".join(_methods(response.headers["Allow"]))
            if asked == "OPTIONS":
                return HttpResponse(status=204, headers={"Allow": response.headers["Allow"]})
        if response.status_code >= 400 and not response.headers.get("Content-Type", "").startswith("application/json"):
            response = _said(response)
        if response.status_code == 401:
            response.headers["WWW-Authenticate"] = 'Bearer realm="likestep"'
        if asked in ("GET", "HEAD") and response.status_code == 200:
            response = _once(request, response)
        return response

    return middleware


def _methods(allowed: str) -> list[str]:
    """Those that the view takes, and those that this adds."""
    found = set(allowed.split(", "))
    return sorted(found | {"OPTIONS"} | ({"HEAD"} if "GET" in found else set()))


def _said(response: HttpResponseBase) -> HttpResponse:
    """The error as a sentence; texts stay, pages do not."""
    kind = response.headers.get("Content-Type", "")
    if response.status_code == 405:
        text = _("method: this address takes %(methods)s") % {"methods": response.headers["Allow"]}
    elif response.status_code == 404:
        text = _("address: there is no such one; /api/v1/openapi.json has them all")
    elif kind.startswith("text/plain") and response.status_code < 500 and not response.streaming:
        text = response.content.decode()
    elif response.status_code >= 500:
        text = _("the server failed; its log has the reason, under this answer's X-Request-ID")
    else:
        text = _("the request cannot be read")
    answer = api_error(response.status_code, text)
    if "Allow" in response.headers:
        answer.headers["Allow"] = response.headers["Allow"]
    return answer


def _once(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """An answer to GET or HEAD: 304 where the asker has it already, and no rows for who asks for headers only."""
    if response.streaming:
        if request.method == "HEAD":
            response.streaming_content = ()
        return response
    response.headers.setdefault("Cache-Control", "private, no-cache")
    set_response_etag(response)
    return get_conditional_response(request, etag=response.headers["ETag"], response=response)


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
