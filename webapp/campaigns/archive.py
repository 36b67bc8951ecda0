"""What an archived project refuses: everything that would make it go on."""

from __future__ import annotations

from django.utils.translation import gettext as _

from webapp.campaigns.models import Project


def check_open(project: Project, error: type[ValueError]) -> None:
    """Raises `error` for an archived project: it takes no labels, flags, prompts, votes, rounds, publications and
    webhooks, and makes nothing."""
    if project.archived_at is not None:
        raise error(_("project: it is archived; reopen it first"))
