"""How well the images of a group can be ranked from a number of labels, by what the frozen base sees in them.

    python -m bench.learning.heads --seeds 0 1 2 --threads 1

Share of right pairs (liked before disliked, by the strict oracle) within groups of the demo student that were not learned
from: by the base's denoising error alone, lower first, which needs no label; by what the prompt explains of it; by the head
of `economy.py` from binary labels of which one in ten is wrong; and by the surrogate's likelihood gain after the
updates of a round by the app's default settings from such labels; beside what people's labels of these groups would say.
One half is chance.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bench.harness import Runs, add_work, told
from bench.learning import economy
from bench.learning.gains import GROUP_SIZE, oracle_spec
from bench.learning.people import PEOPLE, RatedGroup, shares, votes_of, weighed
from common.settings import TDMR1Settings
from common.signal import has_signal
from trainer.advantages import pairs_right
from trainer.backends import load_backend
from trainer.cli import MODEL, STUDENT
from trainer.data import LabelledGroup, load_groups
from trainer.demo.scenes.prompts import TAGS
from trainer.methods.base import rate_factor
from trainer.methods.tdm_r1 import TDMR1
from trainer.rounds import prepare
from trainer.rounds.sources import generator_of
from trainer.watch.looks import opinions

LABELS = (  # what labels of the ranked groups themselves say: name, people, weighed
    ("one person's own labels, one in ten wrong", "one", False),
    ("share of likes of two people, 5% and 30% wrong", "two", False),
    ("the same two, weighed by their answers to 64 gold images", "two", True),
)


def ranked(opinions: list[list[float]], rated: list[RatedGroup]) -> dict[str, float]:
    """Mean share of right pairs over groups, in each of which images truly differ: of all, and of each tag."""
    found = defaultdict(list)
    for opinion, group in zip(opinions, rated, strict=True):
        liked = torch.tensor([group.liked]).double()
        right = pairs_right(torch.tensor([opinion], dtype=torch.float64), liked, torch.ones_like(liked).bool())
        for name in ("all", group.metadata["tag"]):
            found[name].append(right)
    return {name: statistics.mean(values) for name, values in found.items()}


def surrogate_of(groups: list[LabelledGroup], seed: int, work: Path) -> TDMR1:
    """A surrogate that has learned from the groups as in a round of the default settings, the student left as it is."""
    settings = TDMR1Settings(seed=seed, validation_images=0, alarm=False)
    economy.write_groups(groups, work / "groups.jsonl")
    spec = replace(oracle_spec(work, settings), reward_oracle=None, groups_file=str(work / "groups.jsonl"))
    made = prepare(spec)
    for step in range(settings.updates):
        made.method.set_rate_factor(rate_factor(step, settings.updates, settings.cool_down))
        generator = generator_of(settings, step)
        for groups in made.source.batches(generator):
            made.method.learn(groups, generator)
    return made.method


def measure(seed: int, labelled: list[int], taught: list[int], tested: int, work: Path) -> dict[str, dict[str, float]]:
    """Every way's shares with one seed's groups and errors; the last `tested` groups are never learned from."""
    folder = work / f"rated-{GROUP_SIZE}-1.0-{seed}"
    rated = economy.rated_groups(STUDENT, max(labelled + taught) + tested, GROUP_SIZE, 1.0, seed, folder)
    votes = [votes_of(PEOPLE["one"], group, seed) for group in rated]
    groups = economy.labelled(rated, shares(votes))
    x = economy.features_of(load_backend(MODEL), groups)
    differing = [i for i in range(len(rated) - tested, len(rated)) if has_signal(rated[i].liked)]
    truth, last = [rated[i] for i in differing], [x[i] for i in differing]
    store = load_groups(economy.labelled(truth, [[float(liked) for liked in group.liked] for group in truth]))
    found = {
        "error with the prompt, no labels": ranked([(-part[:, 0] - part[:, 3]).tolist() for part in last], truth),
        "what the prompt explains, no labels": ranked([(part[:, 2] + part[:, 5]).tolist() for part in last], truth),
    }
    for name, kind, weigh in LABELS:
        people = PEOPLE[kind]
        said = [votes_of(people, group, seed) for group in truth]
        found[name] = ranked(weighed(people, said, seed) if weigh else shares(said), truth)
    for count in labelled:
        y = [torch.tensor(group.rewards) for group in groups[:count]]
        head = economy.Head(x[:count], y)
        found[f"head, {count * GROUP_SIZE:,} labels"] = ranked([head(part).tolist() for part in last], truth)
    for count in taught:
        with TemporaryDirectory() as folder:
            trainer = surrogate_of(groups[:count], seed, Path(folder))
        name = f"surrogate after a round, {count * GROUP_SIZE:,} labels"
        found[name] = ranked(opinions(trainer, store, torch.arange(len(store))), truth)
    return found


def main() -> None:
    """Measure every seed and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--groups", type=int, nargs="+", default=[12, 37, 125, 375], help="labelled groups of eight")
    parser.add_argument(
        "--taught", type=int, nargs="*", default=[125], help="labelled groups that a surrogate learns from"
    )
    parser.add_argument("--tested", type=int, default=125, help="groups to rank")
    parser.add_argument("--threads", type=int, default=2)
    add_work(parser, "heads")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    made_with = told(a, "seeds", "threads")
    kept = Runs(a.work, lambda row: made_with)
    runs = [
        kept.once("heads", seed, lambda s=seed: {"right": measure(s, a.groups, a.taught, a.tested, a.work)})["right"]
        for seed in a.seeds
    ]
    print(f"| ranked by | right pairs | SD | {' | '.join(TAGS)} |\n|{'---|' * (len(TAGS) + 3)}")
    for name in runs[0]:
        means = [run[name]["all"] for run in runs]
        spread = statistics.stdev(means) if len(means) > 1 else 0.0
        cells = [f"{statistics.mean(run[name].get(tag, float('nan')) for run in runs):.2f}" for tag in TAGS]
        print(f"| {name} | {statistics.mean(means):.3f} | {spread:.3f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
