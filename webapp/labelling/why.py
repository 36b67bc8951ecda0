"""Why an image is disliked: one of the project's reasons, and a place on the image; both are up to the person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from webapp.labelling.errors import LabellingError
from webapp.lib import bounds

Box = tuple[float, float, float, float]  # left, top, width, height as shares of the image


@dataclass(frozen=True)
class Why:
    """A reason ("" for none) and a box (None: all of the image)."""

    reason: str = ""
    box: Box | None = None

    @classmethod
    def of(cls, reason: Any, box: Any) -> Why:
        """Of JSON. Raises LabellingError, which names the field."""
        if not isinstance(reason or "", str) or len(reason or "") > bounds.REASON:
            raise LabellingError(_("reason: send a text of at most %(most)s characters") % {"most": bounds.REASON})
        if box is None:
            return cls((reason or "").strip())
        if not isinstance(box, list) or len(box) != 4:
            raise LabellingError(_("box: send left, top, width and height as shares of the image"))
        try:
            left, top, width, height = (round(bounds.SHARE.real(value, "box"), 4) for value in box)
        except bounds.OutOfBounds as error:
            raise LabellingError(str(error)) from error
        if width <= 0 or height <= 0 or left + width > 1.001 or top + height > 1.001:
            raise LabellingError(_("box: it must lie within the image"))
        return cls((reason or "").strip(), (left, top, width, height))


def read(value: Any, answer: Mapping[int, bool]) -> dict[int, Why]:
    """Of a request: `{position: {reason, box}}` about disliked images of the answer. Raises LabellingError, OutOfBounds."""
    if not isinstance(value, dict) or not all(isinstance(about, dict) for about in value.values()):
        raise LabellingError(_("why: send an object of position to reason and box"))
    found = {bounds.POSITION.of_text(k, "why"): Why.of(v.get("reason"), v.get("box")) for k, v in value.items()}
    if any(answer.get(position) is not False for position in found):
        raise LabellingError(_("why: only a disliked image has a reason"))
    return found
