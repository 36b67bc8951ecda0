"""OpenID Connect: allauth keeps the state, makes the PKCE pair and exchanges the code. What it leaves out is here: the
id_token's signature is always verified, and its nonce. Nothing but the id_token says who somebody is."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import jwt
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter, get_adapter
from allauth.socialaccount.internal import statekit
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils.crypto import constant_time_compare
from django.utils.translation import gettext as _
from requests import RequestException

log = logging.getLogger(__name__)
APP = "sso"
ALGORITHMS = {f"{kind}{bits}" for kind in ("RS", "PS", "ES") for bits in (256, 384, 512)} | {
    "EdDSA"
}  # none with a secret
LEEWAY = 60  # seconds that the clocks may differ by
KEPT = 300  # seconds that the discovery document is believed
LONGEST = 191  # characters of a subject: allauth's column
_known: dict[str, tuple[float, dict]] = {}


class Refused(Exception):
    """Somebody cannot log in so; the message says why."""


@dataclass(frozen=True)
class Arrival:
    """Who came (the id_token's claims) and what was noted when they left: `process`, `next`, and `data`."""

    claims: Mapping
    process: str
    next: str
    data: Mapping = field(default_factory=dict)


class OnlyOurs(DefaultSocialAccountAdapter):
    """allauth's, with the environment's app and none of the database."""

    def list_apps(self, request, provider=None, client_id=None):
        """The apps of the settings."""
        from allauth.socialaccount.adapter import _build_apps_from_settings

        found = _build_apps_from_settings(provider=provider, client_id=client_id)
        return [app for apps in found.values() for app in apps]

    def is_open_for_signup(self, request, sociallogin) -> bool:
        """allauth makes no accounts; `raters.sign_in` does."""
        return False


class _Adapter(OpenIDConnectOAuth2Adapter):
    @property
    def openid_config(self) -> dict:
        """The discovery document. Raises Refused where it is another issuer's, or leads away from TLS."""
        issuer = settings.LIKESTEP_OIDC.issuer
        asked, found = _known.get(issuer, (0.0, {}))
        if not found or time.monotonic() - asked > KEPT:
            found = _read(self.get_provider().server_url)
            _check(found, issuer)
            _known[issuer] = time.monotonic(), found
        return found

    def get_callback_url(self, request: HttpRequest, app) -> str:
        """Our own address; allauth's are not mounted."""
        return request.build_absolute_uri(reverse("sso-callback"))


def _read(address: str) -> dict:
    with get_adapter().get_requests_session() as session:
        answer = session.get(address, allow_redirects=False)
        answer.raise_for_status()
        found = answer.json()
    if not isinstance(found, dict):
        raise OAuth2Error("no JSON object")
    return found


def _check(found: dict, issuer: str) -> None:
    if found.get("issuer") != issuer:
        raise OAuth2Error("the discovery document is of another issuer")
    secure = urlsplit(issuer).scheme == "https"
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        scheme = urlsplit(str(found.get(name, ""))).scheme
        if scheme != "https" and (secure or scheme != "http"):
            raise OAuth2Error(f"{name} is not https")


def leave(request: HttpRequest, process: str, *, next_url: str = "", **data) -> str:
    """The issuer's address to go to; `data` comes back with the person. Raises Refused."""
    nonce = secrets.token_urlsafe(24)
    try:
        provider = _provider(request)
        _Adapter(request, APP).authorize_url  # noqa: B018 - asks the issuer before anything is noted
        extra = {"nonce": nonce}
        answer = provider.redirect(
            request, process, next_url, {**data, "nonce": nonce}, auth_params=extra, scope=_scope()
        )
        return answer["Location"]
    except (OAuth2Error, RequestException, ValueError, KeyError) as error:
        raise _away(error) from error


def arrive(request: HttpRequest) -> Arrival:
    """Who comes back from the issuer. Raises Refused for everything but a good answer to what this browser began."""
    provider = _provider(request)
    state = statekit.unstash_state(request, provider_id=provider.sub_id, state_id=request.GET.get("state", ""))
    if state is None:
        raise Refused(_("This log-in took too long, or was begun in another browser. Try again."))
    if request.GET.get("iss", settings.LIKESTEP_OIDC.issuer) != settings.LIKESTEP_OIDC.issuer:
        raise Refused(_("The answer is of another site. Try again."))
    if "error" in request.GET or not request.GET.get("code"):
        raise Refused(_("The other site did not log you in."))
    data = state.get("data") or {}
    adapter = _Adapter(request, APP)
    try:
        client = adapter.get_client(request, provider.app)
        verifier = state.get("pkce_code_verifier")
        answer = adapter.get_access_token_data(request, provider.app, client, pkce_code_verifier=verifier)
        keys = _read(adapter.openid_config["jwks_uri"])
        claims = verified(str(answer["id_token"]), keys, nonce=str(data.get("nonce", "")))
    except (OAuth2Error, RequestException, jwt.PyJWTError, ValueError, KeyError) as error:
        raise _away(error) from error
    return Arrival(claims, state.get("process", ""), state.get("next") or "", data)


def verified(token: str, keys: Mapping, *, nonce: str) -> dict:
    """The claims of an id_token that this issuer signed for us, now, as an answer to that nonce. Raises PyJWTError."""
    sign_in, header = settings.LIKESTEP_OIDC, jwt.get_unverified_header(token)
    algorithm, number = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        raise jwt.InvalidAlgorithmError("not an algorithm of public keys")
    signing = [key for key in jwt.PyJWKSet.from_dict(dict(keys)).keys if key.public_key_use in (None, "sig")]
    fitting = [key for key in signing if number is None or key.key_id == number]
    if len(fitting) != 1:
        raise jwt.InvalidKeyError("no such key")
    needed = {"require": ["exp", "iat", "iss", "aud", "sub"]}
    rules = {"algorithms": [algorithm], "audience": sign_in.client_id, "issuer": sign_in.issuer, "leeway": LEEWAY}
    claims = jwt.decode(token, fitting[0].key, options=needed, **rules)
    if not nonce or not constant_time_compare(str(claims.get("nonce", "")), nonce):
        raise jwt.InvalidTokenError("another nonce")
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if claims.get("azp", None if several else sign_in.client_id) != sign_in.client_id:
        raise jwt.InvalidAudienceError("for another party")
    if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= LONGEST:
        raise jwt.InvalidTokenError("no subject that can be kept")
    return claims


def _provider(request: HttpRequest):
    """allauth's, with the adapter of this module."""
    if settings.LIKESTEP_OIDC is None:
        raise Refused(_("Nobody logs in by another site here."))
    found = get_adapter().get_provider(request, provider=APP)
    found.oauth2_adapter_class = _Adapter
    return found


def _scope() -> list[str]:
    return ["openid", "profile", "email"]


def _away(error: Exception) -> Refused:
    """What the person is told; the log has what kind of error it was, and no token."""
    log.warning("nobody can log in by the issuer: %s", type(error).__name__)
    return Refused(_("The other site's answer cannot be used. Try again, or tell an admin."))
