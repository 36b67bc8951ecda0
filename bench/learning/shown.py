"""What is gained by making 24 images of a group and showing the 8 that tell most, and whether estimates stay right.

    python -m bench.learning.shown --seeds 0 1 2

No model and no people: an image is a point of sixteen numbers in one of a prompt's four clusters, and whether it is liked
depends on its cluster and on chance. The surrogate's opinion is the chance to be liked with noise, or noise alone. The
choice is the product's (`trainer.showing`). Counted are groups with signal, their spread (`webapp.labelling.choice`), and
three estimates of the like rate of all images made: the plain mean of those shown, Horvitz and Thompson's over the number
made, and over the weights' sum, which is what the product uses.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np

from bench.harness import Runs, add_work, markdown, runs_of, spread, told
from common.signal import has_signal
from trainer.showing import choose
from webapp.labelling import choice

MADE, SHOWN, SIZE, CLUSTERS = 24, 8, 16, 4
# How far the surrogate's opinion is the truth: weight of the chance to be liked beside unit noise; None: not asked.
ALL = {"8 made, all shown": SHOWN, "24 made, all shown": MADE}  # nobody rates 24: it is what no choice can pass
ROWS = {
    **dict.fromkeys(ALL),
    "24 made, by latents": None,
    "24 made, by latents and an opinion that knows nothing": 0.0,
    "24 made, by latents and a fair opinion": 2.0,
    "24 made, by latents and a good opinion": 6.0,
}


def prompt(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A prompt's images: latents (M, SIZE), chances to be liked (M,), likes (M,). Some prompts are nearly always right."""
    centres, ease = 2 * rng.normal(size=(CLUSTERS, SIZE)), rng.normal(1, 2)
    liked_of = 1 / (1 + np.exp(-(ease + rng.normal(0, 2, size=CLUSTERS))))
    cluster = rng.choice(CLUSTERS, size=MADE, p=rng.dirichlet(np.ones(CLUSTERS)))
    latents = centres[cluster] + rng.normal(size=(MADE, SIZE))
    chance = liked_of[cluster]
    return latents, chance, (rng.random(MADE) < chance).astype(float)


def run(row: str, seed: int, groups: int) -> dict:
    """The means over groups, and each estimate's mean error and the standard deviation of its errors."""
    signal, spreads, errors = [], [], {"plain": [], "exact": [], "used": []}
    for n in range(groups):
        rng = np.random.default_rng([seed, n])
        latents, chance, liked = prompt(rng)
        noise = rng.normal(size=MADE)
        if row in ALL:
            images, inclusion = list(range(ALL[row])), None
        else:
            knows = ROWS[row]
            opinion = None if knows is None else knows * (chance - chance.mean()) / (chance.std() + 1e-6) + noise
            shown = choose(latents, opinion, SHOWN, rng)
            images, inclusion = list(shown.images), shown.inclusion
        rewards, truth = liked[images].tolist(), liked.mean()
        signal.append(has_signal(rewards))
        spreads.append(choice.spread(rewards))
        weights = np.full(len(images), MADE / len(images)) if inclusion is None else 1 / np.array(inclusion)
        errors["plain"].append(statistics.mean(rewards) - truth)
        errors["exact"].append(float((weights * rewards).sum()) / MADE - truth)
        errors["used"].append(choice.share(rewards, inclusion) - truth)
    return {
        "signal": sum(signal) / groups,
        "spread": statistics.mean(spreads),
        "bias": {name: float(np.mean(values)) for name, values in errors.items()},
        "error": {name: float(np.std(values)) for name, values in errors.items()},
    }


def sections(lines: list[dict]) -> dict[str, str]:
    """The page's tables: what groups tell, and how far estimates are off."""
    told_of, off = [], []
    for row in ROWS:
        runs = runs_of(lines, row)
        if runs:
            told_of.append([row, *(spread([r[name] for r in runs], "-") for name in ("signal", "spread"))])
            names = ("plain", "exact", "used")
            cells = [(spread([r["bias"][n] for r in runs]), spread([r["error"][n] for r in runs], "-")) for n in names]
            off.append([row, *(cell for pair in cells for cell in pair)])
    columns = [f"{name}: {what}" for name in ("plain mean", "over 24", "over the weights") for what in ("bias", "SD")]
    return {
        "shown": markdown(["images", "groups with signal", "mean spread"], told_of),
        "estimates": markdown(["images", *columns], off),
    }


def main() -> None:
    """Make the runs that are missing and print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--groups", type=int, default=500)
    add_work(parser, "shown")
    a = parser.parse_args()
    made_with = told(a, "seeds")
    kept = Runs(Path(a.work), lambda row: made_with)
    for row in ROWS:
        for seed in a.seeds:
            kept.once(row, seed, lambda r=row, s=seed: run(r, s, a.groups))
    for table in sections(kept.lines).values():
        print(f"{table}\n")


if __name__ == "__main__":
    main()
