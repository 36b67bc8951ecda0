"""How many answers a group takes for equally good labels: a fixed overlap beside ranges that end when labels are sure.

    python -m bench.learning.sure --seeds 0 1 2

Simulated people, no images: a label is the truth with a person's own reliability, drawn evenly from .70 to .95, and one
person in ten is a spammer who answers at random. Each turn somebody takes the oldest group that needs one more by the
product's own rule (`webapp.quality.asking`), whose certainty and consensus are the product's (`webapp.quality.consensus`).
People are measured from these labels alone, as a worker does it (`webapp.quality.reliability`), each time as many
answers again have come in. Counted is the share of images whose consensus is the truth. All rows of a seed share their
luck.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from bench.harness import Runs, add_work, markdown, runs_of, spread, told
from webapp.quality.asking import Asking
from webapp.quality.consensus import Reliability, Vote, certainty, posterior
from webapp.quality.reliability import MEASURED_AFTER, fit

IMAGES = 8
SPAMMERS = 0.1
RELIABLE = (0.70, 0.95)
MEASURED_FIRST, MEASURED_AGAIN = 100, 2  # answers before the first measurement, and the growth until the next
FIXED = {f"fixed {n}": Asking(n, n, 1.0) for n in (1, 2, 3, 4)}
RANGES = {
    f"{least} to {most}, sure {sure:.2f}": Asking(least, most, sure)
    for least, most, sure in [(1, 3, 0.85), (1, 4, 0.80), (1, 4, 0.85), (1, 4, 0.90), (1, 4, 0.95)]
}
EACH = "1 to 4, each image sure 0.90"
ROWS = {**FIXED, **RANGES, EACH: Asking(1, 4, 0.9)}


class World:
    """What a seed decides: the truth, how reliable people are, and what each would say of each group."""

    def __init__(self, seed: int, groups: int, people: int):
        rng = random.Random(f"world-{seed}")
        self.seed = seed
        likely = [rng.betavariate(2, 2) for _ in range(groups)]  # some prompts are easier than others
        self.truth = [[rng.random() < p for _ in range(IMAGES)] for p in likely]
        spammers = round(SPAMMERS * people)
        self.rates = [0.5] * spammers + [rng.uniform(*RELIABLE) for _ in range(people - spammers)]

    def said(self, person: int, group: int) -> list[bool]:
        """The person's labels of the group."""
        rng = random.Random(f"said-{self.seed}-{person}-{group}")
        return [truth == (rng.random() < self.rates[person]) for truth in self.truth[group]]


class Project:
    """Groups that are asked about until each is done."""

    def __init__(self, world: World, asking: Asking, each: bool):
        self.world, self.asking, self.each = world, asking, each
        self.answers: list[dict[int, list[bool]]] = [{} for _ in world.truth]
        self.known: dict[int, Reliability] = {}
        self.prior = 0.5

    def votes(self, group: int) -> list[list[Vote]]:
        """Of each image."""
        said = [(self.known.get(person), labels) for person, labels in self.answers[group].items()]
        return [[Vote(labels[n], rates) for rates, labels in said] for n in range(IMAGES)]

    def needs_one_more(self, group: int) -> bool:
        """By the product's rule; `each` asks it of the least sure image instead of the mean."""
        images = [(None, votes) for votes in self.votes(group)]
        sure = min(certainty([image], self.prior) for image in images) if self.each else certainty(images, self.prior)
        answers = len(self.answers[group])
        return answers < self.asking.wanted(answers, certainty=round(sure, 4))

    def measure(self) -> None:
        """What a worker does; people with few shared labels stay unmeasured."""
        rows = [
            (group * IMAGES + n, person, liked)
            for group, answers in enumerate(self.answers)
            if len(answers) > 1
            for person, labels in answers.items()
            for n, liked in enumerate(labels)
        ]
        if not rows:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = fit(rows)
        shared = Counter(person for _image, person, _liked in rows)
        self.known = {person: rates for person, rates in found.rates.items() if shared[person] >= MEASURED_AFTER}
        self.prior = found.prior

    def label(self) -> None:
        """Ask until no group needs anybody whom it has not had."""
        rng = random.Random(f"turns-{self.world.seed}")
        people, waiting = range(len(self.world.rates)), list(range(len(self.answers)))
        given, next_measured = 0, MEASURED_FIRST
        while waiting:
            person = rng.choice(people)
            group = next((g for g in waiting if person not in self.answers[g]), None)
            if group is None:
                continue
            self.answers[group][person] = self.world.said(person, group)
            given += 1
            if not self.needs_one_more(group):
                waiting.remove(group)
            if given >= next_measured:
                self.measure()
                waiting = [g for g in waiting if self.needs_one_more(g)]
                next_measured = math.ceil(given * MEASURED_AGAIN)
        self.measure()

    def right(self) -> float:
        """The share of images whose consensus is the truth; half of one that is even."""
        found = 0.0
        for group, truth in enumerate(self.world.truth):
            for votes, liked in zip(self.votes(group), truth, strict=True):
                likely = posterior(votes, self.prior)
                found += 0.5 if likely == 0.5 else (likely > 0.5) == liked
        return found / (len(self.answers) * IMAGES)


