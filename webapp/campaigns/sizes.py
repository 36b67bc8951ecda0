"""Sizes of a project's images: which it has, and which one the next images of a prompt get."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from django.utils.translation import gettext as _

from common.inputs import output_size
from common.sizes import Size, SizeError, largest, parse_size, parse_sizes, size_text, step_of
from webapp.campaigns.models import Project, Prompt


def read(text: str, model_dir: str) -> str:
    """Sizes as they are kept, with ", " between them. Raises ValueError, in the reader's language, on what is none or the
    model cannot make."""
    try:
        return ", ".join(map(size_text, parse_sizes(text, step_of(Path(model_dir)))))
    except SizeError as error:
        raise ValueError(_(error.template) % error.about) from None


def read_one(text: str, model_dir: str) -> str:
    """The same of one size; "" is the model's own."""
    try:
        return size_text(parse_size(text, step_of(Path(model_dir)))) if text.strip() else ""
    except SizeError as error:
        raise ValueError(_(error.template) % error.about) from None


def of_project(project: Project) -> list[str]:
    """What is dealt out among prompts that name none; empty: the model's own."""
    return [size_text(size) for size in parse_sizes(project.sizes)]


def for_prompts(project: Project, prompt_ids: Sequence[int], rng: random.Random) -> list[tuple[str, str]]:
    """(size of new images, input image) of each prompt. The size is the prompt's own, its input image's, or one of the
    project's; "" is the model's own, and no input image."""
    shared = of_project(project)
    rows = Prompt.objects.filter(pk__in=prompt_ids).values_list("pk", "metadata__size", "input_image")
    named = {pk: (size, image) for pk, size, image in rows}
    own = of_inputs(project, (image for _size, image in named.values() if image))
    found = []
    for pk in prompt_ids:
        size, image = named[pk]
        found.append((size or own.get(image) or (rng.choice(shared) if shared else ""), image))
    return found


def of_inputs(project: Project, digests: Iterable[str]) -> dict[str, str]:
    """The size of the images that are made of each input image where nobody asks for another."""
    if not (wanted := set(digests)):
        return {}
    step = step_of(Path(project.model_dir))
    rows = project.inputs.filter(digest__in=wanted).values_list("digest", "width", "height")
    return {digest: size_text(output_size((width, height), step)) for digest, width, height in rows}


def largest_of(project: Project) -> Size | None:
    """The one that decides what memory images take; None: none is named."""
    named = project.prompts.in_use().exclude(metadata__size=None).values_list("metadata__size", flat=True).distinct()
    inputs = of_inputs(project, project.prompts.in_use().values_list("input_image", flat=True).distinct())
    return largest([parse_size(text) for text in {*of_project(project), *_texts(named), *inputs.values()}])


def _texts(values: Iterable) -> list[str]:
    return [value for value in values if isinstance(value, str)]


def pixels(text: str) -> Size | None:
    """A size as the trainer takes it; None is the model's own."""
    return parse_size(text) if text else None


def ratio(text: str) -> Size:
    """Width and height of an image that is not there yet; a model's own images are square."""
    return pixels(text) or (1, 1)
