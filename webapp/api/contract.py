"""What programs may rely on in every answer: errors are `{"detail": sentence}`, and the OpenAPI document names them all."""

from __future__ import annotations

import json
from functools import cache

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from ninja import NinjaAPI, Query
from ninja.errors import AuthenticationError, HttpError, Throttled, ValidationError
from ninja.parser import Parser

from webapp.api.services import find_token
from webapp.lib import bounds, texts
from webapp.lib.middleware import api_error, no_token

MOST_ERRORS = 20  # named in one sentence
Limit = Query(100, ge=1, le=500, description="Rows of a page.")
After = Query(0, **bounds.AFTER.limits, description="`next` of the page before.")
BINARY = {"schema": {"type": "string", "format": "binary"}}
# What can go wrong with any request, and with one that has a project, a body, or anything to be validated.
ALWAYS = {400: "It cannot be read.", 401: "No valid token.", 429: "Too many requests.", 503: "Too busy; try again."}
WITH_PROJECT = {403: "The token, or its owner, may not.", 404: "It is not there."}
WITH_BODY = {413: "It is too large."}
WITH_VALUES = {422: "A value is not as described."}


class TextParser(Parser):
    """JSON whose texts the database can keep."""

    def parse_body(self, request):
        """The body's value; what is wrong with it is said by `_http_error`."""
        return texts.loads(request.body)


class Api(NinjaAPI):
    """NinjaAPI with these answers."""

    def get_openapi_operation_id(self, operation) -> str:
        """Short: generated clients name their functions by it."""
        return operation.view_func.__name__

    @cache  # noqa: B019 - there is one, as long as the process lives
    def _documented(self, path_prefix: str) -> dict:
        schema = super().get_openapi_schema(path_prefix=path_prefix)
        for path, methods in schema["paths"].items():
            for operation in methods.values():
                _add_errors(operation, with_project="{slug}" in path)
        return json.loads(json.dumps(schema))  # ninja's keys of answers are numbers

    def get_openapi_schema(self, *, path_prefix: str | None = None, path_params: dict | None = None) -> dict:
        """The document with each operation's errors."""
        return self._documented(self.get_root_path(path_params or {}) if path_prefix is None else path_prefix)


def _add_errors(operation: dict, *, with_project: bool) -> None:
    found = dict(ALWAYS)
    if with_project:
        found |= WITH_PROJECT
    if "requestBody" in operation:
        found |= WITH_BODY | WITH_VALUES
    if any(parameter["in"] == "query" for parameter in operation["parameters"]):
        found |= WITH_VALUES
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for status, description in found.items():
        operation["responses"].setdefault(status, {"description": description, "content": content})
    headers = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    operation["responses"][401] = {**operation["responses"][401], "headers": headers}


def files(*types: str) -> dict:
    """`openapi_extra` of an operation that answers with a file of one of these media types. Generated clients know bytes
    by the first one."""
    return {"responses": {200: {"content": dict.fromkeys(("application/octet-stream", *types), BINARY)}}}


def page(rows, after: int, limit: int, out, *, key: str = "pk") -> dict:
    """A page of a queryset in order of `key`, each row through `out`."""
    found = list(rows.filter(**{f"{key}__gt": after}).order_by(key)[: limit + 1])
    more, found = len(found) > limit, found[:limit]
    return {"items": [out(row) for row in found], "next": getattr(found[-1], key) if more else None}


def for_members(view):
    """Decorator of the reference's views: for whoever has logged in or has a token."""

    def wrapper(request: HttpRequest, **arguments) -> HttpResponse:
        scheme, _space, token = request.headers.get("Authorization", "").partition(" ")
        if request.user.is_authenticated or (scheme.lower() == "bearer" and find_token(token) is not None):
            return view(request, **arguments)
        if request.resolver_match.url_name == "openapi-json":
            return no_token()
        return redirect_to_login(request.get_full_path())

    return wrapper


def add_handlers(api: NinjaAPI) -> None:
    """Sentences for what ninja finds wrong."""

    @api.exception_handler(Http404)
    def not_there(request, error):
        return api_error(
            404, _("address: there is nothing here for this token; check the project's name and the number")
        )

    @api.exception_handler(AuthenticationError)
    def unknown(request, error):
        return no_token()

    @api.exception_handler(Throttled)
    def too_often(request, error):
        text = _("Authorization: this token asks more than %(most)s times a minute (LIKESTEP_API_RATE); wait a little")
        return api_error(429, text % {"most": settings.LIKESTEP_API_RATE})

    @api.exception_handler(HttpError)
    def said(request, error):
        wrong = isinstance(error.__cause__, texts.Unstorable)
        return api_error(error.status_code, str(error.__cause__ if wrong else error))

    @api.exception_handler(ValidationError)
    def invalid(request, error):
        return api_error(422, "; ".join(map(_sentence, error.errors[:MOST_ERRORS])))


def _sentence(error: dict) -> str:
    """`prompts.0.prompt: String should have at least 1 character`."""
    source, *names = error["loc"]
    if source in ("body", "form", "file") and len(names) > 1:
        names = names[1:]  # the first is the parameter that the body is
    return f"{'.'.join(map(str, names)) or source}: {error['msg']}"
