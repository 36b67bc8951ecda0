"""Sending a version to a repository of the Hugging Face hub, or of a server with the same API (`HF_ENDPOINT`)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from common.language import gettext as _

VARIABLE = "HF_TOKEN"  # of the environment; huggingface_hub's own
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


class HubError(RuntimeError):
    """The hub did not take the files; its own words in one sentence."""


class HubAwayError(HubError):
    """The hub gave no answer: it may have come back when it is asked again."""


def can_push() -> bool:
    """Whether this machine has a token."""
    return bool(os.environ.get(VARIABLE))


def check(repository: str) -> None:
    """Raises ValueError, naming the field, for a name that is none and on a machine without a token."""
    if not REPOSITORY.fullmatch(repository) or ".." in repository or "--" in repository:
        raise ValueError(_("repository: give it as owner/name"))
    if not can_push():
        raise ValueError(_("repository: the server has no token; set HF_TOKEN to one that may write"))


def push(files: Mapping[str, bytes | Path], repository: str, *, message: str, private: bool = True) -> str:
    """Commit the files (path in the repository → content) to the model repository OWNER/NAME, which is made, private or
    not, where it is not there; returns its address. The token is the environment's. Raises what `check` does, HubError when
    the hub refuses, and HubAwayError when it cannot be reached."""
    check(repository)
    # The package takes a second to load, and is needed here alone.
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=os.environ[VARIABLE])
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        changes = [CommitOperationAdd(path, content) for path, content in files.items()]
        api.create_commit(repository, changes, commit_message=message)
    except HfHubHTTPError as error:
        words = " ".join((error.server_message or str(error)).split())[:200]
        raise HubError(_("the hub refused: %(words)s") % {"words": words}) from error
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise HubAwayError(_("the hub cannot be reached: %(words)s") % {"words": words}) from error
    return str(address)
