"""State machines: one table of allowed moves each, enforced in one function."""

from __future__ import annotations

GROUP_MOVES = {
    "queued": {"generating", "superseded"},
    "generating": {"ready", "queued", "failed"},
    "ready": {"done", "superseded", "flagged", "failed"},  # failed: an image was found damaged
    "done": {"ready", "flagged"},  # ready: an undo takes a decision back
    "failed": {"queued"},
    "flagged": {"ready", "done"},  # the flag was taken back, or a reviewer found nothing wrong
    "superseded": set(),
}
ROUND_MOVES = {
    "queued": {"running", "cancelled"},
    "running": {"running", "done", "failed", "cancelled"},  # running again: a new owner after a lost one
    "done": set(),
    "failed": set(),
    "cancelled": set(),
}
PAIR_MOVES = {
    "queued": {"generating"},
    "generating": {"ready", "queued", "failed"},
    "ready": {"done"},
    "done": set(),
    "failed": set(),
}

TRIAL_MOVES = {
    "queued": {"generating", "cancelled"},
    "generating": {"ready", "queued", "failed", "cancelled"},
    "ready": set(),
    "failed": set(),
    "cancelled": set(),
}
SHARING_MOVES = {
    "queued": {"sending"},
    "sending": {"done", "queued", "failed"},
    "done": set(),
    "failed": set(),
}


class IllegalMove(ValueError):
    """A state may not follow the present one."""


def move(moves: dict[str, set[str]], row, target: str) -> None:
    """Set `row.state` to `target` (the caller saves). Raises IllegalMove when the table does not allow it."""
    if target not in moves[row.state]:
        raise IllegalMove(f"state: {type(row).__name__} {row.pk} cannot go from {row.state} to {target}")
    row.state = target
