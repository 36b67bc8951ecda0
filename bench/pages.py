"""Writes the tables and plots of docs/results from the committed runs, so that no number is copied by hand.

    python -m bench.pages
    python -m bench.pages --check

A page names the table it wants in a comment, `<!-- bench.pages NAME -->`; what stands between that and `<!-- end -->` is
written anew. Plots go beside their runs. `--check` writes nothing and fails when something would change.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from bench.gpu import tables as gpu
from bench.harness import read, svg
from bench.learning import (
    ablation,
    alarm,
    base,
    compositions,
    failures,
    headline,
    label_economy,
    shown,
    sure,
    taught,
    time_to_gain,
    words,
)
from bench.load import scaling
from common.files import write_atomic

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
BLOCK = re.compile(r"(<!-- bench\.pages (\S+) -->\n)(.*?)(\n<!-- end -->)", re.S)  # one that is empty, too


@dataclass(frozen=True)
class Page:
    """A page of docs/results, which has the name of its folder of runs: its tables by name, and its plot."""

    sections: Callable[[list[dict]], dict[str, str]]
    plot: Callable[[list[dict]], Figure] | None = None


PAGES = {
    "ablation": Page(ablation.sections, ablation.plot),
    "alarm": Page(alarm.sections),
    "base": Page(base.sections),
    "compositions": Page(compositions.sections),
    "failures": Page(failures.sections),
    "gpu": Page(gpu.sections),
    "headline": Page(headline.sections, headline.plot),
    "headline-first": Page(headline.sections),
    "label-economy": Page(label_economy.sections, label_economy.plot),
    "next-methods": Page(ablation.sections, ablation.plot),
    "scaling": Page(scaling.sections),
    "shown": Page(shown.sections),
    "sure": Page(sure.sections),
    "task-vector": Page(label_economy.sections),
    "taught": Page(taught.sections),
    "time-to-gain": Page(time_to_gain.sections),
    "words": Page(words.sections),
    "words-first": Page(words.sections),
}


def written(text: str, sections: dict[str, str]) -> str:
    """A page's text with its tables written anew. Raises ValueError when it asks for one that there is not, or for none."""
    asked = [name for _, name, _, _ in BLOCK.findall(text)]
    if not asked or set(asked) - set(sections):
        raise ValueError(f"page: asks for {', '.join(asked) or 'no table'}; there are {', '.join(sections)}")
    return BLOCK.sub(lambda block: f"{block[1]}\n{sections[block[2]]}\n{block[4]}", text)


def files() -> dict[Path, bytes]:
    """What every page and plot should be."""
    made = {}
    for name, page in PAGES.items():
        runs, file = RESULTS / "runs" / name, RESULTS / f"{name}.md"
        lines = read(runs / "runs.jsonl")
        made[file] = written(file.read_text(), page.sections(lines)).encode()
        if page.plot:
            made[runs / f"{name}.svg"] = svg(page.plot(lines))
    return made


def main() -> None:
    """Write, or check, and name what changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something would change")
    a = parser.parse_args()
    made = files()
    changed = [file for file, data in made.items() if not file.exists() or file.read_bytes() != data]
    for file in changed:
        print(file.relative_to(RESULTS))
        if not a.check:
            write_atomic(file, made[file])
    sys.exit(1 if a.check and changed else 0)


if __name__ == "__main__":
    main()
