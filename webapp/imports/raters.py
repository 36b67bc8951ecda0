"""Labels that came with own images, in the name of who gave them: an account that nobody can log in to.

They are given once a worker has encoded the group and it can be rated, as a person's decision on it.
"""

from __future__ import annotations

import logging

from webapp.accounts.models import User
from webapp.campaigns.models import Project
from webapp.imports.models import ImportedImage
from webapp.labelling import decisions
from webapp.labelling.errors import LabellingError
from webapp.labelling.leases import give
from webapp.labelling.models import Group, GroupState, Outcome

log = logging.getLogger(__name__)
LONGEST = 60
BATCH = 200


def rater(project: Project, name: str) -> User:
    """The account of that name in the project. It has a character that no name of a person may have, so that it is never
    somebody's."""
    user, new = User.objects.get_or_create(
        username=f"import:{project.slug}:{name.strip()}"[:150], defaults={"is_active": False}
    )
    if new:
        user.set_unusable_password()
        user.save()
    return user


def give_labels(group_id: int) -> bool:
    """Give what came with a group's images, unless it is given; False where nothing did."""
    rows = ImportedImage.objects.filter(generation__group=group_id, liked__isnull=False)
    answer = dict(rows.values_list("generation__position", "liked"))
    source = rows.select_related("source__rater").first()
    if source is None or source.source.rater is None:
        return False
    user, group = source.source.rater, Group.objects.select_related("project").get(pk=group_id)
    give(user, group.pk, lasts=False)
    try:
        decisions.submit_group(user, group.project, group.pk, answer, seconds=0, idempotency_key=f"import-{group.pk}")
    except LabellingError as error:  # it was flagged or archived meanwhile
        log.warning("group %s keeps no imported labels: %s", group_id, error)
        return False
    return True


def give_late() -> int:
    """The same for groups whose worker was lost in between; returns how many."""
    rows = ImportedImage.objects.filter(liked__isnull=False, generation__position=0)
    rows = rows.filter(generation__group__state=GroupState.READY, project__archived_at=None)
    late = rows.exclude(generation__group__group_decisions__outcome=Outcome.SUBMITTED)
    return sum(give_labels(pk) for pk in late.values_list("generation__group", flat=True)[:BATCH])
