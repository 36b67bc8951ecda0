"""Writes of projects, their prompts and their people."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils import timezone

from webapp.campaigns.models import Invitation, Membership, Project, Prompt, Role, Split
from webapp.rounds.models import ModelVersion, VersionStatus

INVITATION = timedelta(days=7)


class CampaignError(ValueError):
    """Input that cannot be used; the message names the field and the fix."""


@transaction.atomic
def create_project(slug: str, name: str, *, model_dir: str, student_dir: str, prompts: list[dict], **fields) -> Project:
    """A project with its first published version and its prompts `{prompt, split, metadata}`; all or nothing."""
    project = Project.objects.create(slug=slug, name=name, model_dir=model_dir, **fields)
    add_prompts(project, prompts)
    version = ModelVersion.objects.create(project=project, number=1, path=student_dir, status=VersionStatus.PUBLISHED)
    project.active_version = version
    project.save(update_fields=["active_version"])
    return project


@transaction.atomic
def add_prompts(project: Project, rows: list[dict]) -> int:
    """Add prompts; ones with a text that is there already are left as they are. Returns how many are new.

    Raises CampaignError that names the row and field of the first bad one; then nothing is added.
    """
    made = []
    for number, row in enumerate(rows, start=1):
        text, split = row.get("prompt"), row.get("split", Split.TRAIN)
        if not isinstance(text, str) or not 1 <= len(text.strip()) <= 1000:
            raise CampaignError(f"prompts, row {number}: prompt: give a text of 1 to 1000 characters")
        if split not in Split.values:
            raise CampaignError(f"prompts, row {number}: split: {split!r} is not one of {', '.join(Split.values)}")
        metadata = row.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise CampaignError(f"prompts, row {number}: metadata: give a JSON object")
        made.append(Prompt(project=project, text=text.strip(), split=split, metadata=metadata))
    before = project.prompts.count()
    Prompt.objects.bulk_create(made, ignore_conflicts=True, batch_size=500)
    return project.prompts.count() - before


def token_hash(token: str) -> str:
    """What is kept of an invitation's token."""
    return hashlib.sha256(token.encode()).hexdigest()


def invite(project: Project, role: str, by) -> str:
    """Make an invitation; returns its token, which is not kept and cannot be shown again."""
    if role not in Role.values:
        raise CampaignError(f"role: {role!r} is not one of {', '.join(Role.values)}")
    token = secrets.token_urlsafe(24)
    Invitation.objects.create(
        project=project, role=role, token_hash=token_hash(token), created_by=by, expires_at=timezone.now() + INVITATION
    )
    return token


def find_invitation(token: str) -> Invitation | None:
    """The invitation of a token that is unused and in time."""
    return Invitation.objects.filter(
        token_hash=token_hash(token), used_by__isnull=True, expires_at__gt=timezone.now()
    ).first()


@transaction.atomic
def accept_invitation(token: str, user) -> Membership:
    """Make the user a member, once. Raises CampaignError when the link was used or is too old."""
    invitation = find_invitation(token)
    if invitation is None or not Invitation.objects.filter(pk=invitation.pk, used_by__isnull=True).update(used_by=user):
        raise CampaignError("invitation: the link was used already or is too old; ask an admin for a new one")
    membership, _ = Membership.objects.get_or_create(
        user=user, project=invitation.project, defaults={"role": invitation.role}
    )
    return membership


def ensure_user(username: str, password: str) -> bool:
    """Create a person with this password unless the name is taken; returns whether they are new."""
    users = get_user_model().objects
    if users.filter(username=username).exists():
        return False
    users.create_user(username, password=password)
    return True


def ensure_superuser(username: str, password: str) -> bool:
    """Create the person who may do everything unless there is a superuser already; returns whether they are new.

    Raises CampaignError when the password is too short or the name belongs to somebody else.
    """
    users = get_user_model().objects
    if users.filter(is_superuser=True).exists():
        return False
    if len(password) < 8:
        raise CampaignError("set a password of at least 8 characters")
    if users.filter(username=username).exists():
        raise CampaignError(f"the account {username} is not a superuser; make it one with manage.py shell")
    users.create_superuser(username, password=password)
    return True
