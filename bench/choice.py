"""How many labelled groups have something to teach when prompts are drawn evenly, and when they are chosen by it.

    python bench/choice.py --versions demo-student demo-after --seeds 0 1 2

A group that everybody likes or dislikes teaches nothing. Simulated annotators label groups of eight images of training
prompts, the scene oracle's strict verdict with each label flipped at the probability of `--noise`. Evenly is what the app
does: a prompt that was shown least, at random among equals. Chosen: a prompt's chance is proportional to the power
`--powers` of the spread that is expected of its labels, over the largest, and never below `FLOOR`. The expectation is a
mean over the prompt's labelled groups and phantom ones that have its tag's mean, whose own phantoms have the project's.
The prompts are all training prompts, two thirds of which are of one tag, or with `--per-tag` so many of each tag.

Counted is the oracle's verdict, not the label: a flipped label is no signal. All ways of one seed share their luck (the
same prompt's nth group is the same images and flips, and the same random number decides about it).
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.label_gain import GROUP_SIZE  # noqa: E402 - the repository is not installed
from trainer.cli import MODEL  # noqa: E402
from trainer.oracles import get_oracle  # noqa: E402
from trainer.sampler import Sampler  # noqa: E402
from trainer.scenes.prompts import TAGS, ScenePrompt, prompts  # noqa: E402

FLOOR = 0.1  # of the most wanted prompt's chance
PROMPT_PHANTOMS, TAG_PHANTOMS = 2, 4  # groups that a prompt's, a tag's prior counts as
FIRST_SEED, SEEDS_APART, MOST_SHOWN = 540_000_000, 1_000_000, 64  # of the images' noise; below those of blind tests


@dataclass
class Mean:
    """A running mean that starts from a prior."""

    count: int = 0
    total: float = 0.0

    def add(self, value: float) -> None:
        """One more."""
        self.count, self.total = self.count + 1, self.total + value

    def under(self, prior: float, phantoms: float) -> float:
        """With so many phantom values of the prior's mean."""
        return (self.total + phantoms * prior) / (self.count + phantoms)


class Chooser:
    """Chances of prompts by the spread that is expected of their labels; a power of 0 is an even draw."""

    def __init__(self, rows: Sequence[ScenePrompt], power: float):
        self.rows, self.power = rows, power
        self.prompts: defaultdict[int, Mean] = defaultdict(Mean)
        self.tags: defaultdict[str, Mean] = defaultdict(Mean)
        self.all = Mean()

    def learn(self, index: int, labels: Sequence[bool]) -> None:
        """A group was labelled: its spread is 4 p (1 - p), 0 where all agree and 1 where they are halved."""
        share = sum(labels) / len(labels)
        for mean in (self.prompts[index], self.tags[self.rows[index].tag], self.all):
            mean.add(4 * share * (1 - share))

    def weights(self) -> list[float]:
        """A chance for each prompt, in FLOOR..1."""
        project = self.all.under(0.5, 2)
        tags = {tag: self.tags[tag].under(project, TAG_PHANTOMS) for tag in TAGS}
        expected = [self.prompts[i].under(tags[r.tag], PROMPT_PHANTOMS) for i, r in enumerate(self.rows)]
        top = max(tags.values())
        return [max(FLOOR, min(1.0, e / top) ** self.power) for e in expected]


class Luck:
    """What a seed decides, whoever asks: the images of a prompt's nth group, their verdicts, flips, and who is next."""

    def __init__(self, version: Path, rows: Sequence[ScenePrompt], seed: int):
        self.rows, self.seed, self.oracle = rows, seed, get_oracle("scenes")
        self.sampler = Sampler(MODEL)
        self.sampler.use_version(version)
        self._verdicts: dict[tuple[int, int], list[bool]] = {}

    def verdicts(self, index: int, nth: int) -> list[bool]:
        """The oracle's, of each image."""
        if (index, nth) not in self._verdicts:
            row, first = self.rows[index], FIRST_SEED + SEEDS_APART * self.seed
            first += GROUP_SIZE * (MOST_SHOWN * index + nth)
            images = self.sampler.sample_group(row.prompt, range(first, first + GROUP_SIZE)).images
            found = self.oracle.score(images, [row.prompt] * GROUP_SIZE, [row.metadata] * GROUP_SIZE)
            self._verdicts[index, nth] = [v.liked for v in found]
        return self._verdicts[index, nth]

    def labels(self, index: int, nth: int, noise: float) -> list[bool]:
        """The verdicts, each flipped with probability `noise`."""
        rng = random.Random(f"flips-{self.seed}-{index}-{nth}")
        return [liked != (rng.random() < noise) for liked in self.verdicts(index, nth)]

    def wait(self, index: int, nth: int) -> float:
        """Until the prompt is drawn again, where its chance is 1: exponential, so the first to come is a draw in proportion
        to the chances."""
        return random.Random(f"wait-{self.seed}-{index}-{nth}").expovariate(1)


