"""Why a request of the labelling queue is refused."""

from __future__ import annotations


class LabellingError(ValueError):
    """A request that cannot be carried out; the message names the field and the fix."""

    status = 400


class NotGiven(LabellingError):
    """The person was never given that group."""


class Conflict(LabellingError):
    """The same request was answered before with other content."""

    status = 409


class Decided(Conflict):
    """The person decided on that group before."""


class Stopped(LabellingError):
    """The person gets no real groups here now: they have yet to agree or to practise, or did all they may."""

    status = 403


class Busy(LabellingError):
    """Another request got in between; the same request may succeed when it is sent again."""

    status = 503  # the only one that the page sends again
