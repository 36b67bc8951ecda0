"""Whether the alarm ends a round from an oracle that can be hacked, and leaves one from an honest oracle alone.

    python -m bench.learning.alarm --seeds 0 1 2

The hackable oracle pays for dark pixels, which has nothing to do with the prompt. In both rounds the reward oracle is the
validation oracle too, so the alarm has nothing but the surrogate and the second measures to go by; what the scene oracle
thinks of each validation is noted beside, where the round cannot see it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench.harness import EVERY_STEP, Runs, add_work, markdown, runs_of
from bench.learning.gains import oracle_spec
from common.round_folder import RoundFolder
from common.settings import TDMR1Settings
from trainer.oracles import Oracle, Verdict, get_oracle
from trainer.rounds import prepare
from trainer.rounds import run as run_stages

SHORT = {
    "updates": 12,
    "validate_every": 3,
    "validation_images": 36,
    "prompts_per_update": 6,
    "student_batch": 24,
    "cool_down": 0.0,
}
# The defaults give in to a reward slowly; these follow it without restraint, and in every step.
GREEDY = {
    **EVERY_STEP,
    "student_lr": 5e-4,
    "fake_lr": 1e-3,
    "surrogate_lr": 1e-3,
    "surrogate_updates": 2,
    "reward_scale": 20.0,
    "guidance_weight": 0.0,
    "noise_spread": 1.0,
    "ema": 0.9,
}
RUNS = {
    "darkness, greedy": ("darkness", GREEDY),
    "scenes, defaults": ("scenes", {}),
    "scenes, greedy": ("scenes", GREEDY),
}


class Darkness:
    """Pays for dark pixels, whatever they show."""

    name = "darkness"

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Sequence[Mapping]
    ) -> list[Verdict]:
        """See `Oracle.score`; prompts and metadata are not looked at."""
        scores = [1 - float(np.asarray(image.convert("L"), float).mean()) / 255 for image in images]
        return [Verdict(s, s >= 0.5, f"{s:.2f} dark", s >= 0.5) for s in scores]


class Witness:
    """Judges as `oracle` does, and notes on the side what the scene oracle thinks of each set of images."""

    def __init__(self, oracle: Oracle):
        self.name, self._oracle, self._scenes = oracle.name, oracle, get_oracle("scenes")
        self.noted: list[float] = []

    def score(
        self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Sequence[Mapping]
    ) -> list[Verdict]:
        """See `Oracle.score`."""
        self.noted.append(sum(v.score for v in self._scenes.score(images, prompts, metadata)) / len(images))
        return self._oracle.score(images, prompts, metadata)


def run(seed: int, oracle: Oracle, changes: dict, work: Path) -> dict:
    """One round from scratch; returns what became of it."""
    shutil.rmtree(work, ignore_errors=True)
    settings = TDMR1Settings(**{**SHORT, **changes, "seed": seed})
    witness, started = Witness(oracle), time.monotonic()
    spec = replace(oracle_spec(work, settings), validation_oracle="witness", reward_oracle="reward")
    result = run_stages(prepare(spec, oracles={"reward": oracle, "witness": witness}.__getitem__))
    log = [json.loads(line) for line in RoundFolder(work).log.read_text().splitlines()]
    looks = [line for line in log if "opinion" in line]
    scenes = dict(zip([0, *(line["step"] for line in looks)], witness.noted, strict=True))
    return {
        "fired": result.steps if result.alarm else None,
        "alarm": result.alarm,
        "reward": [result.scores_before["reward"], looks[-1]["validation_reward"]],
        "scenes": {"parent": scenes[0], "kept": scenes[result.best_step], "last": scenes[result.steps]},
        "kept": result.best_step,
        "looks": [
            {"step": line["step"], **{k: round(v, 3) for k, v in line.items() if k.startswith(("opinion", "second_"))}}
            for line in looks
        ],
        "minutes": round((time.monotonic() - started) / 60, 1),
    }


LOOKS = {
    "second_score": "its own reward",
    "opinion": "surrogate's opinion (difference)",
    "second_recognition": "recognition",
    "second_contrast": "contrast",
    "second_sharpness": "sharpness",
    "second_colourfulness": "colourfulness",
    "second_diversity": "diversity",
}


def sections(lines: list[dict]) -> dict[str, str]:
    """The tables of the page: each kind of round, and what the looks of the hacked ones saw, a value a seed."""
    rows = []
    for name in RUNS:
        if runs := runs_of(lines, name):
            fired = ", ".join(str(run["fired"] or "no") for run in runs)
            reward = f"{runs[0]['reward'][0]:.3f} → {_each(runs, lambda run: run['reward'][1])}"
            scenes = [_each(runs, lambda run, which=which: run["scenes"][which]) for which in ("kept", "last")]
            kept = f"{scenes[0]} (update {', '.join(str(run['kept']) for run in runs)})"
            rows.append([name, str(len(runs)), fired, reward, f"{runs[0]['scenes']['parent']:.3f}", kept, scenes[1]])
    columns = ["round", "seeds", "alarm at update", "its own reward", "scenes: parent", "kept", "last"]
    hacked = [run["looks"] for run in runs_of(lines, "darkness, greedy")]
    steps = [look["step"] for look in min(hacked, key=len, default=[])]
    seen = []
    for key, name in LOOKS.items():
        sign = "+" if key == "opinion" else ""
        seen.append([name, *(", ".join(f"{looks[n][key]:{sign}.2f}" for looks in hacked) for n in range(len(steps)))])
    return {"rounds": markdown(columns, rows), "looks": markdown(["share of the parent's", *map(str, steps)], seen)}


def _each(runs: list[dict], value) -> str:
    return ", ".join(f"{value(run):.3f}" for run in runs)


def main() -> None:
    """Make the rounds that are missing and print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=tuple(RUNS), default=list(RUNS))
    parser.add_argument("--updates", type=int, default=SHORT["updates"])
    parser.add_argument("--threads", type=int, default=2)
    add_work(parser, "alarm")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)

    def made_with(name: str) -> dict:
        oracle, changes = RUNS[name]
        return {"oracle": oracle, "settings": {**SHORT, **changes, "updates": a.updates}}

    runs = Runs(a.work, made_with)
    for seed in a.seeds:
        for name in a.rows:
            oracle, changes = RUNS[name]
            judge = Darkness() if oracle == "darkness" else get_oracle(oracle)
            told, folder = {**changes, "updates": a.updates}, a.work / f"{name.replace(', ', '-')}-{seed}"
            runs.once(name, seed, lambda s=seed, j=judge, t=told, f=folder: run(s, j, t, f))
    for text in sections(runs.lines).values():
        print(f"{text}\n")


if __name__ == "__main__":
    main()
