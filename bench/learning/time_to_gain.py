"""How long a gain takes: the demo project's round from 1,000 labels, and from what a visitor rates in two minutes.

    python -m bench.learning.time_to_gain --seeds 0 1 2 --threads 2

Simulated people label groups of training prompts; then a round of the demo project's settings runs, its alarm and what it
holds back for that included. Minutes are of the round alone, on `--threads` cores. Each row tells what its people asked
for: the strict score, or the share of images that they like, on test prompts before and after, from the same noise. `sure`
says whether the 95% interval of the paired change has no zero in it; a visitor who cannot be sure yet is told on the
round's page how many more labels the next round takes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from bench.harness import Runs, add_work, markdown, spread, told
from bench.learning.economy import write_groups
from bench.learning.gains import oracle_spec
from bench.learning.label_economy import Row, collect
from bench.learning.people import PEOPLE, Person, Seen, seen_in
from common.settings import DEMO_ROUND, TDMR1Settings
from trainer.cli import MODEL, STUDENT
from trainer.demo.scenes.prompts import TAGS, evaluation_prompts
from trainer.evaluate import evaluate
from trainer.oracles import get_oracle
from trainer.rounds import run_round
from trainer.sampler import Sampler

SURE = 1.96  # standard errors of a 95% interval
ROWS = {
    "1,000 labels, one in ten wrong": Row("", 1000),
    "a visitor's 96 labels: right": Row("", 96, people="sure"),
    "a visitor's 96 labels: right, with large shapes": Row("", 96, people="large"),
    "a visitor's 96 labels: right, and not green": Row("", 96, people="biased"),
}


@dataclass(frozen=True)
class Tested:
    """For each test image whether it is right, and whether the person likes it: 0 or 1 each."""

    strict: list[float]
    liked: list[float]


def judged(version: Path, per_tag: int) -> list[tuple[bool, Seen]]:
    """For each of the version's images of test prompts whether it is right, and what is to be seen in it."""
    sampler = Sampler(MODEL)
    sampler.use_version(version)
    rows = evaluation_prompts("test", per_tag, tags=TAGS)
    found = evaluate(sampler.backend, rows, get_oracle("scenes"), bf16=True, steps=4)
    seen = [seen_in(image, row.metadata) for image, row in zip(found.images, rows, strict=True)]
    return [(verdict.liked, what) for verdict, what in zip(found.verdicts, seen, strict=True)]


def liked_by(images: list[tuple[bool, Seen]], person: Person) -> Tested:
    """The same for a person, who does not err here."""
    return Tested([float(right) for right, _ in images], [float(right and person.fits(seen)) for right, seen in images])


def change(before: list[float], after: list[float]) -> dict[str, float]:
    """Means before and after, and the paired change with its standard error."""
    gaps = [b - a for a, b in zip(before, after, strict=True)]
    error = statistics.stdev(gaps) / len(gaps) ** 0.5
    return {"before": statistics.mean(before), "after": statistics.mean(after), "error": error}


def train(row: Row, seed: int, work: Path) -> tuple[Path, dict]:
    """The demo project's round from the row's labels; the version's folder and what it took."""
    groups = collect(row, seed, STUDENT, row.labels, work / f"rated-{seed}")
    file = work / f"{row.people}-{row.labels}-{seed}" / "groups.jsonl"
    loud = write_groups(groups, file)
    settings = TDMR1Settings(seed=seed, **DEMO_ROUND)
    by_people = {"reward_oracle": None, "validation_oracle": None, "groups_file": str(file)}
    spec = replace(oracle_spec(file.parent, settings, parent=STUDENT), **by_people)
    started = time.monotonic()
    result = run_round(spec)
    minutes = (time.monotonic() - started) / 60
    spent = {"minutes": round(minutes, 2), "groups": len(groups), "signal": loud, "updates": result.steps}
    return Path(result.version_dir), spent | {"alarm": result.alarm}


def sections(lines: list[dict]) -> dict[str, str]:
    """The table of the page by its name."""
    rows = []
    for name in dict.fromkeys(line["row"] for line in lines):
        mine = [line for line in lines if line["row"] == name]
        cells = []
        for what in ("strict", "liked"):
            gained = [line[what]["after"] - line[what]["before"] for line in mine]
            sure = sum(g > SURE * line[what]["error"] for g, line in zip(gained, mine, strict=True))
            cells += [f"{mine[0][what]['before']:.3f}", spread(gained), f"{sure} of {len(mine)}"]
        rows.append([name, str(len(mine)), spread([line["minutes"] for line in mine], sign="-"), *cells])
    heads = ["labels", "seeds", "minutes", "strict before", "gain", "sure", "liked before", "gain", "sure"]
    return {"time": markdown(heads, rows)}


def main() -> None:
    """Make what is missing and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--per-tag", type=int, default=96, help="images a tag of a test (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    add_work(parser, "time-to-gain")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    made_with = told(a, "rows", "seeds")
    runs = Runs(a.work, lambda row: made_with)
    before = cache(lambda: judged(STUDENT, a.per_tag))

    def make(name: str, seed: int) -> dict:
        row = ROWS[name]
        version, spent = train(row, seed, a.work)
        old, new = (liked_by(images, PEOPLE[row.people][0]) for images in (before(), judged(version, a.per_tag)))
        return {**spent, "strict": change(old.strict, new.strict), "liked": change(old.liked, new.liked)}

    for seed in a.seeds:
        for name in a.rows:
            runs.once(name, seed, lambda n=name, s=seed: make(n, s))
    print(sections(runs.lines)["time"])


if __name__ == "__main__":
    main()
