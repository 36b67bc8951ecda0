"""Reads of projects and what they are made from."""

from __future__ import annotations

from django.conf import settings
from django.utils.translation import gettext as _

from webapp.accounts.permissions import administered_by

SHIPPED = "shipped"


def models_for(user) -> dict[str, tuple[str, str, str]]:
    """What a person may start a project from: value → (label, model folder, student folder).

    The shipped model, and the published version of each project they are an admin of. Nobody types a folder's name, so
    that no one can make the workers read a folder that no project of theirs uses; the Django admin has that for
    superusers.
    """
    found = {
        SHIPPED: (_("The shipped demo model"), str(settings.LIKESTEP_MODEL_DIR), str(settings.LIKESTEP_STUDENT_DIR))
    }
    for project in administered_by(user).select_related("active_version").exclude(active_version=None):
        version = project.active_version
        found[str(version.pk)] = (
            _("%(name)s, version %(n)s") % {"name": project.name, "n": version.number},
            project.model_dir,
            version.path,
        )
    return found
