"""What may go through the network together."""

from __future__ import annotations

from collections.abc import Sequence


def equal_parts(kinds: Sequence, most: int) -> list[list[int]]:
    """The places of equal `kinds` together, at most `most` in a part."""
    places: dict = {}
    for i, kind in enumerate(kinds):
        places.setdefault(kind, []).append(i)
    return [mine[start : start + most] for mine in places.values() for start in range(0, len(mine), most)]
