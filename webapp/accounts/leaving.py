"""Leaving takes effect at once: who loses a role, an account or a password loses what was open with it."""

from __future__ import annotations

from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver
from django.utils import timezone

from webapp.accounts.models import User
from webapp.campaigns.models import Membership
from webapp.lib import events


@receiver(post_save, sender=User)
def account_changed(instance: User, created: bool, **_signal) -> None:
    """A new password, or an account that is put away, ends API tokens; sessions end by themselves, and with them the
    sockets."""
    if created:
        return
    new_password = instance._password is not None  # Django's note of it until the row is saved; not of a newer hash
    if new_password or not instance.is_active:
        instance.api_tokens.filter(revoked_at=None).update(revoked_at=timezone.now())
        events.check_again(instance.pk)


@receiver(post_delete, sender=Membership)
def member_left(instance: Membership, **_signal) -> None:
    """Tokens of the project end, groups on screen go back to the queue, sockets close."""
    now = timezone.now()
    instance.user.api_tokens.filter(project=instance.project_id, revoked_at=None).update(revoked_at=now)
    instance.user.leases.filter(group__project=instance.project_id, expires_at__gt=now).set_end(now)
    events.check_again(instance.user_id)


@receiver(post_save, sender=Membership)
def role_changed(instance: Membership, created: bool, **_signal) -> None:
    """Sockets that the new role does not open close."""
    if not created:
        events.check_again(instance.user_id)
