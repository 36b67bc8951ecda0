"""Who may do what in a project: the one table, which pages, API and socket ask."""

from __future__ import annotations

from enum import StrEnum
from functools import wraps
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, resolve_url
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _

from webapp.campaigns.models import Membership, Project, Role
from webapp.lib.prepared import ask

RANK = {Role.ANNOTATOR: 0, Role.REVIEWER: 1, Role.ADMIN: 2}


class Action(StrEnum):
    """What somebody may do in a project."""

    LABEL = "label"  # be given groups, see their images, decide, skip, flag, undo
    LEARN = "learn"  # the guidelines and one's own numbers, keys and language
    VOTE = "vote"  # in blind tests
    TOKENS = "tokens"  # make and revoke one's own API tokens
    SEE = "see"  # the dashboard, groups and their rewards, rounds, versions, blind tests; live news of them
    REVIEW = "review"  # single labels of a group and how people label; overrule, settle flags, make gold and examples
    PROMPTS = "prompts"
    ROUNDS = "rounds"  # start and cancel, try failed groups again
    VERSIONS = "versions"  # publish, download, compare in blind tests, try with any prompt
    EXPORT = "export"  # all labels with who gave them, by export or list
    IMPORT = "import"
    HOOKS = "hooks"  # webhooks, and everybody's tokens
    PEOPLE = "people"  # invite, list, remove
    SETTINGS = "settings"  # of the project: change, clone, archive, and who changed what


NEEDED = {
    Action.LABEL: Role.ANNOTATOR,
    Action.LEARN: Role.ANNOTATOR,
    Action.VOTE: Role.ANNOTATOR,
    Action.TOKENS: Role.ANNOTATOR,
    Action.SEE: Role.REVIEWER,
    Action.REVIEW: Role.REVIEWER,
    Action.PROMPTS: Role.ADMIN,
    Action.ROUNDS: Role.ADMIN,
    Action.VERSIONS: Role.ADMIN,
    Action.EXPORT: Role.ADMIN,
    Action.IMPORT: Role.ADMIN,
    Action.HOOKS: Role.ADMIN,
    Action.PEOPLE: Role.ADMIN,
    Action.SETTINGS: Role.ADMIN,
}

OUTSIDE = {Action.LABEL, Action.LEARN}  # all that somebody from outside may do, whatever a row says of their role


def role_in(user, project: Project) -> str | None:
    """The person's role, None for an outsider; superusers are admins everywhere."""
    if not user.is_authenticated:
        return None
    if user.is_superuser:
        return Role.ADMIN
    return Membership.objects.filter(user=user, project=project).values_list("role", flat=True).first()


def allows(role: str | None, action: Action) -> bool:
    """Whether somebody of that role (None: an outsider) may do it."""
    return role is not None and RANK[role] >= RANK[NEEDED[action]]


def may(user, project: Project, action: Action) -> bool:
    """Whether the person may do it there."""
    return not _beyond(user, action) and allows(role_in(user, project), action)


def _beyond(user, action: Action) -> bool:
    """Whether somebody from outside asks for more than rating."""
    return user.is_authenticated and user.outside and action not in OUTSIDE


def projects_of(user):
    """The projects a person may see."""
    if user.is_superuser:
        return Project.objects.all()
    return Project.objects.filter(memberships__user=user)


def managed_by(user, projects) -> set[int]:
    """The ids of those of the `projects` that a person may review, in one query."""
    if user.is_superuser:
        return {p.pk for p in projects}
    if user.outside:
        return set()
    roles = Membership.objects.filter(user=user, project__in=projects).values_list("project", "role")
    return {pk for pk, role in roles if allows(role, Action.SEE)}


def reviewed_by(user):
    """The projects a person may review."""
    if user.is_superuser:
        return Project.objects.all()
    if user.outside:
        return Project.objects.none()
    return Project.objects.filter(memberships__user=user, memberships__role__in=[Role.REVIEWER, Role.ADMIN])


def administered_by(user):
    """The projects a person is an admin of."""
    if user.is_superuser:
        return Project.objects.all()
    if user.outside:
        return Project.objects.none()
    return Project.objects.filter(memberships__user=user, memberships__role=Role.ADMIN)


def may_create_projects(user) -> bool:
    """Superusers, and whoever is trusted with a project already."""
    return user.is_superuser or administered_by(user).exists()


def _log_in_first(request) -> HttpResponse:
    """The log-in page for a person; 401 for a script, which would take the page it is sent to for an answer."""
    if "application/json" in request.headers.get("Accept", ""):
        return JsonResponse({"error": _("Your session has ended. Log in again; your answers are kept.")}, status=401)
    return redirect_to_login(_page_of(request))


def _page_of(request) -> str:
    """Where to go on after log-in: the page that was asked for, or the one whose form was sent. An address that a form is
    sent to may be no page."""
    if request.method in ("GET", "HEAD"):
        return request.get_full_path()
    came_from = request.headers.get("Referer", "")
    ours = url_has_allowed_host_and_scheme(came_from, {request.get_host()}, require_https=request.is_secure())
    if not ours:
        return resolve_url(settings.LOGIN_REDIRECT_URL)
    parts = urlsplit(came_from)
    return urlunsplit(("", "", parts.path or "/", parts.query, ""))


def _part_in(user, slug: str) -> tuple[Project, str]:
    """The project and the person's role in it, in one query for members; 404 for an outsider."""
    if user.is_superuser:
        return get_object_or_404(Project, slug=slug), Role.ADMIN
    found = ask("part in", _parts, user=user.pk, slug=slug)
    if not found:
        raise Http404
    return found[0].project, found[0].role


def _parts(user: int, slug: str):
    return Membership.objects.filter(user=user, project__slug=slug).select_related("project")


def member(action: Action):
    """Decorator of a view with a `slug` for whom the table lets do `action`: passes the Project on. Everybody else gets
    404, so that a project's existence is not told either."""

    def decorate(view):
        @wraps(view)
        def wrapper(request, slug: str, *args, **kwargs):
            if not request.user.is_authenticated:
                return _log_in_first(request)
            project, role = _part_in(request.user, slug)
            if _beyond(request.user, action) or not allows(role, action):
                raise Http404
            request.role = role  # templates show what the person may do
            return view(request, project, *args, **kwargs)

        wrapper.action = action
        return wrapper

    return decorate
