"""Passwords that were forgotten: a link that works once sets a new one. A new password ends sessions and API tokens, see
`leaving`."""

from __future__ import annotations

import logging
from smtplib import SMTPException

from django.conf import settings
from django.contrib.auth.forms import SetPasswordForm
from django.contrib.auth.tokens import PasswordResetTokenGenerator
from django.core.cache import cache
from django.core.mail import send_mail
from django.db import transaction
from django.utils.translation import gettext as _

from webapp.accounts.models import User
from webapp.accounts.permissions import administered_by
from webapp.campaigns.audit import audit
from webapp.campaigns.models import Project
from webapp.campaigns.services import CampaignError

log = logging.getLogger(__name__)
MAILED_EVERY = 300  # seconds between two mails to one person
HIGHEST = 2**63 - 1  # number of a row


class Links(PasswordResetTokenGenerator):
    """Tokens for new passwords that `by` hands out: they end with a day, a log-in, and a new password or address."""

    key_salt = "webapp.campaigns.passwords"

    def __init__(self, by: User):
        super().__init__()
        self.by = by

    def _make_hash_value(self, user: User, timestamp: int) -> str:
        return f"{super()._make_hash_value(user, timestamp)}-{self.by.pk}"


def may_reset(by: User, user: User) -> bool:
    """Oneself by mail, a superuser everybody; an admin who takes part in no project beyond what the admin is an admin of
    anyway: whoever sets a password can do all that its owner can. Somebody from outside has none to set."""
    if not by.is_active or not user.is_active or user.outside:
        return False
    if by == user or by.is_superuser:
        return True
    if user.is_superuser or user.is_staff or not user.memberships.exists():
        return False
    return not user.memberships.exclude(project__in=administered_by(by)).exists()


@transaction.atomic
def hand_out(project: Project, user_id: int, by: User) -> tuple[User, str]:
    """The member and the token of a new link. Raises CampaignError for somebody whose password `by` may not set."""
    member = project.memberships.select_related("user").filter(user=user_id).first()
    if member is None or not may_reset(by, member.user):
        raise CampaignError(
            _("people: this person also takes part in projects that you are no admin of; ask a superuser for the link")
        )
    audit(project, by, "password link made", username=member.user.username)
    return member.user, Links(by).make_token(member.user)


def owner_of(user_id: int, by_id: int, token: str, *, lock: bool = False) -> User | None:
    """Whose password the link sets; None when it was used, is too old, or its maker may not set it any more."""
    if max(user_id, by_id) > HIGHEST:
        return None
    people = User.objects.select_for_update() if lock else User.objects.all()
    user, by = people.filter(pk=user_id).first(), User.objects.filter(pk=by_id).first()
    if user is None or by is None or not may_reset(by, user) or not Links(by).check_token(user, token):
        return None
    return user


@transaction.atomic
def set_by_link(user_id: int, by_id: int, token: str, form: SetPasswordForm) -> bool:
    """Keep the form's password; False when the link was used meanwhile."""
    user = owner_of(user_id, by_id, token, lock=True)
    if user is None:
        return False
    form.user = user
    form.save()
    return True


def mail(user: User, subject: str, text: str) -> bool:
    """Send the person a mail, where the server can and they have an address; whether it went out."""
    if not settings.EMAIL_HOST or not user.email:
        return False
    try:
        return send_mail(subject, text, None, [user.email]) == 1
    except (SMTPException, OSError) as error:
        log.warning("no mail to person %s: %s", user.pk, type(error).__name__)
        return False


def mail_link(user: User, link: str) -> bool:
    """Mail the person the link that sets their password."""
    text = _("Set a new password for your Likestep account %(name)s here. The link works once, for a day:")
    return mail(user, _("Your Likestep password"), f"{text % {'name': user.username}}\n\n{link}\n")


def mailed_lately(user: User) -> bool:
    """Whether somebody asked for a mail to this person just now; if not, it is noted that they do."""
    return not cache.add(f"password-mail-{user.pk}", 1, MAILED_EVERY)
