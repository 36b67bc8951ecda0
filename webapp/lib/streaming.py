"""Long answers, a piece at a time: the handler asks for the next piece when the one before has been sent."""

from __future__ import annotations

from collections.abc import Iterator

from django.http import StreamingHttpResponse


def streamed(pieces: Iterator[bytes], *, content_type: str, name: str) -> StreamingHttpResponse:
    """A download."""
    response = StreamingHttpResponse(pieces, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Cache-Control"] = "no-store"
    return response
