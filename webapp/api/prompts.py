"""The API's part about prompts and the reasons for dislikes: as `endpoints`, by the services of their pages."""

from __future__ import annotations

from django.conf import settings
from ninja import File, Path, Query, Router
from ninja.errors import HttpError
from ninja.files import UploadedFile

from common import prompt_files
from webapp.accounts.permissions import Action
from webapp.api import schemas as s
from webapp.api.auth import may_administer, may_label, may_read
from webapp.api.contract import After, Limit, page
from webapp.campaigns import prompts as campaign_prompts
from webapp.campaigns import services as campaigns
from webapp.campaigns.models import Split
from webapp.lib import bounds
from webapp.lib.dispatch import enqueue

router = Router()


@router.get("/prompts", auth=may_read(Action.PROMPTS), response=s.Page[s.PromptOut], tags=["project"])
def prompts(
    request,
    slug: Path[str],
    split: Split | None = None,
    after: int = After,
    limit: int = Limit,
):
    """The prompts."""
    rows = request.auth.project.prompts.all()
    if split is not None:
        rows = rows.filter(split=split)

    def told(p):
        about = {"id": p.pk, "prompt": p.text, "split": p.split, "metadata": p.metadata, "input_image": p.input_image}
        return about | {"withdrawn": p.withdrawn_at is not None}

    return page(rows, after, limit, told)


@router.post("/prompts", auth=may_administer(Action.PROMPTS), response=s.PromptsAdded, tags=["project"])
def add_prompts(request, slug: Path[str], body: s.PromptsIn):
    """Add prompts, all or none; those that are there already are left as they are."""
    rows = [p.dict() for p in body.prompts]
    new = campaigns.add_prompts(request.auth.project, rows, by=request.auth.user)
    return {"new": new, "known": len(rows) - new, "cut": campaigns.cut_rows(request.auth.project, rows)}


@router.post(
    "/prompts/file",
    auth=may_administer(Action.PROMPTS),
    response=s.PromptFileAdded,
    url_name="add_prompt_file",
    tags=["project"],
)
def add_prompt_file(
    request,
    slug: Path[str],
    file: UploadedFile = File(...),  # noqa: B008 - ninja's way to declare it
    validation_share: float = Query(0.1, ge=0, le=0.5, description="Of the prompts without a split, by their hash."),
    column_prompt: str = Query("", max_length=bounds.WORD),
    column_split: str = Query("", max_length=bounds.WORD),
    column_metadata: str = Query("", max_length=bounds.WORD),
):
    """Add the prompts of a file (text, CSV, JSON, JSONL or Parquet), all or none, read as the prompts page reads it."""
    columns = {"prompt": column_prompt, "split": column_split, "metadata": column_metadata}
    most = settings.LIKESTEP_PROMPTS_LIMIT
    try:
        text = prompt_files.decode(file.read(most + 1), file.name, most=most)
    except ValueError as error:
        raise HttpError(400, str(error)) from error
    check = campaigns.prompt_check(request.auth.project.oracle)
    parsed = prompt_files.parse(
        text,
        name=file.name,
        validation=validation_share,
        columns=columns,
        check=check,
        model=request.auth.project.model_dir,
    )
    if parsed.errors or not parsed.rows:
        raise HttpError(400, "; ".join(map(str, parsed.errors[:20])) or "prompts: the file has none")
    new = campaigns.add_prompts(request.auth.project, [row.plain() for row in parsed.rows], by=request.auth.user)
    return {
        "new": new,
        "known": len(parsed.rows) - new,
        "read_as": parsed.read_as(),
        "left_out": [str(problem) for problem in parsed.left_out],
        "cut": [str(problem) for problem in parsed.cut],
    }


@router.post("/prompts/withdraw", auth=may_administer(Action.PROMPTS), response=s.PromptsChanged, tags=["project"])
def withdraw_prompts(request, slug: Path[str], body: s.PromptsChosen):
    """Make no more images of these prompts, and drop what nobody has rated of them. Their labels stay and count."""
    return _changed(request, campaign_prompts.withdraw(request.auth.project, body.ids, request.auth.user))


@router.post("/prompts/restore", auth=may_administer(Action.PROMPTS), response=s.PromptsChanged, tags=["project"])
def restore_prompts(request, slug: Path[str], body: s.PromptsChosen):
    """Make images of these prompts again."""
    return _changed(request, campaign_prompts.restore(request.auth.project, body.ids, request.auth.user))


@router.post("/prompts/tag", auth=may_administer(Action.PROMPTS), response=s.PromptsChanged, tags=["project"])
def tag_prompts(request, slug: Path[str], body: s.PromptsTagged):
    """Give these prompts a tag, or none."""
    return _changed(request, campaign_prompts.set_tag(request.auth.project, body.ids, body.tag, request.auth.user))


def _changed(request, changed: int) -> dict:
    enqueue(
        "housekeeping", request.auth.project.pk
    )  # groups of other prompts take the place of those that were dropped
    return {"changed": changed}


@router.get("/reasons", auth=may_label(Action.LABEL), response=s.Reasons, tags=["labelling"])
def reasons(request, slug: Path[str]):
    """What people may say of a dislike."""
    return {"reasons": request.auth.project.dislike_reasons}


@router.put("/reasons", auth=may_administer(Action.SETTINGS), response=s.Reasons, tags=["labelling"])
def set_reasons(request, slug: Path[str], body: s.Reasons):
    """Another list of reasons; labels keep those that they were given."""
    listed = [text.strip() for text in body.reasons]
    campaigns.update_project(request.auth.project, request.auth.user, dislike_reasons=listed)
    return {"reasons": listed}
