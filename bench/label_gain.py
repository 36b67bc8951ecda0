"""What a default round of TDM-R1 makes of a given number of binary labels, on test prompts, seed by seed.

    python bench/label_gain.py --groups 24 125 --noise 0.1 --seeds 0 1 2

Simulated annotators label groups of 8 images of training prompts: the scene oracle's strict verdict, wrong with probability
`--noise`. The round has the app's default settings, its newest version is tested.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.gains import test_scores  # noqa: E402 - the repository is not installed
from trainer.cli import MODEL, STUDENT  # noqa: E402
from trainer.oracles import get_oracle  # noqa: E402
from trainer.rounds import RoundSpec, run_round  # noqa: E402
from trainer.sampler import Sampler, save_trajectory  # noqa: E402
from trainer.scenes.prompts import TAGS, prompts  # noqa: E402
from trainer.settings import TDMR1Settings  # noqa: E402

GROUP_SIZE = 8
LABEL_SEEDS = 500_000_000  # of the labelled images' noise; evaluation seeds start at 700,000,000


def label(count: int, noise: float, seed: int, folder: Path) -> tuple[Path, int]:
    """Sample and label `count` groups; returns the groups file and how many of them have both likes and dislikes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, oracle, sampler = random.Random(f"labels-{seed}"), get_oracle("scenes"), Sampler(MODEL)
    sampler.use_version(STUDENT)
    pools = [prompts("train", tags=(tag,)) for tag in TAGS]
    rows = []
    for i in range(count):
        row = rng.choice(pools[i % len(pools)])
        first = LABEL_SEEDS + 1_000_000 * seed + GROUP_SIZE * i
        group = sampler.sample_group(row.prompt, range(first, first + GROUP_SIZE))
        verdicts = oracle.score(group.images, [row.prompt] * GROUP_SIZE, [row.metadata] * GROUP_SIZE)
        save_trajectory(folder / f"{i}.safetensors", group, prompt=row.prompt, version="1")
        rewards = [float(v.liked != (rng.random() < noise)) for v in verdicts]
        line = {"group": str(i), "prompt": row.prompt, "metadata": row.metadata, "version": "1", "rewards": rewards}
        rows.append(line | {"trajectory_file": f"{i}.safetensors"})
    file = folder / "groups.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return file, sum(len(set(r["rewards"])) > 1 for r in rows)


def main() -> None:
    """Run every number of groups and seed; print the rows as JSON and a table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, nargs="+", default=[24, 125])
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--per-tag", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--settings", type=json.loads, default={}, help="JSON of settings that differ from the defaults"
    )
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "label-gain")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    before = test_scores(STUDENT, a.per_tag)
    print("| labels | seed | groups with signal | minutes | geneval | strict | reward |\n|---|---|---|---|---|---|---|")
    for count in a.groups:
        gains = []
        for seed in a.seeds:
            work = a.work / f"{count}-{seed}"
            file, signal = label(count, a.noise, seed, work / "groups")
            started = time.monotonic()
            run_round(
                RoundSpec(
                    model_dir=str(MODEL),
                    parent_dir=str(STUDENT),
                    work_dir=str(work),
                    output_dir=str(work / "version"),
                    train_prompts=[p.metadata for p in prompts("train", tags=TAGS)],
                    groups_file=str(file),
                    settings=TDMR1Settings(**{"seed": seed, "validation_images": 0, **a.settings}).to_json(),
                )
            )
            minutes = (time.monotonic() - started) / 60
            after = test_scores(work / "version", a.per_tag)
            gain = {name: after[name] - before[name] for name in ("geneval", "strict", "reward")}
            gains.append(gain)
            cells = [count * GROUP_SIZE, seed, signal, f"{minutes:.1f}", *(f"{v:+.3f}" for v in gain.values())]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        for name in gains[0]:
            values = [g[name] for g in gains]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            mean = statistics.mean(values)
            print(f"{count * GROUP_SIZE} labels, {name}: {mean:+.3f}, standard deviation {spread:.3f}", flush=True)


if __name__ == "__main__":
    main()
