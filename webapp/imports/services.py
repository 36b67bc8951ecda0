"""Own images in: pictures that were read become groups, all of a file or nothing. The same file again adds nothing."""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from common.intake import Unreadable
from webapp.campaigns import services as campaigns
from webapp.campaigns.archive import check_open
from webapp.campaigns.audit import audit
from webapp.campaigns.models import Project
from webapp.imports import raters
from webapp.imports.models import ImageImport, ImportedImage
from webapp.imports.reading import Bunch, Choices, Picture, Reader
from webapp.imports.report import MOST_LINES, ImageOutcome, Line, shown
from webapp.labelling import generation, pictures
from webapp.labelling.models import Group
from webapp.lib import paths

TURN = threading.Lock()  # images are decoded for one person at once: each takes a core and memory
WAIT = 20  # seconds
ALONE = gettext_noop("it is the only image of its prompt, and a group has two at least; send more images of the prompt")
TAKEN = gettext_noop("group %(group)s")
RESIZED = gettext_noop("group %(group)s; resized from %(width)s × %(height)s")
CUT = gettext_noop("group %(group)s; its middle, resized from %(width)s × %(height)s")


class ImagesError(ValueError):
    """Images that cannot be brought in; the message says why and what to do."""


def bring_in(
    project: Project,
    name: str,
    read: Callable[[Reader], list[Bunch]],
    *,
    choices: Choices | None = None,
    by=None,
    bounded: bool = True,
) -> ImageImport:
    """Make groups of the pictures that `read` gets from a reader: whole groups with all their images or, if anything
    fails on the way, nothing. Returns the import with its report, which is no row where it made no group. Raises
    ImagesError."""
    if not TURN.acquire(timeout=WAIT):
        raise ImagesError(_("file: somebody else's images are being read; try again in a minute"))
    try:
        check_open(project, ImagesError)
        with tempfile.TemporaryDirectory() as folder:
            reader = Reader(project, Path(folder), choices or Choices(), bounded=bounded)
            bunches = read(reader)
            groups, left = grouped(bunches, project.group_size)
            for bunch in groups:  # before the rows, which then take no time; without rows they are garbage
                for picture in bunch.pictures:
                    made = {width: file.read_bytes() for width, file in picture.files.items()}
                    pictures.keep(paths.own_image(project.pk, picture.digest), made)
            return _keep(project, name, groups, left, reader, by)
    except Unreadable as error:
        raise ImagesError(_("file: %(error)s") % {"error": error}) from error
    except IntegrityError as error:
        raise ImagesError(_("file: the same images came twice at once; try again")) from error
    finally:
        TURN.release()


@transaction.atomic
def _keep(project: Project, name: str, groups: list[Bunch], left: list[Picture], reader: Reader, by) -> ImageImport:
    source = ImageImport(project=project, user=by, name=shown(name))
    if any(bunch.likes for bunch in groups):
        source.rater = raters.rater(project, reader.choices.rater)
    if groups:
        source.save()
    prompts = _prompts(project, [group.prompt for group in groups], reader.choices)
    lines = list(reader.lines)
    lines += [Line(picture.name, ImageOutcome.LEFT, ALONE) for picture in left]
    for bunch in groups:
        group = _group(project, prompts[bunch.prompt], bunch, source)
        lines += [_taken(picture, group) for picture in bunch.pictures]
    source.groups, source.images = len(groups), sum(len(bunch.pictures) for bunch in groups)
    source.report = [line.to_json() for line in lines[:MOST_LINES]]
    if not groups:
        return source
    source.save()
    if by is not None:
        audit(project, by, "images imported", name=source.name, groups=source.groups, images=source.images)
    return source


def grouped(bunches: list[Bunch], size: int) -> tuple[list[Bunch], list[Picture]]:
    """Bunches of `size` pictures at most, as even as they can be, and the pictures that are left alone. A bunch with likes
    is a group as it is."""
    found, left = [], []
    for bunch in bunches:
        if bunch.likes is not None:
            found.append(bunch)
            continue
        count = -(-len(bunch.pictures) // size)
        ends = [round(n * len(bunch.pictures) / count) for n in range(count + 1)]
        for start, end in itertools.pairwise(ends):
            part = bunch.pictures[start:end]
            if len(part) > 1:
                found.append(Bunch(bunch.prompt, part))
            else:
                left += part
    return found, left


def _prompts(project: Project, texts: list[str], choices: Choices) -> dict[str, int]:
    """The prompts' rows by their texts. New ones are withdrawn, so that nothing is generated of them, unless somebody
    wants it."""
    wanted = list(dict.fromkeys(texts))
    found = _known(project, wanted)
    if new := [text for text in wanted if text not in found]:
        campaigns.add_prompts(project, [{"prompt": text} for text in new])
        if not choices.generate:
            for start in range(0, len(new), 500):
                project.prompts.filter(input_image="", text__in=new[start : start + 500]).update(
                    withdrawn_at=timezone.now()
                )
        found = _known(project, wanted)
    return found


def _known(project: Project, texts: list[str]) -> dict[str, int]:
    found = {}
    for start in range(0, len(texts), 500):
        found |= dict(
            project.prompts.filter(input_image="", text__in=texts[start : start + 500]).values_list("text", "pk")
        )
    return found


def _group(project: Project, prompt: int, bunch: Bunch, source: ImageImport) -> Group:
    files = [(paths.own_image(project.pk, p.digest), p.side, p.side) for p in bunch.pictures]
    group = generation.queue_own_images(project, prompt, files)
    images = list(group.generations.all())
    ImportedImage.objects.bulk_create(
        ImportedImage(
            generation=image,
            project=project,
            source=source,
            digest=picture.digest,
            name=shown(picture.name),
            tool=picture.tool[:40],
            liked=bunch.likes[image.position] if bunch.likes else None,
        )
        for image, picture in zip(images, bunch.pictures, strict=True)
    )
    return group


def _taken(picture: Picture, group: Group) -> Line:
    about = {"group": group.pk, "width": picture.width, "height": picture.height}
    cut, same = picture.width != picture.height, (picture.width, picture.height) == (picture.side, picture.side)
    return Line(picture.name, ImageOutcome.TAKEN, TAKEN if same else CUT if cut else RESIZED, about)
