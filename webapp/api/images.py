"""The API's part about own images: as `endpoints`, by the services of their page."""

from __future__ import annotations

from functools import partial

from django.utils.translation import gettext as _
from ninja import File, Path, Query, Router
from ninja.errors import HttpError
from ninja.files import UploadedFile

from common.texts import LONGEST
from webapp.accounts.permissions import Action
from webapp.api import contract
from webapp.api import schemas as s
from webapp.api.auth import may_administer
from webapp.imports import files as image_files
from webapp.imports import raters, services
from webapp.imports.reading import Choices
from webapp.imports.report import ImageOutcome, Line

router = Router()


@router.post(
    "/images",
    auth=may_administer(Action.IMPORT),
    response=s.ImagesImported,
    url_name="import_images",
    tags=["exports"],
)
def import_images(
    request,
    slug: Path[str],
    file: UploadedFile = File(...),  # noqa: B008 - ninja's way to declare it
    generate: bool = Query(False, description="Whether new images are made of new prompts too."),
    prompt: str = Query("", max_length=LONGEST, description="Of images that bring none."),
    rater: str = Query("", max_length=raters.LONGEST, description="Whose a table's labels are; empty: left out."),
):
    """Own images in: an archive (ZIP), a table with the images inside (Parquet, JSONL), or one image. The same file again
    adds nothing; where it had too many new images, the rest comes when it is sent again."""
    choices = Choices(prompt=prompt, generate=generate, rater=rater.strip())
    try:
        done = services.bring_in(
            request.auth.project,
            file.name,
            partial(image_files.read, files=[file]),
            choices=choices,
            by=request.auth.user,
        )
    except services.ImagesError as error:
        raise HttpError(400, str(error)) from error
    lines = [Line.from_json(value) for value in done.report]
    if not done.groups and all(line.outcome == ImageOutcome.SKIPPED for line in lines):
        why = [f"{line.name}: {line.sentence}" for line in lines[: contract.MOST_ERRORS]]
        raise HttpError(400, "; ".join(why) or _("file: there is no image in it"))
    files = [{"name": line.name, "outcome": line.outcome, "why": line.sentence} for line in lines]
    return {"groups": done.groups, "images": done.images, "files": files}
