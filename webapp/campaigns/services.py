"""Writes of projects, their prompts and their people."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from django.utils.text import slugify
from django.utils.translation import gettext as _

from common.geneval_lines import LineError, checked_line, quoted_text
from common.prompt_files import Check, cut_prompts
from common.sizes import SizeError, parse_size, step_of
from common.texts import LONGEST, canonical_prompt
from webapp.campaigns import sizes
from webapp.campaigns.archive import check_open
from webapp.campaigns.audit import audit
from webapp.campaigns.models import InputImage, LabelSource, Membership, Project, Prompt, PromptDraft, Role, Split
from webapp.lib import bounds, texts
from webapp.rounds.models import ModelVersion, VersionStatus

DRAFT = timedelta(days=1)
INPUT = "input_image"  # of a prompt's metadata in files and requests; kept in a column of its own


class CampaignError(ValueError):
    """Input that cannot be used; the message names the field and the fix."""


# What an admin may change while a project runs. The model and its steps are fixed: stored trajectories depend on them.
EDITABLE = (
    "name",
    "guidelines",
    "dislike_reasons",
    "group_size",
    "images_made",
    "sizes",
    "overlap",
    "overlap_most",
    "sure",
    "answer_budget",
    "tie_break",
    "gold_rate",
    "label_source",
    "oracle",
    "oracle_thresholds",
    "ready_target",
    "auto_start_after",
    "auto_start_by_forecast",
    "work_hour_cost",
    "machine_hour_cost",
    "consent",
    "practice_groups",
    "practice_right",
    "practice_tries",
    "practice_wait",
    "quota_day",
    "quota_all",
    "round_settings",
    "round_memory",
)


def check_label_source(label_source: str, oracle: str) -> None:
    """Raises CampaignError when labels should come from an oracle and none is chosen."""
    if oracle:
        oracle_spec(oracle)
    if label_source != LabelSource.PEOPLE and not oracle:
        raise CampaignError(_("oracle: choose one, or let people alone label"))


def check_practice(groups: int | None, right: int | None) -> None:
    """Raises CampaignError when nobody could pass."""
    if groups and right and right > groups:
        raise CampaignError(_("practice_right: it is more than the %(n)s groups of the practice") % {"n": groups})


def check_range(overlap: int, most: int | None) -> None:
    """Raises CampaignError when a range of people ends before it begins."""
    if most is not None and most < overlap:
        raise CampaignError(
            _("overlap_most: give %(overlap)s, the overlap, or more, or leave it empty") % {"overlap": overlap}
        )


def check_made(group_size: int, made: int | None) -> None:
    """Raises CampaignError when more images are shown than made."""
    if made is not None and made < group_size:
        raise CampaignError(
            _("images_made: give %(size)s, the group size, or more, or leave it empty") % {"size": group_size}
        )


def oracle_spec(name: str) -> str:
    """What the trainer is given for a project's oracle. Raises CampaignError on a name that the server does not have."""
    known = settings.LIKESTEP_ORACLES
    if name not in known:
        raise CampaignError(
            _("oracle: %(oracle)s is not one of %(values)s") % {"oracle": repr(name), "values": ", ".join(known)}
        )
    return known[name]


def _sizes(text: str, model_dir: str) -> str:
    try:
        return sizes.read(text, model_dir)
    except ValueError as error:
        raise CampaignError(str(error)) from error


def prompt_check(oracle: str) -> Check | None:
    """What the project's oracle asks of each prompt, as `common.prompt_files.parse` takes it: one that reads words needs
    a word."""
    if not oracle or oracle_spec(oracle).partition(":")[0] != "ocr":
        return None

    def check(prompt: str, metadata: dict) -> None:
        quoted_text(prompt)

    return check


def _check_bounds(project: Project, fields: Iterable[str]) -> None:
    """Raise CampaignError that names the first of `fields` whose value the model does not take."""
    try:
        project.clean_fields(exclude={f.name for f in project._meta.fields} - set(fields))
    except ValidationError as error:
        name, messages = next(iter(error.message_dict.items()))
        raise CampaignError(f"{name}: {messages[0]}") from error


