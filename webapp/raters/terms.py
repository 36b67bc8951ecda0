"""The consent text by version, and who agreed to which."""

from __future__ import annotations

from django.db import IntegrityError, transaction
from django.db.models import Count

from webapp.campaigns.models import Project
from webapp.raters.models import Agreement, Terms


def current(project: Project) -> Terms | None:
    """The version that holds; None where nobody is asked. A text that nobody was shown yet becomes the next version."""
    if not project.consent:
        return None
    last = project.terms.first()
    if last is not None and last.text == project.consent:
        return last
    number = 1 if last is None else last.number + 1
    try:
        with transaction.atomic():
            return Terms.objects.create(project=project, number=number, text=project.consent)
    except IntegrityError:  # somebody else was shown it at the same moment
        return project.terms.first()


def agreed(user, project: Project) -> bool:
    """Whether the person agreed to the version that holds, or nobody is asked."""
    terms = current(project)
    return terms is None or Agreement.objects.filter(terms=terms, user=user).exists()


def agree(user, project: Project, number: int) -> bool:
    """Note that the person agrees to the version of that number; False where another one holds by now."""
    terms = current(project)
    if terms is None or terms.number != number:
        return terms is None
    Agreement.objects.get_or_create(terms=terms, user=user)
    return True


def versions(project: Project):
    """All versions, newest first, with how many people agreed as `people`."""
    return project.terms.annotate(people=Count("agreements"))
