"""Where each version came from, as a drawing. Pure functions of plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COLUMN, ROW, MARGIN = 96, 56, 36


@dataclass(frozen=True)
class Node:
    """A version at a place of the drawing."""

    number: int
    status: str
    active: bool
    x: int
    y: int


@dataclass(frozen=True)
class Drawing:
    """Nodes, the lines from parents to children as SVG paths, and the drawing's size."""

    nodes: list[Node]
    lines: list[str]
    width: int
    height: int


def draw(versions: Sequence[tuple[int, int | None, str]], active: int | None) -> Drawing:
    """Lay out (number, parent's number, status): a column a generation; a version's newest child goes on in its row, the
    others get rows of their own below."""
    children: dict[int | None, list[int]] = {}
    numbers = {number for number, _, _ in versions}
    for number, parent, _ in sorted(versions):
        children.setdefault(parent if parent in numbers else None, []).append(number)
    place: dict[int, tuple[int, int]] = {}
    rows = 0
    waiting = [(number, 0, None) for number in sorted(children.get(None, []), reverse=True)]
    while waiting:
        number, depth, row = waiting.pop()
        if row is None:
            row, rows = rows, rows + 1
        place[number] = (depth, row)
        mine = children.get(number, [])
        waiting += [(child, depth + 1, None) for child in mine[:-1]]
        if mine:
            waiting.append((mine[-1], depth + 1, row))
    at = {n: (MARGIN + COLUMN * depth, MARGIN + ROW * row) for n, (depth, row) in place.items()}
    nodes = [Node(n, status, n == active, *at[n]) for n, _, status in sorted(versions)]
    lines = []
    for number, parent, _ in sorted(versions):
        if parent in at:
            (x0, y0), (x1, y1) = at[parent], at[number]
            middle = (x0 + x1) // 2
            lines.append(f"M{x0} {y0}C{middle} {y0} {middle} {y1} {x1} {y1}")
    deepest = max((depth for depth, _ in place.values()), default=0)
    return Drawing(nodes, lines, 2 * MARGIN + COLUMN * deepest, 2 * MARGIN + ROW * max(0, rows - 1))