def some_prompts(per_tag: int, seed: int) -> list[ScenePrompt]:
    """The project's prompts: `per_tag` training prompts of each tag, or all when it is 0."""
    pools = [prompts("train", tags=(tag,)) for tag in TAGS]
    rng = random.Random(f"prompts-{seed}")
    return [row for pool in pools for row in (rng.sample(list(pool), per_tag) if per_tag else pool)]


@dataclass(frozen=True)
class Run:
    """What a way of choosing came to: shares of groups with signal, mean spread, and which prompts it asked about."""

    signal: float
    spread: float
    prompts: int
    tags: Counter


def label(luck: Luck, power: float, noise: float, groups: int) -> Run:
    """Label `groups` groups one after the other."""
    chooser, shown = Chooser(luck.rows, power), Counter()
    waits = [luck.wait(i, 0) for i in range(len(luck.rows))]
    spreads, tags = [], Counter()
    for _ in range(groups):
        due = [
            (shown[i] + wait) / weight for i, (wait, weight) in enumerate(zip(waits, chooser.weights(), strict=True))
        ]
        index = min(range(len(due)), key=due.__getitem__)
        verdicts = luck.verdicts(index, shown[index])
        chooser.learn(index, luck.labels(index, shown[index], noise))
        share = sum(verdicts) / GROUP_SIZE
        spreads.append(4 * share * (1 - share))
        tags[luck.rows[index].tag] += 1
        shown[index] += 1
        waits[index] = luck.wait(index, shown[index])
    return Run(sum(s > 0 for s in spreads) / groups, statistics.mean(spreads), len(shown), tags)


def main() -> None:
    """Run every version, noise and way; print a row for each seed's result and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", nargs="+", default=["demo-student", "demo-after"])
    parser.add_argument("--groups", type=int, default=125)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--powers", type=float, nargs="+", default=[1.0, 3.0, 8.0])
    parser.add_argument(
        "--per-tag", type=int, default=0, help="prompts of each tag, drawn by the seed; 0: all there are"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    print("| version | labels flipped | prompts | groups with signal | SD | by seed | over evenly | SD | mean spread |")
    print("|---|---|---|---|---|---|---|---|---|")
    asked: dict[tuple[str, float, float], list[Run]] = {}
    for version in a.versions:
        lucks = [Luck(ROOT / "models" / version, some_prompts(a.per_tag, seed), seed) for seed in a.seeds]
        even = [label(luck, 0, 0, a.groups) for luck in lucks]
        ways = [(0.0, 0.0), *((noise, power) for noise in a.noise for power in a.powers)]
        for noise, power in ways:
            runs = [label(luck, power, noise, a.groups) for luck in lucks] if power else even
            asked[version, noise, power] = runs
            over = [run.signal - base.signal for run, base in zip(runs, even, strict=True)]
            name = f"chosen, power {power:g}" if power else "drawn evenly"
            cells = [version, f"{noise:.0%}" if power else "any", name, f"{_mean(r.signal for r in runs):.3f}"]
            cells += [f"{_spread([r.signal for r in runs]):.3f}", ", ".join(f"{r.signal:.3f}" for r in runs)]
            cells += [f"{_mean(over):+.3f}", f"{_spread(over):.3f}", f"{_mean(r.spread for r in runs):.3f}"]
            print("| " + " | ".join(cells) + " |", flush=True)
    print(f"\n| version | labels flipped | prompts | asked about | {' | '.join(TAGS)} |")
    print("|---|---|---|---|" + "---|" * len(TAGS))
    for (version, noise, power), runs in asked.items():
        name = f"chosen, power {power:g}" if power else "drawn evenly"
        counts = [f"{_mean(r.tags[tag] for r in runs):.0f}" for tag in TAGS]
        cells = [version, f"{noise:.0%}" if power else "any", name, f"{_mean(r.prompts for r in runs):.0f}", *counts]
        print("| " + " | ".join(cells) + " |")


def _mean(values) -> float:
    return statistics.mean(list(values))


def _spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
