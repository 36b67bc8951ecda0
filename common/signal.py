"""Signal: whether a group's rewards differ enough to teach anything. The one rule of web app, workers and trainer.

The web app keeps the answer in `Consensus.signal`, whose queries are in `webapp/quality/signal.py`; the trainer asks
`trainer.advantages.has_signal`, the same rule for tensors. Standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence

SAME = 0.01  # rewards, within 0..1, no further apart than this are the same one
ROUNDING = 1e-6  # of rewards kept in 32 bits


def has_signal(rewards: Sequence[float | None]) -> bool:
    """Whether the highest and the lowest reward are more than `SAME` apart. None is a reward that nobody knows."""
    known = [r for r in rewards if r is not None]
    return len(known) > 1 and max(known) - min(known) > SAME + ROUNDING
