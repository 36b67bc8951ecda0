"""How many labelled groups have something to teach when prompts are drawn evenly, and when they are chosen by it.

    python -m bench.learning.choice --versions demo-student demo-after --seeds 0 1 2

A group that everybody likes or dislikes teaches nothing. Simulated annotators label groups of eight images of training
prompts, the scene oracle's strict verdict with each label flipped at the probability of `--noise`. Chosen: by the rule of
`webapp.labelling.choice`, after each group anew, or by the same rule with another power. Evenly: each time a prompt that
was shown least, at random among equals. The prompts are all training prompts, two thirds of which are of one tag, or
with `--per-tag` so many of each tag.

Counted is the oracle's verdict, not the label: a flipped label is no signal. All ways of one seed share their luck: a
prompt's nth group is the same images and flips, and the nth draw has the same random numbers.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

from bench.harness import Runs, add_work, told
from bench.learning.gains import GROUP_SIZE
from trainer.cli import MODEL
from trainer.demo.scenes.prompts import TAGS, prompts
from trainer.oracles import get_oracle
from trainer.prompts import Prompt
from trainer.sampler import Sampler
from webapp.labelling.choice import POWER, chances, draw, spread

FIRST_SEED, SEEDS_APART, MOST_SHOWN = 540_000_000, 1_000_000, 64  # of the images' noise; below those of blind tests


class Luck:
    """What a seed decides, whoever asks: the images of a prompt's nth group, their verdicts, and flips."""

    def __init__(self, version: Path, rows: Sequence[Prompt], seed: int):
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


def some_prompts(per_tag: int, seed: int) -> list[Prompt]:
    """The project's prompts: `per_tag` training prompts of each tag, or all when it is 0."""
    pools = [prompts("train", tags=(tag,)) for tag in TAGS]
    rng = random.Random(f"prompts-{seed}")
    return [row for pool in pools for row in (rng.sample(list(pool), per_tag) if per_tag else pool)]


@dataclass(frozen=True)
class Asked:
    """What a way of choosing came to: shares of groups with signal, mean spread, and which prompts it asked about."""

    signal: float
    spread: float
    prompts: int
    tags: dict[str, int]


def label(luck: Luck, power: float, noise: float, groups: int) -> Asked:
    """Label `groups` groups one after the other; a power of 0 is an even draw."""
    tags, shown, rng = {i: row.tag for i, row in enumerate(luck.rows)}, Counter(), random.Random(f"draw-{luck.seed}")
    learned: list[tuple[int, float]] = []
    spreads = []
    for _ in range(groups):
        if power:
            (index,) = draw(chances(tags, learned, power=power), 1, rng)
        else:
            index = min(tags, key=lambda i: (shown[i], rng.expovariate(1)))
        verdicts = luck.verdicts(index, shown[index])
        learned.append((index, spread(luck.labels(index, shown[index], noise))))
        spreads.append(spread(verdicts))
        shown[index] += 1
    asked = Counter(tags[index] for index, _spread in learned)
    return Asked(sum(s > 0 for s in spreads) / groups, statistics.mean(spreads), len(shown), asked)


def main() -> None:
    """Run every version, noise and way; print a row for each seed's result and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", nargs="+", default=["demo-student", "demo-after"])
    parser.add_argument("--groups", type=int, default=125)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--powers", type=float, nargs="+", default=[1.0, POWER])
    parser.add_argument(
        "--per-tag", type=int, default=0, help="prompts of each tag, drawn by the seed; 0: all there are"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    add_work(parser, "choice")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    print("| version | labels flipped | prompts | groups with signal | SD | by seed | over evenly | SD | mean spread |")
    print("|---|---|---|---|---|---|---|---|---|")
    made_with = told(a, "versions", "noise", "powers", "seeds", "threads")
    kept = Runs(a.work, lambda row: made_with)
    asked: dict[tuple[str, float, float], list[Asked]] = {}
    for version in a.versions:
        lucks = [Luck(MODEL.with_name(version), some_prompts(a.per_tag, seed), seed) for seed in a.seeds]

        def labelled(power: float, noise: float, version=version, lucks=lucks) -> list[Asked]:
            row = f"{version}, power {power:g}, {noise:.0%} flipped"
            made = [
                kept.once(row, luck.seed, lambda k=luck: asdict(label(k, power, noise, a.groups))) for luck in lucks
            ]
            return [Asked(**{field.name: line[field.name] for field in fields(Asked)}) for line in made]

        even = labelled(0, 0)
        ways = [(0.0, 0.0), *((noise, power) for noise in a.noise for power in a.powers)]
        for noise, power in ways:
            runs = labelled(power, noise) if power else even
            asked[version, noise, power] = runs
            over = [run.signal - base.signal for run, base in zip(runs, even, strict=True)]
            name = f"chosen, power {power:g}" if power else "drawn evenly"
            cells = [version, f"{noise:.0%}" if power else "any", name, f"{_mean(r.signal for r in runs):.3f}"]
            cells += [f"{_sd([r.signal for r in runs]):.3f}", ", ".join(f"{r.signal:.3f}" for r in runs)]
            cells += [f"{_mean(over):+.3f}", f"{_sd(over):.3f}", f"{_mean(r.spread for r in runs):.3f}"]
            print("| " + " | ".join(cells) + " |", flush=True)
    print(f"\n| version | labels flipped | prompts | different ones | {' | '.join(TAGS)} |")
    print("|---|---|---|---|" + "---|" * len(TAGS))
    for (version, noise, power), runs in asked.items():
        name = f"chosen, power {power:g}" if power else "drawn evenly"
        counts = [f"{_mean(r.tags.get(tag, 0) for r in runs):.0f}" for tag in TAGS]
        cells = [version, f"{noise:.0%}" if power else "any", name, f"{_mean(r.prompts for r in runs):.0f}", *counts]
        print("| " + " | ".join(cells) + " |")


def _mean(values) -> float:
    return statistics.mean(list(values))


def _sd(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
