"""The API's part about members and invitations: as `endpoints`, by the services of their page."""

from __future__ import annotations

from django.http import HttpRequest
from django.urls import reverse
from ninja import Path, Router, Status
from ninja.errors import HttpError

from webapp.accounts.permissions import Action
from webapp.api import schemas as s
from webapp.api.auth import may_administer, may_read
from webapp.api.contract import After, Limit, page
from webapp.campaigns import membership, queries
from webapp.campaigns.models import Invitation, Membership, Project

router = Router(tags=["people"])


def _members(project: Project, rows: list[Membership]) -> list[dict]:
    done = queries.activity(project, [row.user_id for row in rows])
    return [
        {
            "id": row.user_id,
            "name": row.user.username,
            "role": row.role,
            "groups": done[row.user_id].groups,
            "groups_of_the_week": done[row.user_id].week,
            "last_day": done[row.user_id].last,
        }
        for row in rows
    ]


@router.get("/members", auth=may_read(Action.PEOPLE), response=s.Page[s.MemberOut])
def members(request, slug: Path[str], after: int = After, limit: int = Limit):
    """Who takes part, and what they did."""
    project = request.auth.project
    found = page(project.memberships.select_related("user"), after, limit, lambda row: row, key="user_id")
    return {**found, "items": _members(project, found["items"])}


@router.put("/members/{int:user_id}", auth=may_administer(Action.PEOPLE), response=s.MemberOut)
def change_role(request, slug: Path[str], user_id: int, body: s.RoleIn):
    """Give a member another role; the only admin keeps theirs."""
    project = request.auth.project
    changed = membership.change_role(project, user_id, body.role, request.auth.user)
    if changed is None:
        raise HttpError(404, "member: nobody of this number is one")
    return _members(project, [changed])[0]


@router.delete("/members/{int:user_id}", auth=may_administer(Action.PEOPLE), response={204: None})
def remove_member(request, slug: Path[str], user_id: int):
    """Somebody takes part no more, at once; their labels stay and count. The only admin cannot be removed."""
    if membership.remove_member(request.auth.project, user_id, request.auth.user) is None:
        raise HttpError(404, "member: nobody of this number is one")
    return Status(204, None)


def _invitation(row: Invitation) -> dict:
    about = {name: getattr(row, name) for name in ("role", "created_at", "expires_at")}
    return {"id": row.pk, "by": row.created_by.username, **about}


@router.get("/invitations", auth=may_read(Action.PEOPLE), response=s.Page[s.InvitationOut])
def invitations(request, slug: Path[str], after: int = After, limit: int = Limit):
    """The invitations that still work."""
    return page(membership.open_invitations(request.auth.project), after, limit, _invitation)


@router.post("/invitations", auth=may_administer(Action.PEOPLE), response=s.InvitationMade)
def invite(request: HttpRequest, slug: Path[str], body: s.RoleIn):
    """Make an invitation; its link is in the answer and nowhere else."""
    token = membership.invite(request.auth.project, body.role, request.auth.user)
    made = membership.find_invitation(token)
    if made is None:  # its maker lost the role at this moment
        raise HttpError(404, "invitation: it does not work any more")
    return {**_invitation(made), "link": request.build_absolute_uri(reverse("join", args=[token]))}


@router.delete("/invitations/{int:invitation_id}", auth=may_administer(Action.PEOPLE), response={204: None})
def revoke_invitation(request, slug: Path[str], invitation_id: int):
    """End an invitation that nobody has used."""
    if not membership.revoke_invitation(request.auth.project, invitation_id, request.auth.user):
        raise HttpError(404, "invitation: there is no open one of this number")
    return Status(204, None)
