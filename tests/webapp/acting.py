"""What people do, as their pages do it: each group they decide on was given to them first."""

from datetime import timedelta

from django.db.models import F

from webapp.labelling import decisions, leases
from webapp.labelling.models import GroupDecision, Label, Lease
from webapp.lib import options, paths
from webapp.quality.models import GoldGroup
from webapp.rounds import pairs as blind


def task(user, group) -> str:
    """The name by which the person knows the group."""
    return leases.task_name(user.pk, group.pk)


def give(user, group_id):
    """The group is on the person's screen."""
    leases.give(user, group_id, lasts=True)


def give_once(user, group_id):
    """The same, unless it was before."""
    if not Lease.objects.filter(user=user, group=group_id).exists():
        give(user, group_id)


def an_hour_passes():
    """And a minute: what was decided until now can no longer be undone."""
    for model in (GroupDecision, Label, GoldGroup):
        model.objects.update(created_at=F("created_at") - options.UNDO - timedelta(minutes=1))


def _given(decide):
    def work(user, project, group_id, *arguments, **values):
        give_once(user, group_id)
        return decide(user, project, group_id, *arguments, **values)

    return work


submit_group, skip_group, flag_group = map(_given, (decisions.submit_group, decisions.skip_group, decisions.flag_group))


def submit(user, project, group, likes):
    """The person's answer to a group: likes and dislikes in the order of its images."""
    answer = {i: bool(v) for i, v in enumerate(likes)}
    return submit_group(user, project, group.pk, answer, seconds=4, idempotency_key=str(group.pk))


def make_pairs(comparison):
    """What a worker does, without a model: each image names its version's letter."""
    while pairs := blind.claim_pairs(comparison.pk):
        for pair in pairs:
            for name in pair.sides:
                file = paths.data(paths.pair_image(comparison.project_id, pair.pk, name))
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(f"RIFF version {name}".encode())
        blind.complete_pairs(pairs)
