"""How validation scores rise, stall or fall over a run of training, as points of its line and as a plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence

from matplotlib import colormaps
from matplotlib.axes import Axes

from bench.harness import heading
from common.round_folder import RoundFolder

ON_THE_WAY = ("strict", "geneval", "reward")
Curve = Sequence[Mapping[str, float]]


def curve_of(folder: RoundFolder, before: Mapping[str, float], images: int) -> list[dict[str, float]]:
    """A round's validation scores on the way, from the log of its work folder: a point a look, its first one `before` the
    updates, of which each scores `images`. Empty of a round that was not validated."""
    if not before:
        return []
    looks = {0: before}
    for line in map(json.loads, folder.log.read_text().splitlines()):
        if f"validation_{ON_THE_WAY[0]}" in line:  # of updates that were made again after a restart the last count
            looks[line["step"]] = {name: line[f"validation_{name}"] for name in ON_THE_WAY}
    return [
        {"images": step * images, **{name: round(scores[name], 4) for name in ON_THE_WAY}}
        for step, scores in sorted(looks.items())
    ]


def draw_curves(panels: Sequence[Axes], found: Mapping[str, Sequence[Curve]]) -> None:
    """A panel each for the strict and the benchmark's score against scored images: a thick line a row through the means of
    its seeds, as far as all of them came, and a thin one a seed."""
    palette = colormaps["tab20"]
    for panel, column in zip(panels, ON_THE_WAY, strict=False):
        for number, (name, curves) in enumerate(found.items()):
            color = palette(number % palette.N)
            for curve in curves:
                panel.plot(
                    [p["images"] for p in curve], [p[column] for p in curve], color=color, linewidth=0.6, alpha=0.5
                )
            together = list(zip(*curves, strict=False))
            means = [statistics.mean(p[column] for p in points) for points in together]
            panel.plot([points[0]["images"] for points in together], means, color=color, linewidth=2, label=name)
        panel.set_xlabel("scored images")
        panel.set_title(f"validation: {heading(column)}")