@transaction.atomic
def create_project(
    slug: str, name: str, *, model_dir: str, student_dir: str, prompts: list[dict], by=None, inputs=(), **fields
) -> Project:
    """A project with its first published version and its prompts `{prompt, split, metadata}`; all or nothing. `inputs` are
    rows of input images whose files are there.

    Who makes it (`by`) becomes its admin.
    """
    check_label_source(fields.get("label_source", LabelSource.PEOPLE), fields.get("oracle", ""))
    if not re.fullmatch(r"[-a-zA-Z0-9_]{1,50}", slug):
        raise CampaignError("slug: " + _("give an address of letters, digits and hyphens"))
    if Project.objects.filter(slug=slug).exists():
        raise CampaignError(
            _("slug: a project has the address %(slug)s already; choose another") % {"slug": repr(slug)}
        )
    project = Project(slug=slug, name=name, model_dir=model_dir, **fields)
    project.sizes = _sizes(project.sizes, model_dir)
    _check_bounds(project, [*EDITABLE, "steps", "slug", "model_dir"])
    check_practice(project.practice_groups, project.practice_right)
    check_range(project.overlap, project.overlap_most)
    check_made(project.group_size, project.images_made)
    project.save()
    if by is not None:
        Membership.objects.create(user=by, project=project, role=Role.ADMIN)
    audit(project, by, "project created", prompts=len(prompts))
    InputImage.objects.bulk_create(InputImage(project=project, made_by=by, **row) for row in inputs)
    add_prompts(project, prompts)
    version = ModelVersion.objects.create(project=project, number=1, path=student_dir, status=VersionStatus.PUBLISHED)
    project.active_version = version
    project.save(update_fields=["active_version"])
    return project


@transaction.atomic
def add_prompts(project: Project, rows: list[dict], *, by=None) -> int:
    """Add prompts in their canonical form; ones that are there already are left as they are. Returns how many are new.

    Raises CampaignError that names the row and field of the first bad one; then nothing is added.
    """
    check_open(project, CampaignError)
    images = set(project.inputs.values_list("digest", flat=True)) if project.pk else set()
    made, check, step = [], prompt_check(project.oracle), step_of(Path(project.model_dir))
    for number, row in enumerate(rows, start=1):
        given, split = row.get("prompt"), row.get("split", Split.TRAIN)
        try:
            text = canonical_prompt(given) if isinstance(given, str) else ""
        except ValueError as error:
            raise CampaignError(
                _("prompts, row %(number)s: prompt: %(error)s") % {"number": number, "error": error}
            ) from error
        if not 1 <= len(text) <= LONGEST:
            raise CampaignError(
                _("prompts, row %(number)s: prompt: give a text of 1 to 1000 characters") % {"number": number}
            )
        if split not in Split.values:
            raise CampaignError(
                _("prompts, row %(number)s: split: %(split)s is not one of %(values)s")
                % {"number": number, "split": repr(split), "values": ", ".join(Split.values)}
            )
        metadata = row.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise CampaignError(_("prompts, row %(number)s: metadata: give a JSON object") % {"number": number})
        try:
            texts.check(metadata, "metadata")
            metadata = checked_line(metadata)
            if "size" in metadata:
                parse_size(metadata["size"], step)
            image = metadata.pop(INPUT, "") or ""
            if image and image not in images:
                raise ValueError(
                    _("%(field)s: %(name)s is no image of this project; upload it first")
                    % {"field": INPUT, "name": repr(str(image)[:80])}
                )
            if check is not None:
                check(text, metadata)
        except ValueError as error:
            if isinstance(error, LineError | SizeError):
                error = _(error.template) % error.about
            raise CampaignError(_("prompts, row %(number)s: %(error)s") % {"number": number, "error": error}) from None
        if len(json.dumps(metadata, ensure_ascii=False)) > bounds.METADATA:
            raise CampaignError(
                _("prompts, row %(number)s: metadata: at most %(most)s characters of JSON")
                % {"number": number, "most": f"{bounds.METADATA:,}"}
            )
        made.append(Prompt(project=project, text=text, split=split, metadata=metadata, input_image=image))
    before = project.prompts.count()
    Prompt.objects.bulk_create(made, ignore_conflicts=True, batch_size=500)
    new = project.prompts.count() - before
    if by is not None:
        audit(project, by, "prompts added", new=new, rows=len(rows))
    return new