def run(row: str, seed: int, groups: int, people: int) -> dict:
    """Answers a group and the share of images that are right, of a row and seed."""
    project = Project(World(seed, groups, people), ROWS[row], each=row == EACH)
    project.label()
    given = [len(answers) for answers in project.answers]
    return {
        "answers": statistics.mean(given),
        "by_answers": {str(n): given.count(n) / groups for n in sorted(set(given))},
        "right": project.right(),
        "measured": len(project.known),
    }


def fixed_for(right: float, curve: Sequence[tuple[float, float]]) -> float:
    """Answers a group that a fixed overlap takes for that share of right images: between two of `curve`, (answers, right),
    by a straight line; the last of them where none is as good."""
    for (a, low), (b, high) in pairwise(curve):
        if right <= high:
            return a if right <= low else a + (b - a) * (right - low) / (high - low)
    return curve[-1][0]


def sections(lines: list[dict]) -> dict[str, str]:
    """The page's tables: each row's cost and quality, and how many answers groups took."""
    curves = {
        line["seed"]: sorted(
            (x["answers"], x["right"]) for x in lines if x["row"] in FIXED and x["seed"] == line["seed"]
        )
        for line in lines
    }
    table, taken = [], []
    for row in ROWS:
        runs = runs_of(lines, row)
        if not runs:
            continue
        cells = [row, spread([r["answers"] for r in runs], "-"), spread([r["right"] for r in runs], "-")]
        if row in FIXED:
            cells += ["", ""]
        else:
            equal = [fixed_for(r["right"], curves[r["seed"]]) for r in runs]
            saved = [1 - r["answers"] / e for r, e in zip(runs, equal, strict=True)]
            cells += [spread(equal, "-"), spread(saved)]
            shares = [statistics.mean(r["by_answers"].get(str(n), 0.0) for r in runs) for n in range(1, 5)]
            taken.append([row, *(f"{share:.2f}" if share else "–" for share in shares)])
        table.append(cells)
    columns = ["people a group", "answers a group", "images right", "a fixed overlap for that", "answers saved"]
    return {
        "sure": markdown(columns, table),
        "taken": markdown(["people a group", *(f"{n} answered" for n in range(1, 5))], taken),
    }


def main() -> None:
    """Make the runs that are missing and print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--groups", type=int, default=300)
    parser.add_argument("--people", type=int, default=30)
    add_work(parser, "sure")
    a = parser.parse_args()
    made_with = told(a, "seeds")
    kept = Runs(Path(a.work), lambda row: made_with)
    for row in ROWS:
        for seed in a.seeds:
            kept.once(row, seed, lambda r=row, s=seed: run(r, s, a.groups, a.people))
    for table in sections(kept.lines).values():
        print(f"{table}\n")


if __name__ == "__main__":
    main()
