"""Who may do what in a project: the one place that decides."""

from __future__ import annotations

from functools import wraps

from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _

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


def managed_by(user, projects) -> set[int]:
    """The ids of those of the `projects` that a person may review, in one query."""
    if user.is_superuser:
        return {p.pk for p in projects}
    roles = Membership.objects.filter(user=user, project__in=projects).values_list("project", "role")
    return {pk for pk, role in roles if RANK[role] >= RANK[Role.REVIEWER]}


def reviewed_by(user):
    """The projects a person may review."""
    if user.is_superuser:
        return Project.objects.all()
    return Project.objects.filter(memberships__user=user, memberships__role__in=[Role.REVIEWER, Role.ADMIN])


def administered_by(user):
    """The projects a person is an admin of."""
    if user.is_superuser:
        return Project.objects.all()
    return Project.objects.filter(memberships__user=user, memberships__role=Role.ADMIN)


def may_create_projects(user) -> bool:
    """Superusers, and whoever is trusted with a project already."""
    return user.is_superuser or administered_by(user).exists()


def _log_in_first(request) -> HttpResponse:
    """The log-in page for a person; 401 for a script, which would take the page it is sent to for an answer."""
    if "application/json" in request.headers.get("Accept", ""):
        return JsonResponse({"error": _("Your session has ended. Log in again; your answers are kept.")}, status=401)
    return redirect_to_login(request.get_full_path())


def _part_in(user, slug: str) -> tuple[Project, str]:
    """The project and the person's role in it, in one query for members; 404 for an outsider."""
    if user.is_superuser:
        return get_object_or_404(Project, slug=slug), Role.ADMIN
    found = get_object_or_404(Membership.objects.select_related("project"), user=user, project__slug=slug)
    return found.project, found.role


def member(needed: Role):
    """Decorator of a view with a `slug`: passes the Project on. Who has no part in it gets 404, so that a project's
    existence is not told either."""

    def decorate(view):
        @wraps(view)
        def wrapper(request, slug: str, *args, **kwargs):
            if not request.user.is_authenticated:
                return _log_in_first(request)
            project, role = _part_in(request.user, slug)
            if RANK[role] < RANK[needed]:
                raise Http404
            request.role = role  # templates show what the person may do
            return view(request, project, *args, **kwargs)

        wrapper.needed_role = needed
        return wrapper

    return decorate