def cut_rows(project: Project, rows: list[dict]) -> list[str]:
    """Which of the added prompts are longer than the project's model reads, by row, and what is cut of them."""
    found = cut_prompts(
        project.model_dir, ((n, canonical_prompt(row["prompt"])) for n, row in enumerate(rows, start=1))
    )
    sentence = _("prompts, row %(number)s: %(error)s")
    return [sentence % {"number": problem.line, "error": problem.message} for problem in found]


@transaction.atomic
def keep_draft(user, project: Project | None, *, name: str, digest: str, rows: list[dict]) -> PromptDraft:
    """Keep previewed rows for a day, in place of the person's earlier ones for this project (None: a new one)."""
    PromptDraft.objects.filter(created_at__lt=timezone.now() - DRAFT).delete()
    PromptDraft.objects.filter(user=user, project=project).delete()
    return PromptDraft.objects.create(user=user, project=project, name=name[-200:], digest=digest, rows=rows)


def find_draft(user, project: Project | None, token) -> PromptDraft | None:
    """The person's own draft of this project, unless it is a day old."""
    fresh = timezone.now() - DRAFT
    return PromptDraft.objects.filter(pk=token, user=user, project=project, created_at__gte=fresh).first()


@transaction.atomic
def update_project(project: Project, by, **values) -> dict:
    """Change settings of `EDITABLE`; returns {field: [old, new]} of what changed, which is also audited."""
    if wrong := sorted(set(values) - set(EDITABLE)):
        raise CampaignError(_("%(field)s: it cannot be changed; make a new project") % {"field": wrong[0]})
    project = Project.objects.select_for_update().get(pk=project.pk)
    if "sizes" in values:
        values["sizes"] = _sizes(values["sizes"], project.model_dir)
    changed = {
        name: [getattr(project, name), value] for name, value in values.items() if getattr(project, name) != value
    }
    for name, (_old, value) in changed.items():
        setattr(project, name, value)
    check_label_source(project.label_source, project.oracle)
    _check_bounds(project, changed)
    check_practice(project.practice_groups, project.practice_right)
    check_range(project.overlap, project.overlap_most)
    check_made(project.group_size, project.images_made)
    if changed:
        project.save(update_fields=list(changed))
        audit(project, by, "settings changed", **changed)
    return changed


@transaction.atomic
def clone_project(project: Project, slug: str, name: str, by) -> Project:
    """A new project with the same settings, prompts and published model, without labels, rounds or other people. Without a
    `slug` it is made of the name, or of this project's where the name's script has none, and is free."""
    if project.active_version is None:
        raise CampaignError(_("version: the project has none published; publish one first"))
    rows = project.prompts.in_use().order_by("pk").values_list("text", "split", "metadata", "input_image")
    return create_project(
        slug or _free_slug(slugify(name)[:50] or f"{project.slug[:45]}-copy"),
        name,
        model_dir=project.model_dir,
        student_dir=project.active_version.path,
        steps=project.steps,
        prompts=[
            {"prompt": text, "split": split, "metadata": {**metadata, INPUT: image} if image else metadata}
            for text, split, metadata, image in rows
        ],
        inputs=list(project.inputs.values("digest", "width", "height")),
        by=by,
        **{field: getattr(project, field) for field in EDITABLE if field != "name"},
    )


def _free_slug(wanted: str) -> str:
    """That address, or the first of wanted-2, wanted-3, … that no project has."""
    taken = set(Project.objects.filter(slug__startswith=wanted[:44]).values_list("slug", flat=True))
    numbered = (f"{wanted[:44]}-{n}" for n in itertools.count(2))
    return next(slug for slug in itertools.chain([wanted], numbered) if slug not in taken)


@transaction.atomic
def set_archived(project: Project, archived: bool, by) -> None:
    """Put a project away, or take it up again. An archived one keeps everything and hands out nothing."""
    moment = timezone.now() if archived else None
    changed = Project.objects.filter(pk=project.pk, archived_at__isnull=archived).update(archived_at=moment)
    if changed:
        audit(project, by, "project archived" if archived else "project reopened")


def token_hash(token: str) -> str:
    """What is kept of an invitation's token."""
    return hashlib.sha256(token.encode()).hexdigest()


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
        raise CampaignError(_("set a password of at least 8 characters"))
    if users.filter(username=username).exists():
        raise CampaignError(
            _("the account %(username)s is not a superuser; make it one with manage.py shell") % {"username": username}
        )
    users.create_superuser(username, password=password)
    return True
