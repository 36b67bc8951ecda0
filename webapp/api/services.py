"""Writes of tokens and webhooks."""

from __future__ import annotations

import secrets
from datetime import timedelta

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from webapp.accounts.permissions import NEEDED, Action, may
from webapp.api.models import ApiToken, Scope, Webhook
from webapp.campaigns.archive import check_open
from webapp.campaigns.audit import audit
from webapp.campaigns.models import Project
from webapp.campaigns.services import token_hash
from webapp.lib import bounds
from webapp.webhooks import outbox
from webapp.webhooks.events import EVENTS
from webapp.webhooks.outgoing import Refused, check_url

PREFIX = "ls_"
LAST_USED_EVERY = timedelta(minutes=1)
# What an owner must be allowed to make a token of a scope. What it then does is asked with every request.
FIRST = {Scope.READ: Action.SEE, Scope.LABEL: Action.LABEL, Scope.ADMIN: Action.SETTINGS}


class ApiError(ValueError):
    """A request that cannot be carried out; the message names the field and the fix."""


@transaction.atomic
def create_token(
    project: Project, user, name: str, scopes: list[str], *, days: int | None = None
) -> tuple[ApiToken, str]:
    """A token and its text, which is not kept and cannot be shown again."""
    name = name.strip()
    if not 1 <= len(name) <= 80:
        raise ApiError(_("name: say in 1 to 80 characters what the token is for"))
    if not scopes or (wrong := sorted(set(scopes) - set(Scope.values))):
        raise ApiError(
            _("scopes: choose some of %(values)s") % {"values": ", ".join(Scope.values)}
            + (_(", not %(value)s") % {"value": repr(wrong[0])} if scopes else "")
        )
    for scope in scopes:
        if not may(user, project, FIRST[scope]):
            role = NEEDED[FIRST[scope]]
            raise ApiError(_("scopes: %(scope)s needs the role %(value)s") % {"scope": scope, "value": role})
    text = PREFIX + secrets.token_urlsafe(32)
    token = ApiToken.objects.create(
        project=project,
        user=user,
        name=name,
        scopes=sorted(set(scopes)),
        token_hash=token_hash(text),
        hint=text[:8],
        expires_at=timezone.now() + timedelta(days=days) if days else None,
    )
    audit(project, user, "API token made", name=name, scopes=token.scopes)
    return token, text


@transaction.atomic
def revoke_token(project: Project, token_id: int, by) -> None:
    """End a token: one's own, or anybody's for an admin of the project."""
    tokens = ApiToken.objects.filter(pk=token_id, project=project, revoked_at=None)
    if not may(by, project, Action.HOOKS):
        tokens = tokens.filter(user=by)
    if tokens.update(revoked_at=timezone.now()):
        audit(project, by, "API token revoked", token=token_id)


def find_token(text: str) -> ApiToken | None:
    """The live token of this text; its use is noted at most once a minute."""
    token = (
        ApiToken.objects.select_related("user", "project")
        .filter(token_hash=token_hash(text), revoked_at=None, user__is_active=True)
        .first()
    )
    now = timezone.now()
    if token is None or (token.expires_at is not None and token.expires_at <= now):
        return None
    if token.last_used_at is None or now - token.last_used_at > LAST_USED_EVERY:
        ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)
    return token


def allows(token: ApiToken, scope: str, action: Action) -> bool:
    """Whether the token has the scope and its owner may do it today: a lost role is lost at once."""
    has = scope in token.scopes or Scope.ADMIN in token.scopes
    return has and may(token.user, token.project, action)


@transaction.atomic
def create_webhook(project: Project, url: str, events: list[str], by, *, every: int = 100) -> Webhook:
    """A webhook with a secret of its own. Raises ApiError for an address that will never be asked."""
    check_open(project, ApiError)
    try:
        check_url(url)
    except Refused as error:
        raise ApiError(str(error)) from error
    if len(url) > 500:
        raise ApiError(_("url: at most 500 characters"))
    if not events or set(events) - set(EVENTS):
        raise ApiError(_("events: choose some of %(values)s") % {"values": ", ".join(EVENTS)})
    try:
        every = bounds.EVERY.whole(every, "every")
    except bounds.OutOfBounds as error:
        raise ApiError(str(error)) from error
    webhook = outbox.switch_on(project, url, sorted(set(events)), outbox.new_secret(), by, every=every)
    audit(project, by, "webhook made", url=url, events=webhook.events)
    return webhook


@transaction.atomic
def delete_webhook(project: Project, webhook_id: int, by) -> bool:
    """Remove a webhook with its outbox; whether there was one."""
    webhook = Webhook.objects.filter(pk=webhook_id, project=project).first()
    if webhook is None:
        return False
    audit(project, by, "webhook removed", url=webhook.url)
    webhook.delete()
    return True
