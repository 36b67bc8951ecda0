"""How people may log in at another site by OpenID Connect, read from the environment. Without an issuer it is off."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

HERE = ("localhost", "127.0.0.1", "::1")  # where an issuer may do without TLS
RATER, ANNOTATOR = "rater", "annotator"


@dataclass(frozen=True)
class SignIn:
    """The other site, whom it may send, and what becomes of those whom nobody here knows."""

    issuer: str
    client_id: str
    secret: str
    name: str  # on the button
    domains: tuple[str, ...] = ()  # of verified mail addresses; empty: any
    groups: tuple[str, ...] = ()  # one of which has to be in the claim; empty: any
    claim: str = "groups"
    join: tuple[str, ...] = ()  # projects (slugs) that unknown people join; empty: they do not get in
    join_as: str = RATER  # rating pages only; ANNOTATOR: also tokens and blind tests


def read(variables: Mapping[str, str]) -> SignIn | None:
    """What the variables say; None without an issuer. Raises ImproperlyConfigured that names one."""

    def text(name: str, default: str = "") -> str:
        return variables.get(name, "").strip() or default

    def words(name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in text(name).split(",") if part.strip())

    issuer = text("LIKESTEP_OIDC_ISSUER")
    if not issuer:
        return None
    parts = urlsplit(issuer)
    if not parts.hostname or parts.query or parts.fragment or len(issuer) > 200:
        raise ImproperlyConfigured("LIKESTEP_OIDC_ISSUER: give the issuer's address as its discovery document has it")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in HERE):
        raise ImproperlyConfigured("LIKESTEP_OIDC_ISSUER: it must be https")
    for name in ("LIKESTEP_OIDC_CLIENT_ID", "LIKESTEP_OIDC_SECRET"):
        if not text(name):
            raise ImproperlyConfigured(f"{name}: set it; the issuer gave it to you")
    join, join_as = words("LIKESTEP_OIDC_JOIN"), text("LIKESTEP_OIDC_JOIN_AS", RATER)
    if wrong := [slug for slug in join if not re.fullmatch(r"[-a-zA-Z0-9_]{1,50}", slug)]:
        raise ImproperlyConfigured(f"LIKESTEP_OIDC_JOIN: {wrong[0]!r} is no project's address")
    if join_as not in (RATER, ANNOTATOR):
        raise ImproperlyConfigured(f"LIKESTEP_OIDC_JOIN_AS: {join_as!r} is neither {RATER} nor {ANNOTATOR}")
    return SignIn(
        issuer=issuer,
        client_id=text("LIKESTEP_OIDC_CLIENT_ID"),
        secret=text("LIKESTEP_OIDC_SECRET"),
        name=text("LIKESTEP_OIDC_NAME", parts.hostname)[:60],
        domains=tuple(domain.lower().removeprefix("@") for domain in words("LIKESTEP_OIDC_DOMAINS")),
        groups=words("LIKESTEP_OIDC_GROUPS"),
        claim=text("LIKESTEP_OIDC_GROUPS_CLAIM", "groups"),
        join=join,
        join_as=join_as,
    )


def apps(found: SignIn | None) -> dict:
    """The same for allauth, which knows apps from here only."""
    if found is None:
        return {}
    app = {"provider_id": "sso", "name": found.name[:40], "client_id": found.client_id, "secret": found.secret}
    options = {"server_url": found.issuer.rstrip("/"), "oauth_pkce_enabled": True, "fetch_userinfo": False}
    return {"openid_connect": {"APPS": [app | {"settings": options}]}}
