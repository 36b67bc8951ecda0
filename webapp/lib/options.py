"""Numbers that an installation may want otherwise, each declared here and nowhere else.

Those of `_number` come from the environment; README's table and docker-compose.yml have them all. Whoever reads one asks
this module when it is needed (`options.LEASE`).
"""

from __future__ import annotations

import os
from datetime import timedelta

from django.core.exceptions import ImproperlyConfigured


def _number(variable: str, default: float, *, least: float = 1) -> float:
    """The variable's value, of the default's type. Raises ImproperlyConfigured that names it."""
    text = os.environ.get(variable, "").strip()
    try:
        value = type(default)(text) if text else default
    except ValueError:
        value = None
    if value is None or not least <= value < float("inf"):
        raise ImproperlyConfigured(f"{variable}: {text!r} is not a number from {least}; give one, or unset it")
    return value


# Rating
LEASE = timedelta(seconds=_number("LIKESTEP_LEASE_SECONDS", 600, least=30))  # a group or pair on somebody's screen
RENEW = LEASE * 0.4  # an open page asks for its groups again, so that its leases go on
HELD_AT_ONCE = _number("LIKESTEP_LEASES", 4, least=3)  # groups a person; the page holds one and prefetches two
PREFETCH = 3  # the group or pair on screen and the next two
RACES = 5  # tries before a person who lost every race is told that nothing waits
UNDO = timedelta(minutes=_number("LIKESTEP_UNDO_MINUTES", 60.0, least=0))  # an answer can be taken back
FLAGS_PER_HOUR = _number("LIKESTEP_FLAGS_PER_HOUR", 10)  # of a person in a project, while they are open
EXAMPLES = _number("LIKESTEP_EXAMPLES", 48)  # images that the guidelines show

# Work that fails or whose worker is lost
STALE = timedelta(seconds=_number("LIKESTEP_STALE_SECONDS", 60.0, least=0.1))  # of silence: a round is taken over
SILENT_STALE = 5 * STALE  # of what does not beat while it runs: groups, pairs, scoring
TRIES = _number("LIKESTEP_TRIES", 3)  # of a group or pair that cannot be generated
LOST_WORKERS = _number(
    "LIKESTEP_LOST_WORKERS", 5
)  # over a group or pair before it is given up: it may be what kills them
ROUND_LOST_WORKERS = _number("LIKESTEP_ROUND_LOST_WORKERS", 10)  # one after the other while a round got no further
ORACLE_TRIES = _number("LIKESTEP_ORACLE_TRIES", 12)  # times an oracle is asked about a group, whatever it failed of
WEBHOOK_TRIES = _number("LIKESTEP_WEBHOOK_TRIES", 12)

# Trials: images of any prompt, for admins to look at
TRIALS_OF_A_PERSON = _number("LIKESTEP_TRIALS_OF_A_PERSON", 3)  # that wait or are being made, in a project
TRIALS_OF_A_PROJECT = _number("LIKESTEP_TRIALS_OF_A_PROJECT", 10)
TRIAL_KEPT = timedelta(days=_number("LIKESTEP_TRIAL_DAYS", 30))

# People
INVITATION = timedelta(days=_number("LIKESTEP_INVITATION_DAYS", 7))
LOGIN_FAILURES = _number("LIKESTEP_LOGIN_FAILURES", 10)  # of a name from an address before it is locked
LOCKED = timedelta(minutes=_number("LIKESTEP_LOCKED_MINUTES", 15))

# Pages
ROWS = _number("LIKESTEP_PAGE_ROWS", 50)
LONG_ROWS = 2 * ROWS  # of people
PICTURE_ROWS = max(1, ROWS // 2)  # of groups with their images
LARGE = _number("LIKESTEP_LARGE", 20_000)  # groups beyond which a project is counted by a worker, not by each page
