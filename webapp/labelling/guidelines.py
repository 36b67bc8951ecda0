"""The examples beside the work."""

from __future__ import annotations

from django.utils.translation import gettext as _

from webapp.campaigns.models import Project
from webapp.labelling.errors import LabellingError
from webapp.labelling.models import (
    Example,
    Generation,
)
from webapp.lib import options


def add_example(project: Project, generation_id: int, *, good: bool, note: str) -> Example:
    """Show an image beside the guidelines as one to be liked (`good`) or disliked."""
    generation = Generation.objects.filter(pk=generation_id, group__project=project).first()
    if generation is None:
        raise LabellingError(_("image: %(id)s is not in this project") % {"id": generation_id})
    others = Example.objects.filter(generation__group__project=project).exclude(generation=generation)
    if others.count() >= options.EXAMPLES:
        raise LabellingError(
            _("examples: there are %(n)s, which is all that people will look at; remove one first")
            % {"n": options.EXAMPLES}
        )
    values = {"good": good, "note": note.strip()[:200]}
    return Example.objects.update_or_create(generation=generation, defaults=values)[0]


def remove_example(project: Project, example_id: int) -> None:
    """Show the example no longer; one that is gone already is fine."""
    Example.objects.filter(pk=example_id, generation__group__project=project).delete()
