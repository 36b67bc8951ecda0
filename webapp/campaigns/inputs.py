"""Images that a project's prompts change. The file lies once, under the hash of its content; a row says whose it is."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.utils.translation import gettext as _

from common import inputs
from common.sizes import size_text
from webapp.campaigns.archive import check_open
from webapp.campaigns.audit import audit
from webapp.campaigns.models import InputImage, Project
from webapp.campaigns.services import CampaignError
from webapp.lib import bounds, paths, storage


def takes_images(project: Project) -> bool:
    """Whether prompts of the project's model may have an input image."""
    return inputs.changes_images(Path(project.model_dir))


def add(project: Project, data: bytes, by) -> InputImage:
    """Keep an image for the project's prompts; the same one again is the same row. Raises CampaignError."""
    check_open(project, CampaignError)
    if not takes_images(project):
        raise CampaignError(_("image: the project's model makes images of prompts alone"))
    if len(data) > settings.LIKESTEP_INPUT_LIMIT:
        most = {"most": f"{settings.LIKESTEP_INPUT_LIMIT:,}"}
        raise CampaignError(_("image: it has more than %(most)s bytes (LIKESTEP_INPUT_LIMIT)") % most)
    try:
        digest, written, (width, height) = inputs.kept(data)
    except (OSError, ValueError) as error:
        raise CampaignError(_("image: %(error)s") % {"error": error}) from error
    found = project.inputs.filter(digest=digest).first()
    if found is not None:
        return found
    if project.inputs.count() >= bounds.INPUTS:
        raise CampaignError(_("image: a project may have %(most)s at most") % {"most": f"{bounds.INPUTS:,}"})
    storage.store().write(paths.input_image(digest), written)  # before the row: a row's file is there
    found, new = InputImage.objects.get_or_create(
        project=project, digest=digest, defaults={"width": width, "height": height, "made_by": by}
    )
    if new:
        audit(project, by, "input image added", digest=digest, size=size_text((width, height)))
    return found
