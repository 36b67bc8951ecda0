"""Long answers, a piece at a time, under ASGI and WSGI alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse

_END = object()


def streamed(request: HttpRequest, pieces: Iterator[bytes], *, content_type: str, name: str) -> StreamingHttpResponse:
    """A download. Django would gather a plain iterator in memory under ASGI, so there it is pulled from a thread."""
    body = _pulled(pieces) if isinstance(request, ASGIRequest) else pieces
    response = StreamingHttpResponse(body, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Cache-Control"] = "no-store"
    return response


async def _pulled(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    pull = sync_to_async(next)  # thread-sensitive: the thread, and so the database connection, is the request's own
    try:
        while (piece := await pull(pieces, _END)) is not _END:
            yield piece
    finally:
        if hasattr(pieces, "close"):
            await sync_to_async(pieces.close)()
