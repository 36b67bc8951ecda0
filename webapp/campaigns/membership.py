"""Writes of who takes part in a project: invitations, joining, leaving."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from webapp.accounts.permissions import RANK, Action, allows, may
from webapp.campaigns.audit import audit
from webapp.campaigns.models import Invitation, Membership, Project, Role
from webapp.campaigns.services import CampaignError, token_hash
from webapp.lib import options


@transaction.atomic
def invite(project: Project, role: str, by) -> str:
    """Make an invitation; returns its token, which is not kept and cannot be shown again."""
    _check_role(role)
    token = secrets.token_urlsafe(24)
    audit(project, by, "invitation made", role=role)
    Invitation.objects.create(
        project=project,
        role=role,
        token_hash=token_hash(token),
        created_by=by,
        expires_at=timezone.now() + options.INVITATION,
    )
    return token


def open_invitations(project: Project) -> QuerySet[Invitation]:
    """Those that still work, newest first: unused, in time, of somebody who may invite today."""
    may_invite = [role for role in Role.values if allows(role, Action.PEOPLE)]
    admins = Membership.objects.filter(user=OuterRef("created_by"), project=project, role__in=may_invite)
    rows = project.invitations.filter(used_by=None, expires_at__gt=timezone.now(), created_by__is_active=True)
    rows = rows.filter(Q(created_by__is_superuser=True) | Exists(admins))
    return rows.select_related("created_by").order_by("-pk")


@transaction.atomic
def revoke_invitation(project: Project, invitation_id: int, by) -> bool:
    """End an unused invitation; whether there was one."""
    unused = Invitation.objects.filter(pk=invitation_id, project=project, used_by=None)
    gone = bool(unused.delete()[0])
    if gone:
        audit(project, by, "invitation revoked", invitation=invitation_id)
    return gone


def find_invitation(token: str) -> Invitation | None:
    """The invitation of a token that is unused, in time, and whose maker may still invite."""
    found = _unused(token).select_related("created_by", "project").first()
    return found if found is not None and _stands(found) else None


def role_gained(invitation: Invitation, user) -> str | None:
    """The role that the invitation would give this person; None when they have as much already."""
    role = Membership.objects.filter(user=user, project=invitation.project).values_list("role", flat=True).first()
    return invitation.role if role is None or RANK[invitation.role] > RANK[role] else None


@transaction.atomic
def accept_invitation(token: str, person: Callable | object) -> Membership:
    """Make a person a member, or raise a member's role, once. `person` is a user, or a function that makes one: joins at
    the same moment leave one account. Raises CampaignError when the link does not work or would change nothing; then
    it is not used."""
    invitation = _unused(token).select_for_update(of=("self",)).select_related("created_by", "project").first()
    if invitation is None or not _stands(invitation):
        raise CampaignError(_("invitation: the link was used already or is too old; ask an admin for a new one"))
    user = person() if callable(person) else person
    _check_outside(user, invitation.role)
    if role_gained(invitation, user) is None:
        raise CampaignError(_("invitation: you are a member with this role already; the link was not used"))
    values = {"role": invitation.role}
    membership, new = Membership.objects.update_or_create(user=user, project=invitation.project, defaults=values)
    invitation.used_by = user
    invitation.save(update_fields=["used_by"])
    audit(invitation.project, user, "joined" if new else "role raised by invitation", role=membership.role)
    return membership


@transaction.atomic
def change_role(project: Project, user_id: int, role: str, by) -> Membership | None:
    """The member has that role from now on; None for somebody who is none. Raises CampaignError for the last admin."""
    _check_role(role)
    member, is_last_admin = _locked_member(project, user_id)
    if member is None or member.role == role:
        return member
    if is_last_admin:
        raise _only_admin(member)
    _check_outside(member.user, role)
    audit(project, by, "role changed", username=member.user.username, role=[member.role, role])
    member.role = role
    member.save(update_fields=["role"])
    return member


@transaction.atomic
def remove_member(project: Project, user_id: int, by) -> Membership | None:
    """A person leaves the project at once; what they did stays. None for somebody who is no member. Raises CampaignError
    for the last admin."""
    leaving, is_last_admin = _locked_member(project, user_id)
    if leaving is None:
        return None
    if is_last_admin:
        raise _only_admin(leaving)
    leaving.delete()
    audit(project, by, "member removed", username=leaving.user.username, role=leaving.role)
    return leaving


def _locked_member(project: Project, user_id: int) -> tuple[Membership | None, bool]:
    """The membership, and whether it is the last admin's; all of the project's are locked."""
    members = list(project.memberships.select_for_update(of=("self",)).select_related("user"))
    found = next((m for m in members if m.user_id == user_id), None)
    admins = [m for m in members if m.role == Role.ADMIN]
    return found, found is not None and admins == [found]


def _only_admin(member: Membership) -> CampaignError:
    return CampaignError(_("people: %(name)s is the only admin; make another one first") % {"name": member.user})


def _check_role(role: str) -> None:
    """Raises CampaignError for what is none."""
    if role not in Role.values:
        raise CampaignError(
            _("role: %(role)s is not one of %(values)s") % {"role": repr(role), "values": ", ".join(Role.values)}
        )


def _check_outside(user, role: str) -> None:
    """Raises CampaignError where somebody from outside would be more than an annotator."""
    if user.outside and role != Role.ANNOTATOR:
        raise CampaignError(
            _("role: %(name)s came from outside and stays an annotator; invite them to make an account of their own")
            % {"name": user.username}
        )


def _unused(token: str):
    return Invitation.objects.filter(token_hash=token_hash(token), used_by__isnull=True, expires_at__gt=timezone.now())


def _stands(invitation: Invitation) -> bool:
    """A link is worth no more than its maker: it ends when they may not invite any more."""
    return invitation.created_by.is_active and may(invitation.created_by, invitation.project, Action.PEOPLE)
