"""Files of the storage as answers. Whoever calls this has checked that the person may see the file."""

from __future__ import annotations

import logging

from django.conf import settings
from django.http import Http404, HttpResponse, HttpResponseRedirect

from webapp.lib import storage

log = logging.getLogger(__name__)
WEBP = "image/webp"
SHORTER = 60  # seconds that a browser forgets a signed address before it stops working


def away(name: str) -> HttpResponse | None:
    """A redirect to the file's signed address, which works for a short time; None where there is no such address."""
    if not (address := storage.store().signed(name)):
        return None
    response = HttpResponseRedirect(address)
    keep = max(0, settings.LIKESTEP_S3_SIGNED_SECONDS - SHORTER)
    response["Cache-Control"] = f"private, max-age={keep}"
    return response


def picture(name: str, *, cache: str = "no-cache", may_redirect: bool = True) -> HttpResponse:
    """A WebP image by its name: a redirect where there can be one, else its bytes with `cache` as Cache-Control. Raises
    Http404 when it is not there."""
    try:
        if may_redirect and (response := away(name)) is not None:
            return response
        response = HttpResponse(storage.store().read(name), content_type=WEBP)
    except storage.Unreachable as error:
        return unreachable(error)
    except (OSError, ValueError) as error:
        raise Http404 from error
    response["Cache-Control"] = cache
    return response


def unreachable(error: storage.Unreachable) -> HttpResponse:
    """The storage does not answer: nothing is wrong with the file, so try again."""
    log.error("%s", error)
    response = HttpResponse("the image storage does not answer; try again", status=503, content_type="text/plain")
    response["Retry-After"] = "10"
    response["Cache-Control"] = "no-store"
    return response
