"""The API's one check: who asks, for which project, with which scope, and how often."""

from __future__ import annotations

import logging
import time

from django.conf import settings
from django.core.cache import cache
from django.http import Http404, HttpRequest
from ninja.errors import HttpError
from ninja.security import HttpBearer
from ninja.throttling import BaseThrottle

from webapp.accounts.permissions import Action
from webapp.api.models import ApiToken, Scope
from webapp.api.services import allows, find_token

log = logging.getLogger(__name__)
MINUTE = 60


class TokenAuth(HttpBearer):
    """`Authorization: Bearer <token>`; another project than the token's is not there (404)."""

    def __init__(self, scope: str | None = None, action: Action | None = None):
        super().__init__()
        self.scope, self.action = scope, action

    def authenticate(self, request: HttpRequest, token: str) -> ApiToken | None:
        """The token's row; None is 401."""
        found = find_token(token)
        if found is None:
            return None
        slug = request.resolver_match.kwargs.get("slug")
        if slug is not None and slug != found.project.slug:
            raise Http404
        if self.scope is not None and not allows(found, self.scope, self.action):
            raise HttpError(403, f"scope: the token does not have {self.scope}, or its owner may not {self.action}")
        return found


ANY = TokenAuth()


def may_read(action: Action) -> TokenAuth:
    """A token with the scope `read` whose owner may do it."""
    return TokenAuth(Scope.READ, action)


def may_label(action: Action) -> TokenAuth:
    """The same with `label`."""
    return TokenAuth(Scope.LABEL, action)


def may_administer(action: Action) -> TokenAuth:
    """The same with `admin`."""
    return TokenAuth(Scope.ADMIN, action)


class TokenThrottle(BaseThrottle):
    """At most `LIKESTEP_API_RATE` requests a token and minute, over all web processes; without the cache there is no
    limit rather than no API."""

    def __init__(self):
        self._left = MINUTE

    def allow_request(self, request: HttpRequest) -> bool:
        """Whether this request is within the limit."""
        token = getattr(request, "auth", None)
        if not isinstance(token, ApiToken):
            return True
        now = time.time()
        key = f"api-rate-{token.token_hash[:24]}-{int(now // MINUTE)}"
        self._left = MINUTE - now % MINUTE
        try:
            cache.add(key, 0, 2 * MINUTE)
            return cache.incr(key) <= settings.LIKESTEP_API_RATE
        except Exception as error:  # whatever the cache's client raises
            log.warning("the API's rate is not limited: %s", error)
            return True

    def wait(self) -> float:
        """Seconds until the next request may come."""
        return self._left
