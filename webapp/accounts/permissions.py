"""Who may do what in a project: the one place that decides."""

from __future__ import annotations

from functools import wraps

from django.contrib.auth.decorators import login_required
from django.http import Http404
from django.shortcuts import get_object_or_404

from webapp.campaigns.models import Membership, Project, Role

RANK = {Role.ANNOTATOR: 0, Role.REVIEWER: 1, Role.ADMIN: 2}


def role_in(user, project: Project) -> str | None:
    """The person's role, None for an outsider; superusers are admins everywhere."""
    if not user.is_authenticated:
        return None
    if user.is_superuser:
        return Role.ADMIN
    return Membership.objects.filter(user=user, project=project).values_list("role", flat=True).first()


def may(user, project: Project, needed: Role) -> bool:
    """Whether the person has at least the role `needed`."""
    role = role_in(user, project)
    return role is not None and RANK[role] >= RANK[needed]


def projects_of(user):
    """The projects a person may see."""
    if user.is_superuser:
        return Project.objects.all()
    return Project.objects.filter(memberships__user=user)


def member(needed: Role):
    """Decorator of a view with a `slug`: passes the Project on. Who has no part in it gets 404, so that a project's
    existence is not told either."""

    def decorate(view):
        @login_required
        @wraps(view)
        def wrapper(request, slug: str, *args, **kwargs):
            project = get_object_or_404(Project, slug=slug)
            if not may(request.user, project, needed):
                raise Http404
            return view(request, project, *args, **kwargs)

        wrapper.needed_role = needed
        return wrapper

    return decorate
