"""Practice on groups whose answer is known: a person sees after each what was right, and enough of it opens real groups."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone
from django.utils.translation import gettext as _

from webapp.accounts.models import User
from webapp.accounts.permissions import role_in
from webapp.campaigns.models import Project, Role
from webapp.labelling.models import Flag, Generation, Group, GroupState, Lease
from webapp.quality.models import GoldGroup
from webapp.raters.models import Ending, Participant, Practice, PracticeAnswer

RIGHT = 0.75  # of a group's known images: who guesses has a third of the groups right, and 7 of 10 once in 70 tries


class PracticeError(ValueError):
    """An answer that cannot be kept; the message names the field and the fix."""


@dataclass(frozen=True)
class Standing:
    """Where a person is: whether it is `open` to real groups, the try that is `running` or the `last` one, whether they
    may `begin` one now, else from when (`after`; None: never)."""

    open: bool
    running: Practice | None = None
    last: Practice | None = None
    begin: bool = False
    after: datetime | None = None


def is_asked(user, project: Project) -> bool:
    """Whether the person has to practise here: annotators do, where the project wants it."""
    return project.practice_groups > 0 and role_in(user, project) == Role.ANNOTATOR


def standing(user, project: Project) -> Standing:
    """See `Standing`."""
    if not is_asked(user, project):
        return Standing(open=True)
    tries = list(project.practices.filter(user=user))
    last = tries[0] if tries else None
    if any(one.passed for one in tries):
        return Standing(open=True, last=last)
    if last is not None and last.passed is None:
        return Standing(open=False, running=last, last=last)
    participant = Participant.objects.filter(user=user).exists()
    if len(tries) >= (1 if participant else project.practice_tries):
        return Standing(open=False, last=last)
    after = timezone.now() if last is None else last.ended_at + timedelta(hours=project.practice_wait)
    return Standing(open=False, last=last, begin=after <= timezone.now(), after=after)


def enough_gold(user, project: Project) -> bool:
    """Whether there are as many known groups as a try of this person takes."""
    return _pool(user, project).count() >= project.practice_groups


@transaction.atomic
def begin(user, project: Project, *, rng: random.Random | None = None) -> Practice:
    """Start a try with groups that the person has not practised on, as far as there are. Raises PracticeError."""
    User.objects.select_for_update().get(pk=user.pk)  # two tabs: the second sees the first one's try
    now = standing(user, project)
    if now.running is not None:
        return now.running
    if now.open or not now.begin:
        raise PracticeError(_("practice: it cannot be begun now"))
    pool = list(_pool(user, project).order_by("pk").values_list("pk", "seen"))
    rng = rng or random.SystemRandom()
    asked = sorted(pool, key=lambda row: (row[1], rng.random()))[: project.practice_groups]
    if len(asked) < project.practice_groups:
        raise PracticeError(_("practice: there are not enough known groups yet; please tell an admin"))
    ids = [pk for pk, _seen in asked]
    rng.shuffle(ids)
    number = 1 if now.last is None else now.last.number + 1
    needed = min(project.practice_right, len(ids))
    return Practice.objects.create(project=project, user=user, number=number, asked=ids, needed=needed)


def _pool(user, project: Project):
    """Gold groups that may be shown with their answer: the person never had them among real ones. `seen`: in practice."""
    flagged = Flag.objects.filter(group=OuterRef("group"), resolved_at=None)
    seen = PracticeAnswer.objects.filter(gold=OuterRef("pk"), practice__user=user)
    rows = GoldGroup.objects.filter(project=project, active=True, group__state=GroupState.DONE)
    rows = rows.filter(~Exists(Lease.objects.filter(group=OuterRef("group"), user=user)), ~Exists(flagged))
    return rows.annotate(seen=Exists(seen))


def turn_of(practice: Practice) -> int:
    """The place of the group that is asked next."""
    return practice.answers.count()


def group_at(practice: Practice, turn: int) -> Group | None:
    """The group at that place; None beyond those that the person has come to, and for one that was removed."""
    if not 0 <= turn <= min(turn_of(practice), len(practice.asked) - 1):
        return None
    gold = GoldGroup.objects.filter(pk=practice.asked[turn]).select_related("group__prompt").first()
    return gold.group if gold else None


def image_at(user, project: Project, turn: int, position: int) -> Generation | None:
    """An image of the group at that place in the person's newest try."""
    last = project.practices.filter(user=user).first()
    group = group_at(last, turn) if last else None
    if group is None or group.state != GroupState.DONE or group.flags.filter(resolved_at=None).exists():
        return None
    return group.generations.filter(position=position).first()


def is_right(known: Mapping[str, bool], answer: Mapping[str, bool]) -> bool:
    """Whether enough of the images with a known answer are judged as it has them."""
    return sum(answer.get(position) == liked for position, liked in known.items()) >= RIGHT * len(known)


@transaction.atomic
def answer(user, project: Project, turn: int, given: Mapping[int, bool]) -> PracticeAnswer:
    """Keep what the person says of the group at that place, and end the try with the last one. The same place twice keeps
    the first answer. Raises PracticeError."""
    practice = project.practices.select_for_update().filter(user=user).first()
    if practice is None:
        raise PracticeError(_("practice: begin it first"))
    if (known := practice.answers.filter(turn=turn).first()) is not None:
        return known
    if practice.passed is not None or turn != turn_of(practice):
        raise PracticeError(_("practice: this is not the group that is asked now; reload the page"))
    gold = GoldGroup.objects.select_related("group").get(pk=practice.asked[turn])
    if set(given) != set(gold.group.generations.values_list("position", flat=True)):
        raise PracticeError(_("Like or dislike every image."))
    said = {str(position): liked for position, liked in sorted(given.items())}
    right = is_right(gold.answer, said)
    kept = PracticeAnswer.objects.create(practice=practice, turn=turn, gold=gold, answer=said, right=right)
    if turn == len(practice.asked) - 1:
        _end(practice)
    return kept


def _end(practice: Practice) -> None:
    practice.passed = practice.answers.filter(right=True).count() >= practice.needed
    practice.ended_at = timezone.now()
    practice.save(update_fields=["passed", "ended_at"])
    if not practice.passed:  # a participant has one try
        theirs = Participant.objects.filter(user=practice.user_id, project=practice.project_id, ending="")
        theirs.update(ending=Ending.SCREENED_OUT, ended_at=practice.ended_at)


def counts(project: Project) -> dict[str, int]:
    """How many people passed, and how many tries ended otherwise; how many known groups there are."""
    ended = project.practices.exclude(passed=None)
    return {
        "gold": project.gold_groups.filter(active=True, group__state=GroupState.DONE).count(),
        "passed": ended.filter(passed=True).count(),
        "failed": ended.filter(passed=False).count(),
    }
