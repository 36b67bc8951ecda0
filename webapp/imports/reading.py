"""Files of somebody's become pictures of the project: which prompt each is of, whether it is there already, and its middle
at the model's size. Nothing is written to the database here; pictures wait in a folder of the caller's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from django.utils.translation import gettext_noop

from common import own_pictures
from common.archives import Member
from common.geneval_lines import LineError
from common.intake import Unreadable, kind
from common.texts import LONGEST, canonical_prompt
from webapp.campaigns.models import Project, Split
from webapp.campaigns.services import prompt_check
from webapp.imports.captions import Captions
from webapp.imports.models import ImportedImage
from webapp.imports.report import ImageOutcome, Line
from webapp.labelling import pictures

MOST_IMAGES = 500  # new ones of an upload; those that are left come when it is sent again
MOST_PIXELS = 600_000_000  # of them all, as they came: a minute's work
MORE = gettext_noop("there were enough images before it; send the file again for the rest")
NO_PROMPT = gettext_noop("nothing says what its prompt is")
HIDDEN = ("__MACOSX/", ".")  # what systems leave in archives and folders


@dataclass(frozen=True)
class Choices:
    """What somebody decides about an import: the prompt of images that bring none, whether new images are made of prompts
    that the project did not have, and in whose name a table's labels are given (empty: they are left out)."""

    prompt: str = ""
    generate: bool = False
    rater: str = ""


@dataclass(frozen=True)
class Picture:
    """A new image of the project: `files` by width lie in the import's folder."""

    name: str
    prompt: str
    digest: str
    tool: str
    side: int
    width: int  # as it came
    height: int
    files: dict[int, Path]


@dataclass(frozen=True)
class Bunch:
    """Pictures of one prompt that belong into one group, or into as many as they fill; with the likes of a rater by
    position, where the file has them."""

    prompt: str
    pictures: list[Picture]
    likes: dict[int, bool] | None = None


class Reader:
    """Takes images one by one; `lines` tell what became of those that are not taken."""

    def __init__(self, project: Project, folder: Path, choices: Choices, *, bounded: bool = True):
        """Raises Unreadable where the model's size is not known."""
        self.project, self.folder, self.choices = project, folder, choices
        self.side = side_of(project)
        self.images_left = MOST_IMAGES if bounded else None
        self.pixels_left = MOST_PIXELS
        self.bounded = bounded
        self.lines: list[Line] = []
        self._check = prompt_check(project.oracle)
        self._prompts: dict[str, str] = {}  # as they came → as they are kept
        self._seen: set[str] = set()
        self._count = 0

    def read(self, members: Sequence[Member]) -> list[Bunch]:
        """The images among files, by prompt in order of appearance."""
        captions, found = Captions(members), {}
        for member in members:
            if member.name.startswith(HIDDEN[0]) or member.name.rpartition("/")[2].startswith(HIDDEN[1]):
                continue
            if member.wrong is None and Captions.is_caption(member.name):
                continue
            try:
                if member.wrong is not None:
                    raise member.wrong
                picture = self.take(member.name, member.read(), captions)
            except Unreadable as error:
                self.lines.append(Line.of(member.name, error))
            except OSError as error:
                self.lines.append(Line(member.name, ImageOutcome.SKIPPED, "%(error)s", {"error": error}))
            else:
                if picture is not None:
                    found.setdefault(picture.prompt, []).append(picture)
        self.lines += captions.lines
        return [Bunch(prompt, images) for prompt, images in found.items()]

    def take(self, name: str, data: bytes, captions: Captions) -> Picture | None:
        """An image as it stands in a folder. None where it is there already, which `lines` tell. Raises Unreadable."""
        if kind(data) not in own_pictures.FORMS:
            if kind(data) in ("ZIP", "gzip"):
                raise Unreadable(gettext_noop("an archive within an archive is not opened"))
            own_pictures.size_of(data)
        prompt, tool = captions.of(name), ""
        if not prompt and (noted := own_pictures.noted_prompt(data)):
            prompt, tool = noted
        return self.picture(name, data, prompt or self.choices.prompt, tool=tool)

    def picture(self, name: str, data: bytes, prompt: str, *, tool: str = "", beside: str = "") -> Picture | None:
        """An image of a prompt; `beside` makes the same image another one, as in a pair. None where it is there already."""
        width, height = own_pictures.size_of(data)
        text = self._prompt(prompt)
        digest = own_pictures.digest(f"{text}\0{beside}\0{own_pictures.digest(data)}".encode())
        if digest in self._seen:
            self.lines.append(Line(name, ImageOutcome.KNOWN, gettext_noop("it is in this file twice")))
            return None
        if ImportedImage.objects.filter(project=self.project, digest=digest).exists():
            self.lines.append(Line(name, ImageOutcome.KNOWN, ""))
            return None
        if self.bounded:
            if self.images_left <= 0 or self.pixels_left < width * height:
                raise Unreadable(MORE)
            self.images_left -= 1
            self.pixels_left -= width * height
        fitted = own_pictures.fitted(data, self.side)
        self._seen.add(digest)
        self._count += 1
        files = {}
        for size, encoded in pictures.made(fitted.image).items():
            files[size] = self.folder / f"{self._count}.{size}.webp"
            files[size].write_bytes(encoded)
        return Picture(name, text, digest, tool, self.side, fitted.width, fitted.height, files)

    def _prompt(self, given: str) -> str:
        """The prompt as it is kept. Raises Unreadable for none, and for one that cannot be used."""
        if given not in self._prompts:
            self._prompts[given] = self._checked(given)
        return self._prompts[given]

    def _checked(self, given: str) -> str:
        try:
            text = canonical_prompt(given or "")
        except ValueError as error:
            raise Unreadable(gettext_noop("prompt: %(error)s"), error=error) from error
        if not text:
            raise Unreadable(NO_PROMPT)
        if len(text) > LONGEST:
            raise Unreadable(gettext_noop("its prompt has more than %(most)s characters"), most=LONGEST)
        known = self.project.prompts.filter(text=text, input_image="").first()
        if known is not None and known.split != Split.TRAIN:
            # People must see no images of prompts that versions are measured on.
            raise Unreadable(gettext_noop("its prompt is kept for validation or tests, of which people see no images"))
        if known is None and self._check is not None:
            try:
                self._check(text, {})
            except LineError as error:
                raise Unreadable(error.template, **error.about) from error
            except ValueError as error:
                raise Unreadable(gettext_noop("prompt: %(error)s"), error=error) from error
        return text


def side_of(project: Project) -> int:
    """Pixels of a side of the project's images. Raises Unreadable where neither the model nor an image tells."""
    if side := own_pictures.side_of(project.model_dir):
        return side
    made = project.groups.filter(generations__isnull=False).order_by("-pk").values_list("generations__width", flat=True)
    if side := made.first():
        return side
    raise Unreadable(
        gettext_noop("the size of the model's images is not known here; let a first group be generated, then try again")
    )
