"""Who waits for a group is told why there is none, truthfully."""

from datetime import timedelta

import pytest
from django.utils import timezone

from webapp.campaigns.services import set_archived
from webapp.labelling.models import Group, GroupState
from webapp.labelling.waiting import why_none


def group(project, state, *, waited=timedelta(0), beat=None):
    made = Group.objects.create(
        project=project,
        prompt=project.prompts.first(),
        version=project.active_version,
        state=state,
        first_seed=1,
        size=4,
    )
    Group.objects.filter(pk=made.pk).update(created_at=timezone.now() - waited, heartbeat_at=beat)


CASES = {
    "failed": ([(GroupState.FAILED, timedelta(0), True)], "cannot be made right now"),
    "failed long ago": ([(GroupState.FAILED, timedelta(0), False)], "No group is waiting right now"),
    "nobody begins": ([(GroupState.QUEUED, timedelta(minutes=5), False)], "no machine has begun"),
    "just queued": ([(GroupState.QUEUED, timedelta(0), False)], "New groups are being made"),
    "begun": ([(GroupState.GENERATING, timedelta(minutes=5), True)], "New groups are being made"),
    "slow": (
        [(GroupState.GENERATING, timedelta(0), True), *[(GroupState.READY, timedelta(0), True)] * 30],
        "they make a group in about 20 s",
    ),
    "nothing": ([], "No group is waiting right now"),
}


@pytest.mark.parametrize(("groups", "said"), CASES.values(), ids=CASES)
def test_the_reason(project, groups, said):
    for state, waited, lately in groups:
        group(project, state, waited=waited, beat=timezone.now() - timedelta(0 if lately else 1))
    assert said in why_none(project)


def test_an_archived_project_and_one_without_prompts_say_so(project, boss):
    Group.objects.all().delete()
    project.prompts.all().delete()
    assert "no prompts yet" in why_none(project)
    set_archived(project, True, boss)
    project.refresh_from_db()
    assert "is archived" in why_none(project)


def test_it_is_said_only_to_who_has_none(client, ann, project, ready):
    client.force_login(ann)
    address = f"/p/{project.slug}/groups/next/"
    assert client.get(address).json()["waiting"]
    ready()
    assert client.get(address).json()["waiting"] == ""
