"""Groups on their way to people: asked for, claimed by a worker, generated, failed, tried again."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from datetime import timedelta

from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext as _

from common.files import check_webp
from webapp.campaigns import sizes
from webapp.campaigns.archive import check_open
from webapp.campaigns.models import LabelSource, Project, Prompt, Split
from webapp.labelling import choice
from webapp.labelling.errors import LabellingError
from webapp.labelling.leases import end_leases
from webapp.labelling.models import (
    Generation,
    Group,
    GroupState,
    Lease,
    Scoring,
)
from webapp.labelling.scoring import queue_scoring
from webapp.lib import events, options, paths, states, storage
from webapp.lib.dispatch import enqueue
from webapp.quality.models import Consensus

BATCH = 50  # groups that are queued in one transaction; housekeeping goes on
FAILURES_COUNT = timedelta(minutes=10)  # groups that failed within this time are not replaced by new ones
LOOKED_BACK = 1000  # labelled groups that say what a prompt teaches, the newest
SEED_SPACE = 500_000_000  # below the seeds of evaluation


@transaction.atomic
def top_up(project_id: int, *, rng: random.Random | None = None) -> list[Group]:
    """Queue groups until `ready_target` unrated ones are ready or on their way, `BATCH` at once; returns the new ones.

    Prompts are chosen by what their groups are expected to teach (`choice`), from the newest labelled ones, so that the
    cost stays the same as a project grows and what a version has learned is noticed.
    """
    project = Project.objects.select_for_update(of=("self",)).select_related("active_version").get(pk=project_id)
    if project.active_version is None or project.archived_at is not None:
        return []
    # What was leased or being generated when a version was published, or a prompt withdrawn, is dropped here, once nobody
    # looks at it.
    supersede_groups(project, project.active_version)
    coming = project.groups.filter(
        state__in=[GroupState.QUEUED, GroupState.GENERATING], version=project.active_version
    ).count()
    # Groups that somebody has on screen or is through with are not what the next person will be given.
    now = timezone.now()
    free = project.groups.filter(state=GroupState.READY, version=project.active_version, group_decisions=None)
    free = free.exclude(pk__in=Lease.objects.filter(expires_at__gt=now).values("group"))
    untouched = free[: project.ready_target].count()  # more makes no difference
    # A full disk fails every group: then so many are tried again and again, but no more.
    failed = project.groups.filter(state=GroupState.FAILED, heartbeat_at__gt=now - FAILURES_COUNT).count()
    missing = min(BATCH, project.ready_target - coming - untouched - failed)
    if missing <= 0:
        return []
    rng = rng or random.Random()
    prompts = project.prompts.in_use().filter(split=Split.TRAIN).order_by("id").values_list("id", "metadata__tag")
    # What own images teach says nothing of what the version has yet to learn.
    settled = Consensus.objects.filter(project=project, group__version__isnull=False)
    settled = settled.exclude(group__state=GroupState.FLAGGED)
    labelled = settled.order_by("-labelled_at").values_list("group__prompt", "rewards")[:LOOKED_BACK]
    chances = choice.chances(
        {pk: str(tag or "") for pk, tag in prompts}, [(prompt, choice.spread(rewards)) for prompt, rewards in labelled]
    )
    even = sum(chances.values()) / len(chances) if chances else 1
    chosen = choice.draw(chances, missing, rng)
    asked = sizes.for_prompts(project, chosen, rng)
    return [
        create_group(project, pk, rng, chance=chances[pk] / even, asked=images)
        for pk, images in zip(chosen, asked, strict=True)
    ]


def create_group(
    project: Project, prompt_id: int, rng: random.Random, *, chance: float = 1, asked: tuple[str, str] | None = None
) -> Group:
    """A queued group of the active version with fresh noise; the generate workers are told after commit. `chance` is the
    prompt's over that of an even draw; `asked` is what `sizes.for_prompts` says of it, where that is known."""
    if asked is None:
        (asked,) = sizes.for_prompts(project, [prompt_id], rng)
    image_size, input_image = asked
    group = Group.objects.create(
        project=project,
        prompt_id=prompt_id,
        version=project.active_version,
        first_seed=rng.randrange(SEED_SPACE),
        size=project.group_size,
        made=project.images_made if (project.images_made or 0) > project.group_size else 0,
        image_size=image_size,
        input_image=input_image,
        chance=chance,
    )
    Prompt.objects.filter(pk=prompt_id).update(shown=F("shown") + 1)
    enqueue("generate_group", group.pk)
    return group


def queue_own_images(project: Project, prompt_id: int, images: Sequence[tuple[str, int, int]]) -> Group:
    """A group of images that somebody brought in, files that are there with their widths and heights. A worker encodes
    them, and then people get it."""
    group = Group.objects.create(project=project, prompt_id=prompt_id, version=None, first_seed=None, size=len(images))
    Generation.objects.bulk_create(
        Generation(group=group, position=i, seed=None, image=name, width=width, height=height)
        for i, (name, width, height) in enumerate(images)
    )
    enqueue("generate_group", group.pk)
    return group


def _keep_images(
    group: Group,
    sizes: Sequence[tuple[int, int]],
    seeds: Sequence[int] | None = None,
    inclusion: Sequence[float] | None = None,
) -> None:
    if seeds is None and not group.is_own:
        seeds = group.seeds
    Generation.objects.bulk_create(
        Generation(
            group=group,
            position=i,
            seed=None if seeds is None else seeds[i],
            inclusion=1 if inclusion is None else inclusion[i],
            image=paths.image(group.project_id, group.pk, i),
            width=width,
            height=height,
        )
        for i, (width, height) in enumerate(sizes)
    )


