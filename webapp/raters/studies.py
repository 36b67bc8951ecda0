"""Studies: a link by which another site sends people, each with an account that rates and does nothing else."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import quote, urlencode

from django.db import IntegrityError, transaction
from django.db.models import Count, Exists, F, OuterRef, Q
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.utils.translation import gettext as _

from webapp.accounts.models import User
from webapp.accounts.permissions import Action, may
from webapp.campaigns.audit import audit
from webapp.campaigns.models import Membership, Project, Role
from webapp.campaigns.services import token_hash
from webapp.labelling.models import Outcome
from webapp.lib import bounds
from webapp.raters.models import Ending, Participant, Study

GIVEN = re.compile(rf"[A-Za-z0-9_-]{{1,{bounds.OUTSIDE_ID}}}")
SESSION = re.compile(rf"[A-Za-z0-9_-]{{16,{bounds.OUTSIDE_ID}}}")  # it opens the account again: nobody may guess it
BACK = "https://app.prolific.com/submissions/complete?cc="
RETURN = "https://app.prolific.com/submissions"
PARAMETERS = {"PROLIFIC_PID": "{{%PROLIFIC_PID%}}", "STUDY_ID": "{{%STUDY_ID%}}", "SESSION_ID": "{{%SESSION_ID%}}"}


class StudyError(ValueError):
    """Somebody cannot take part; the message says why."""


@dataclass(frozen=True)
class Visit:
    """What Prolific puts on the link: who comes, for which study of theirs, in which submission."""

    pid: str
    study: str
    session: str

    @classmethod
    def of(cls, query) -> Visit:
        """Of an address's query. Raises StudyError for what Prolific does not send."""
        pid, study, session = (query.get(name, "") for name in PARAMETERS)
        if not (GIVEN.fullmatch(pid) and GIVEN.fullmatch(study) and SESSION.fullmatch(session)):
            raise StudyError(_("This link has to be opened from the study's page, which adds who you are."))
        return cls(pid, study, session)


@transaction.atomic
def make(project: Project, by, *, days: int, **values) -> tuple[Study, str]:
    """A study and the token of its link, which is not kept and cannot be shown again. `values` are Study's."""
    token = secrets.token_urlsafe(24)
    audit(project, by, "study made", name=values["name"], groups=values["groups"], places=values["places"])
    ends = timezone.now() + timedelta(days=days)
    study = Study.objects.create(
        project=project, created_by=by, token_hash=token_hash(token), expires_at=ends, **values
    )
    return study, token


def link_of(address: str) -> str:
    """What is to be put into Prolific's form: the link, with the places that it fills in."""
    return f"{address}?{urlencode(PARAMETERS, safe='{}%')}"


@transaction.atomic
def close(project: Project, study_id: int, by) -> None:
    """Take nobody new; who has begun may end. One that is closed already is fine."""
    if project.studies.filter(pk=study_id, closed_at=None).update(closed_at=timezone.now()):
        audit(project, by, "study closed", study=study_id)


def listed(project: Project):
    """The project's studies, newest first, each with how many `came`, `completed` and were `screened_out`."""
    counted = {
        "came": Count("participants"),
        "completed": Count("participants", filter=Q(participants__ending=Ending.COMPLETED)),
        "screened_out": Count("participants", filter=Q(participants__ending=Ending.SCREENED_OUT)),
    }
    return project.studies.annotate(**counted).order_by("-pk")


def participants(project: Project):
    """Who came, newest first, each with the groups that they have `rated`."""
    rows = project.participants.select_related("study", "user").order_by("-pk")
    rated = Q(user__group_decisions__outcome=Outcome.SUBMITTED)
    member = Membership.objects.filter(user=OuterRef("user"), project=project)
    return rows.annotate(
        rated=Count("user__group_decisions", filter=rated), is_here=Exists(member), of=F("study__groups")
    )


def find(token: str) -> Study | None:
    """The study of a link, open or not."""
    return Study.objects.filter(token_hash=token_hash(token)).select_related("project", "created_by").first()


def is_open(study: Study) -> bool:
    """Whether it takes somebody new: a link is worth no more than its maker."""
    by = study.created_by
    stands = by.is_active and may(by, study.project, Action.PEOPLE)
    return stands and study.closed_at is None and study.expires_at > timezone.now() and not study.project.archived_at


def check_new(study: Study) -> None:
    """Raises StudyError where it takes nobody new."""
    if not is_open(study):
        raise StudyError(_("This study takes nobody new."))
    if study.participants.exclude(ending=Ending.SCREENED_OUT).count() >= study.places:
        raise StudyError(_("All places of this study are taken."))


def is_back(study: Study, visit: Visit) -> bool:
    """Whether somebody comes back in their submission; nobody else learns who takes part."""
    known = study.participants.filter(pid=visit.pid, session_hash=token_hash(visit.session))
    return known.exists()


@transaction.atomic
def come(study: Study, visit: Visit) -> User:
    """The account of who comes: a new one, or theirs where they come back in the same submission. Raises StudyError."""
    study = Study.objects.select_for_update(of=("self",)).select_related("project", "created_by").get(pk=study.pk)
    known = Participant.objects.filter(project=study.project, pid=visit.pid).select_related("user").first()
    if known is not None:
        same = constant_time_compare(known.session_hash, token_hash(visit.session))
        here = known.user.is_active and known.user.memberships.filter(project=study.project).exists()
        if known.study_id != study.pk or not same or not here:
            raise StudyError(_("You took part in this project before, so this study is not open to you."))
        return known.user
    check_new(study)
    try:
        with transaction.atomic():
            return _new(study, visit)
    except IntegrityError as error:  # the same person through another study at the same moment
        raise StudyError(_("You took part in this project before, so this study is not open to you.")) from error


def _new(study: Study, visit: Visit) -> User:
    user = User(username=f"rater-{secrets.token_hex(6)}", outside=True)  # their id there is no business of anybody else
    user.set_unusable_password()
    user.save()
    Membership.objects.create(user=user, project=study.project, role=Role.ANNOTATOR)
    Participant.objects.create(
        study=study,
        project=study.project,
        user=user,
        pid=visit.pid,
        their_study=visit.study,
        session_hash=token_hash(visit.session),
    )
    audit(study.project, user, "joined by study", study=study.pk)
    return user


def takes_part(user) -> bool:
    """Whether the person came by a study."""
    return Participant.objects.filter(user=user).exists()


def way_back(part: Participant) -> tuple[str, str]:
    """The code that Prolific waits for, and the address that hands it in; both empty before the part has ended, or where
    the study has none for that."""
    codes = {Ending.COMPLETED: part.study.completion_code, Ending.SCREENED_OUT: part.study.screened_code}
    code = codes.get(part.ending, "")
    return code, f"{BACK}{quote(code)}" if code else ""
