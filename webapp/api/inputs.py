"""The API's part about images that prompts change: as `endpoints`, by the services of their page."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from ninja import File, Path, Router
from ninja.files import UploadedFile

from webapp.accounts.permissions import Action
from webapp.api import contract
from webapp.api import schemas as s
from webapp.api.auth import may_administer, may_label, may_read
from webapp.api.contract import After, Limit, page
from webapp.campaigns import inputs
from webapp.campaigns.models import InputImage
from webapp.labelling import views

router = Router()
WEBP = contract.files("image/webp")


@router.get("/inputs", auth=may_read(Action.SEE), response=s.Page[s.InputOut], tags=["project"])
def list_inputs(request, slug: Path[str], after: int = After, limit: int = Limit):
    """The images that prompts may change, oldest first."""
    return page(request.auth.project.inputs.all(), after, limit, lambda found: _input(request, slug, found))


@router.post(
    "/inputs/file",
    auth=may_administer(Action.PROMPTS),
    response=s.InputOut,
    url_name="add_input",
    tags=["project"],
)
def add_input(
    request,
    slug: Path[str],
    file: UploadedFile = File(...),  # noqa: B008 - ninja's way to declare it
):
    """Keep an image (PNG, WebP) for prompts to change; the same one again is the same digest."""
    found = inputs.add(request.auth.project, file.read(settings.LIKESTEP_INPUT_LIMIT + 1), request.auth.user)
    return _input(request, slug, found)


@router.get(
    "/inputs/{int:input_id}/image",
    auth=may_read(Action.SEE),
    url_name="input-image",
    tags=["project"],
    openapi_extra=WEBP,
)
def input_image(request, slug: Path[str], input_id: int):
    """An input image's bytes (WebP)."""
    found = request.auth.project.inputs.filter(pk=input_id).first()
    return views.input_response(request.auth.project, found.digest if found else "")


@router.get(
    "/tasks/{slug:task}/input",
    auth=may_label(Action.LABEL),
    url_name="task-input",
    tags=["labelling"],
    openapi_extra=WEBP,
)
def task_input(request, slug: Path[str], task: Path[str]):
    """The bytes (WebP) of the image that the prompt of a group changed which the token's owner was given."""
    return views.task_input_response(request.auth.user, request.auth.project, task)


def _input(request: HttpRequest, slug: str, found: InputImage) -> dict:
    url = request.build_absolute_uri(reverse("api:input-image", args=[slug, found.pk]))
    return {"id": found.pk, "digest": found.digest, "width": found.width, "height": found.height, "url": url}
