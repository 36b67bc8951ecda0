"""The headline: how far the scene oracle takes the 4-step demo student in long rounds, beside its base at 40 and 80 steps.

    python -m bench.learning.headline --seeds 5 6 7

A run is one round or several, each from the version that the one before kept. `METHODS` has their settings, which were
chosen on validation prompts. A run goes on from its checkpoint when the command is given again, and `--parent` starts from
an earlier run's student. Scores are of test prompts and their own noise; training and validation prompts are others. Beside
the scores stand measures that no reward asked for. Finished parts are lines of WORK/runs.jsonl and are not made again.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure

from bench.harness import EVERY_STEP, Runs, add_work, heading, markdown, mean_row, svg, title
from bench.learning.controls import TITLES, prepare_control
from bench.learning.curves import draw_curves
from bench.learning.gains import oracle_spec, run_once, scores_and_looks, word_accuracy
from common.files import write_atomic
from common.settings import TDMR1Settings
from trainer.cli import STUDENT
from trainer.controls import KINDS
from trainer.demo.scenes.prompts import TAGS, WORD
from trainer.rounds import Progress

# Half the default rates, so that the student goes on learning where the default settles.
RATES = {"student_lr": 1e-4, "surrogate_lr": 2.5e-4, "fake_lr": 4e-4, "ema": 0.97}
METHODS = {
    "task_vector": {
        "method": "task_vector",
        "surrogate_lr": 5e-4,
        "surrogate_kl": 0.0,  # 0.25 holds a round that goes on for longer, and is behind until then
        "reference": "ema",
        "ema": 0.97,
        "noise_spread": 1.0,
        "cool_down": 0.0,
    },
    "negative_aware": {
        "method": "negative_aware",
        "student_lr": 1e-3,
        "ema": 0.97,
        "noise_spread": 1.0,
    },
    "tdm_r1": {"method": "tdm_r1", **RATES, **EVERY_STEP},
}
RUNS = {  # each round's method and number of updates
    "task_vector": (("task_vector", 200),),
    "two_rounds": (("task_vector", 200), ("negative_aware", 200)),
    "tdm_r1": (("tdm_r1", 520),),
}
VALIDATIONS = 8  # of a round: points of the curve
AFTER = "student after, 4 steps"
AFTER_SECOND = "student after a second round, 4 steps"
GUIDANCE = 4.0  # of the base; the student is never guided
SECTIONS = {
    "scores": ("strict", "geneval", "reward", WORD),
    "tags": TAGS,
    "looks": ("sharpness", "diversity", "overlap", "purity"),
}


def train(rounds: list[dict], seed: int, parent: Path, work: Path, control: str = "") -> tuple[Path, dict]:
    """Run or resume the rounds, unless they are done, by the oracle's scores or by a control of them; returns the last kept
    version's folder and what was spent on all."""
    spent = {"images_scored": 0, "seconds": 0.0, "curve": []}
    for number, chosen in enumerate(rounds):
        every = max(1, chosen["updates"] // VALIDATIONS)
        settings = TDMR1Settings(
            seed=seed + 100 * number,  # each round has prompts and noise of its own
            validation_images=288,
            validate_every=every,
            **chosen,
        )
        spec = oracle_spec(work / f"round-{number + 1}", settings, parent=parent, validation_per_tag=48)
        note = partial(_note, of=chosen["updates"])
        parent, now = run_once(spec, prepare=partial(prepare_control, kind=control), on_progress=note)
        before = spent["images_scored"]
        spent["curve"] += [point | {"images": before + point["images"]} for point in now.pop("curve")]
        for name, value in now.items():
            spent[name] += value
    return parent, spent


def _note(progress: Progress, of: int) -> None:
    shown = {k: round(v, 3) for k, v in progress.metrics.items() if k == "reward" or k.startswith("validation_")}
    print(f"update {progress.step} of {of}: {shown}", file=sys.stderr, flush=True)


def sections(lines: list[dict]) -> dict[str, str]:
    """The tables of the page by name: each part's scores, their mean over the trained seeds."""
    after = [line for line in lines if line["row"] == AFTER]
    found = {}
    for name, columns in SECTIONS.items():
        rows = [[title(line), *(f"{line['scores'][column]:.3f}" for column in columns)] for line in lines]
        if len(after) > 1:
            mean = [f"after, {len(after)} seeds: mean ± standard deviation", *mean_row(after, columns)]
            rows.insert(1 + max(k for k, line in enumerate(lines) if line in after), mean)
        found[name] = markdown(["", *map(heading, columns)], rows)
    return found


def plot(lines: list[dict]) -> Figure:
    """The validation's curves of the trained seeds and of the controls; base and parent are lines of the page's table."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    rows = dict.fromkeys(line["row"] for line in lines if "curve" in line)
    draw_curves(panels, {row: [line["curve"] for line in lines if line["row"] == row] for row in rows})
    panels[0].legend(loc="lower right", frameon=False)
    return figure


def main() -> None:
    """Run what is missing, print the table as Markdown and draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[5, 6, 7])
    parser.add_argument("--run", choices=RUNS, default="task_vector", help="which rounds")
    parser.add_argument("--updates", type=int, nargs="+", help="of each round, in place of the run's own")
    parser.add_argument("--parent", type=Path, default=STUDENT)
    parser.add_argument("--per-tag", type=int, default=96)
    parser.add_argument("--controls", nargs="*", choices=KINDS, default=KINDS, help="also from labels dealt out anew")
    parser.add_argument("--threads", type=int, default=2)
    add_work(parser, "headline")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    methods, updates = zip(*RUNS[a.run], strict=True)
    if a.updates and len(a.updates) != len(methods):
        parser.error(f"--updates: {a.run} has {len(methods)} rounds, so give {len(methods)} numbers")
    rounds = [METHODS[name] | {"updates": n} for name, n in zip(methods, a.updates or updates, strict=True)]
    made_with = {"parent": a.parent.name, "per_tag": a.per_tag, "rounds": rounds}
    runs = Runs(a.work, lambda row: made_with)

    def tested(lora: Path | None, **how) -> dict:
        words = word_accuracy(lora, a.per_tag, **how)
        return {"scores": {**scores_and_looks(lora, a.per_tag, **how), WORD: words}}

    def trained(seed: int, control: str = "") -> dict:
        version, spent = train(rounds, seed, a.parent, a.work / f"{control}{seed}", control)
        return {**spent, **tested(version)}

    runs.once("student before, 4 steps", None, lambda: tested(a.parent))
    for seed in a.seeds:
        runs.once(AFTER if len(rounds) == 1 else AFTER_SECOND, seed, lambda s=seed: trained(s))
        for kind in a.controls:
            runs.once(f"{TITLES[kind]}, 4 steps", seed, lambda s=seed, k=kind: trained(s, k))
    for steps in (40, 80):
        how = {"steps": steps, "guidance": GUIDANCE}
        runs.once(f"base, {steps} steps, guided", None, lambda h=how: tested(None, **h))
    for text in sections(runs.lines).values():
        print(f"{text}\n")
    write_atomic(a.work / "headline.svg", svg(plot(runs.lines)))
    after = [line for line in runs.lines if "seconds" in line]
    for line in after:
        print(f"\n{title(line)}: {line['images_scored']} scored images, {line['seconds'] / 60:.0f} minutes")


if __name__ == "__main__":
    main()
