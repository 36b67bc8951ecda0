"""Who somebody is whom the issuer sends: a known account, an invitation, or somebody new where that is allowed. Accounts
are known by the issuer's subject, never by a name or a mail address."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping

from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from webapp.accounts.models import User
from webapp.campaigns import membership
from webapp.campaigns.audit import audit
from webapp.campaigns.models import Membership, Project, Role
from webapp.campaigns.services import CampaignError
from webapp.lib.sign_in import RATER
from webapp.raters.oidc import Refused

log = logging.getLogger(__name__)
NAME = 60  # characters that are kept of a name


def check_allowed(claims: Mapping) -> None:
    """Raises Refused for somebody whom the settings leave out, each time they come."""
    rules = settings.LIKESTEP_OIDC
    if rules.domains:
        address = claims.get("email")
        domain = address.rpartition("@")[2].lower() if isinstance(address, str) else ""
        if claims.get("email_verified") is not True or domain not in rules.domains:
            raise Refused(_("Your mail address is not one that may log in here."))
    if rules.groups:
        theirs = claims.get(rules.claim)
        theirs = theirs if isinstance(theirs, list) else [theirs]
        if not set(rules.groups) & {group for group in theirs if isinstance(group, str)}:
            raise Refused(_("You are in none of the groups that may log in here."))


def enter(claims: Mapping, *, invitation: str = "") -> User:
    """The person's account, made where they may join. Raises Refused."""
    check_allowed(claims)
    known = _known(claims)
    if known is not None:
        return _active(known.user)
    try:
        with transaction.atomic():
            if invitation:
                return membership.accept_invitation(invitation, lambda: _new(claims, outside=False)).user
            return _join(claims)
    except CampaignError as error:
        raise Refused(str(error)) from error
    except IntegrityError as error:  # they came twice at the same moment
        if (known := _known(claims)) is not None:
            return _active(known.user)
        raise Refused(_("That was one log-in too many at a time. Try again.")) from error


@transaction.atomic
def connect(user: User, claims: Mapping) -> None:
    """Let the person log in by the issuer from now on. Raises Refused where somebody else does so already."""
    check_allowed(claims)
    values = {"provider": settings.LIKESTEP_OIDC.issuer, "uid": claims["sub"]}
    account, _new_row = SocialAccount.objects.get_or_create(**values, defaults={"user": user})
    if account.user_id != user.pk:
        raise Refused(_("Somebody else here logs in with this account of the other site."))


def disconnect(user: User) -> int:
    """They log in by the issuer no more; how many ways there were."""
    return SocialAccount.objects.filter(user=user).delete()[0]


def is_connected(user: User) -> bool:
    """Whether the person may log in by the issuer."""
    return SocialAccount.objects.filter(user=user).exists()


def _known(claims: Mapping) -> SocialAccount | None:
    rows = SocialAccount.objects.filter(provider=settings.LIKESTEP_OIDC.issuer, uid=claims["sub"])
    return rows.select_related("user").first()


def _active(user: User) -> User:
    if not user.is_active:
        raise Refused(_("This account is closed."))
    return user


def _join(claims: Mapping) -> User:
    """Somebody whom nobody knows joins the projects of the settings."""
    rules = settings.LIKESTEP_OIDC
    projects = list(Project.objects.filter(slug__in=rules.join, archived_at=None))
    if len(projects) < len(rules.join):
        log.warning("LIKESTEP_OIDC_JOIN names a project that is not open")
    if not projects:
        raise Refused(_("Nobody here knows you yet. Ask an admin for an invitation, and log in from there."))
    user = _new(claims, outside=rules.join_as == RATER)
    for project in projects:
        Membership.objects.create(user=user, project=project, role=Role.ANNOTATOR)
        audit(project, user, "joined by log-in", role=Role.ANNOTATOR)
    return user


def _new(claims: Mapping, *, outside: bool) -> User:
    """An account without a password, under the name that the issuer says, where that is a name and nobody's."""
    user = User(username=_name(claims), outside=outside)
    user.set_unusable_password()
    user.save()
    SocialAccount.objects.create(user=user, provider=settings.LIKESTEP_OIDC.issuer, uid=claims["sub"])
    return user


def _name(claims: Mapping) -> str:
    address = claims.get("email") if claims.get("email_verified") is True else ""
    for said in (claims.get("preferred_username"), claims.get("name"), str(address or "").partition("@")[0]):
        name = re.sub(r"\s+", ".", said.strip())[:NAME] if isinstance(said, str) else ""
        if not name:
            continue
        for wanted in (name, f"{name}-{secrets.token_hex(3)}"):
            try:
                User(username=wanted).full_clean(exclude=["password"])
            except ValidationError:
                continue
            return wanted
    return f"rater-{secrets.token_hex(6)}"
