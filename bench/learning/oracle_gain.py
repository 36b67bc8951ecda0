"""What TDM-R1 from the scene oracle adds to the demo student on test prompts, seed by seed.

    python -m bench.learning.oracle_gain --seeds 0 1 2 --minutes 20

Training and validation prompts and their noise are disjoint from those of the test. A seed's run is stopped at `--minutes`,
validation included; what is tested is its newest validated version unless that was clearly worse than an earlier one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path

import torch

from bench.harness import START, Runs, add_work, markdown, spread, told
from bench.learning.gains import oracle_spec, test_scores
from common.round_folder import RoundFolder
from common.settings import TDMR1Settings
from trainer.cli import STUDENT
from trainer.rounds import RoundCancelled, run_round


def train(seed: int, minutes: float, updates: int, changes: dict, work: Path) -> tuple[Path, dict]:
    """One run; returns the folder of the version it kept, and its minutes, updates and scored images."""
    told = {"seed": seed, "updates": updates, "validation_images": 144, "validate_every": updates // 2}
    settings = TDMR1Settings.from_json({**told, **changes})
    spec = oracle_spec(work, settings)
    started, last = time.monotonic(), {}

    def note(progress) -> None:
        last["updates"] = progress.step

    with contextlib.suppress(RoundCancelled):
        run_round(spec, on_progress=note, should_stop=lambda: time.monotonic() > started + 60 * minutes)
    images = last["updates"] * settings.prompts_per_update * settings.group_size
    return RoundFolder(work).best, {
        "minutes": round((time.monotonic() - started) / 60, 1),
        **last,
        "scored_images": images,
    }


def main() -> None:
    """Run every seed and print the table as Markdown and the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--updates", type=int, default=80)
    parser.add_argument("--per-tag", type=int, default=96)
    parser.add_argument(
        "--settings", type=json.loads, default={}, help="JSON of settings that differ from the defaults"
    )
    parser.add_argument("--threads", type=int, default=2)
    add_work(parser, "oracle-gain")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    made_with = told(a, "seeds", "threads")
    runs = Runs(a.work, lambda row: made_with)
    before = runs.once(START, 0, lambda: {"scores": test_scores(STUDENT, a.per_tag)})["scores"]

    def trained(seed: int) -> dict:
        best, spent = train(seed, a.minutes, a.updates, a.settings, a.work / str(seed))
        return {**spent, "scores": test_scores(best, a.per_tag)}

    rows = [runs.once("trained", seed, lambda s=seed: trained(s)) for seed in a.seeds]
    for score in ("geneval", "strict", "reward"):
        gains = [row["scores"][score] - before[score] for row in rows]
        cells = [
            [str(row["seed"]), f"{before[score]:.3f}", f"{row['scores'][score]:.3f}", f"{gain:+.3f}"]
            for row, gain in zip(rows, gains, strict=True)
        ]
        print(f"\n{score}\n{markdown(['seed', 'before', 'after', 'gain'], cells)}")
        print(f"gain {spread(gains)} over {len(gains)} seeds")


if __name__ == "__main__":
    main()
