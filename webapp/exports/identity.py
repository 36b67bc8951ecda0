"""Who a person is in a project's files: an id that stays through renames and departures and tells nobody their name."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from django.db.models import Q

from webapp.accounts.models import User
from webapp.campaigns.models import Project


def pseudonym(project: Project, user_id: int) -> str:
    """`person-` and 16 hexadecimal digits; another one in every project."""
    digest = hmac.digest(project.salt.encode(), str(user_id).encode(), hashlib.sha256)
    return f"person-{digest.hex()[:16]}"


def number(who: str) -> int:
    """The same as a whole number below 2⁶³, for formats that want one."""
    return int(who.removeprefix("person-"), 16) >> 1


def people(project: Project) -> list[User]:
    """Everybody who is a member, or decided on a group here before they left."""
    by = Q(memberships__project=project) | Q(group_decisions__group__project=project)
    return list(User.objects.filter(by).distinct().order_by("username"))


def resolve(project: Project, names: Iterable[str]) -> dict[str, User]:
    """The people of the project by what a file calls them: their id, or their name of today."""
    names, found = set(names), {}
    if not names:
        return found
    for user in people(project):
        for name in (pseudonym(project, user.pk), user.username):
            if name in names:
                found[name] = user
    return found
