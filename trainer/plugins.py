"""What Likestep offers by name, and what installed packages add to it as entry points."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata


def offered(group: str, what: str, built_in: Mapping[str, str]) -> dict[str, metadata.EntryPoint]:
    """Every entry point of the group by name: `built_in` (name → "module:object") and those of installed packages.

    `what` begins the message of the ValueError that is raised when two packages, or a package and Likestep, use one name.
    """
    found = {name: metadata.EntryPoint(name, target, group) for name, target in built_in.items()}
    for point in metadata.entry_points(group=group):
        if point.name in found and found[point.name].value != point.value:
            raise ValueError(
                f"{what}: {point.name!r} is offered by both {found[point.name].value} and {point.value}; "
                "rename or uninstall one"
            )
        found[point.name] = point
    return found