@transaction.atomic
def claim_group_for_generation(group_id: int, worker: str) -> Group | None:
    """Make `worker` the group's owner: queued, or generating with a stale heartbeat. None when there is nothing to do. A
    group over which worker after worker was lost fails."""
    here = Group.objects.filter(project__archived_at=None)
    group = here.select_for_update(of=("self",)).filter(pk=group_id).first()
    if group is None:
        return None
    now = timezone.now()
    if group.state == GroupState.GENERATING and group.heartbeat_at < now - options.SILENT_STALE:
        if group.attempt >= options.LOST_WORKERS:
            group.error = f"the worker was lost {options.LOST_WORKERS} times over it; see its log"
            states.move(states.GROUP_MOVES, group, GroupState.FAILED)
            group.heartbeat_at = now
            group.save()
            events.publish(group.project_id, "queue")
            return None
        states.move(states.GROUP_MOVES, group, GroupState.QUEUED)
    if group.state != GroupState.QUEUED:
        return None
    states.move(states.GROUP_MOVES, group, GroupState.GENERATING)
    group.owner, group.heartbeat_at = worker, now
    group.token += 1
    group.attempt += 1
    group.save()
    return group


@transaction.atomic
def complete_group(
    group_id: int,
    token: int,
    sizes: Sequence[tuple[int, int]],
    *,
    seeds: Sequence[int] | None = None,
    inclusion: Sequence[float] | None = None,
) -> bool:
    """The owner of `token` wrote the images (of own ones: nothing new) and the trajectory; False when another worker has
    taken the group over. `seeds` are the images' own, and `inclusion` the chance that each had to be chosen, where more
    were made than are shown."""
    group = _owned(group_id, token)
    if group is None:
        return False
    states.move(states.GROUP_MOVES, group, GroupState.READY)
    group.trajectory_file = paths.trajectory(group.project_id, group.pk)
    group.error = ""
    group.save()
    if not group.is_own:
        _keep_images(group, sizes, seeds, inclusion)
    if group.project.label_source != LabelSource.PEOPLE:
        queue_scoring(group)
    events.publish(group.project_id, "queue")
    return True


@transaction.atomic
def fail_group(group_id: int, token: int, error: str, *, counts: bool = True) -> None:
    """Note a failed attempt: back to the queue, or failed for good after `options.TRIES`. One that does not count had a
    reason outside the group, which ends by itself."""
    group = _owned(group_id, token)
    if group is None:
        return
    group.error = error[:4000]
    again = group.attempt < options.TRIES or not counts
    group.attempt -= not counts
    states.move(states.GROUP_MOVES, group, GroupState.QUEUED if again else GroupState.FAILED)
    group.save()
    events.publish(group.project_id, "queue")


@transaction.atomic
def report_damaged(generation: Generation, error: str) -> None:
    """An image cannot be shown: an undecided group leaves the queue and its error is on the dashboard. Its seeds are kept,
    so that it can be generated again."""
    group = Group.objects.select_for_update().get(pk=generation.group_id)
    group.error = f"image {generation.position + 1}: {error}"[:4000]
    if group.state == GroupState.READY and group.decisions == 0:
        states.move(states.GROUP_MOVES, group, GroupState.FAILED)
        group.heartbeat_at = timezone.now()
        end_leases(group)
    group.save()
    events.publish(group.project_id, "queue")


def damage(group: Group) -> str:
    """What is wrong with the group's image files: empty, or the first one's number and error."""
    for image in group.generations.all():
        try:
            check_webp(io.BytesIO(storage.store().read(image.image)))
        except (OSError, ValueError) as error:
            return f"image {image.position + 1}: {image.image} cannot be shown: {error}"
    return ""


@transaction.atomic
def retry_group(project: Project, group_id: int) -> Group:
    """Generate a failed group again, from the same noise; ask the oracle again that failed over its images; look again
    at one that has labels and a damaged image.

    Raises LabellingError when it has neither failed nor been mended.
    """
    group = Group.objects.select_for_update().filter(pk=group_id, project=project).first()
    if group is not None and group.state != GroupState.FAILED and Scoring.objects.filter(group=group, next_at=None):
        queue_scoring(group)
        return group
    if group is not None and group.state != GroupState.FAILED and group.error and group.generations.exists():
        # Labels belong to these very images: they are not made again, they come back from a back-up.
        group.error = damage(group)[:4000]
        if group.error:
            raise LabellingError(
                _("group: %(id)s is still damaged; restore the file from a back-up") % {"id": group_id}
            )
        group.save(update_fields=["error"])
        return group
    check_open(project, LabellingError)
    if group is None or group.state != GroupState.FAILED:
        raise LabellingError(_("group: %(id)s has not failed; there is nothing to try again") % {"id": group_id})
    states.move(states.GROUP_MOVES, group, GroupState.QUEUED)
    if group.is_own:  # its images cannot be made again
        if wrong := damage(group):
            raise LabellingError(
                _("group: %(id)s is still damaged; restore the file from a back-up") % {"id": group_id} + f" ({wrong})"
            )
    else:
        group.generations.all().delete()
    group.attempt, group.error = 0, ""
    group.save()
    enqueue("generate_group", group.pk)
    events.publish(project.pk, "queue")
    return group


def _owned(group_id: int, token: int) -> Group | None:
    group = Group.objects.select_for_update().select_related("project").get(pk=group_id)
    return group if group.token == token and group.state == GroupState.GENERATING else None


def supersede_groups(project: Project, version) -> int:
    """Drop the unrated groups of other versions than `version`, and those of withdrawn prompts, that nobody is looking at;
    returns how many. Own images are of no version and stay."""
    made = project.groups.filter(version__isnull=False)
    return made.filter(~Q(version=version) | Q(prompt__withdrawn_at__isnull=False)).supersede()
