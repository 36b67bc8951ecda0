"""The headline for words: a round from the OCR oracle, of the shipped student and of one that was hardly distilled.

    python -m bench.learning.words --seeds 5 6 7 --updates 64

`--method` is one of the headline's, with its settings. The young student was distilled for few updates. `guidance alone` is
its run by TDM-R1 with a surrogate that learns nothing, in which the distillation merely goes on; what is only added to the
student has no such run. Training, validation and test words are disjoint. Beside the words stand the scene scores, which
nobody trained, and measures that no reward asked for. Finished parts are lines of WORK/runs.jsonl and are not made again.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from bench.harness import Runs, add_work, heading, markdown, mean_row, runs_of, title, told
from bench.learning.gains import oracle_spec, run_once, scores_and_looks, word_accuracy
from bench.learning.headline import METHODS
from common.settings import DistillSettings, TDMR1Settings
from trainer.cli import MODEL, STUDENT
from trainer.demo.scenes.prompts import WORD, prompts, sample_training_prompt
from trainer.methods.distill import distill

GUIDANCE = 4.0
COLUMNS = (WORD, "strict", "geneval", "sharpness", "diversity", "overlap", "purity")


def young_student(updates: int, work: Path) -> Path:
    """The demo student's distillation, stopped after few updates; its LoRA folder."""
    output = work / f"distilled-{updates}"
    if not output.exists():
        settings = DistillSettings(updates=updates, student_lr=3e-4, fake_lr=5e-4, ema=0.9)
        distill(MODEL, lambda rng: sample_training_prompt(rng).prompt, settings, work / f"distilling-{updates}", output)
    return output


def settings_of(method: str, updates: int) -> TDMR1Settings:
    """Those of every run, but for what a run changes and the seed."""
    more = {"surrogate_updates": 1, "validation_images": 0, "alarm": False, "cool_down": 0.75}
    return TDMR1Settings(updates=updates, **(METHODS[method] | more))


def train(parent: Path, settings: TDMR1Settings, work: Path) -> tuple[Path, dict]:
    """Run or resume, unless it is done; returns the version's folder and what was spent."""
    words = [p.metadata for p in prompts("train", tags=(WORD,))]
    spec = replace(
        oracle_spec(work, settings, parent=parent),
        train_prompts=words,
        validation=[],
        validation_oracle=None,
        reward_oracle="ocr",
    )
    return run_once(spec)


def sections(lines: list[dict]) -> dict[str, str]:
    """The table of the page: every part, then the mean of each kind over its seeds."""
    rows = []
    for line in lines:
        cells = [f"{line['scores'][column]:.3f}" for column in COLUMNS]
        spent = [f"{line['images_scored']:,}", f"{line['seconds'] / 60:.0f}"] if "seconds" in line else ["", ""]
        rows.append([title(line), *cells, *spent])
    for kind in ("young", "guidance alone", "shipped"):
        if len(runs := runs_of(lines, kind)) > 1:
            rows.append([f"{kind}, {len(runs)} seeds", *mean_row(runs, COLUMNS), "", ""])
    return {"scores": markdown(["", *map(heading, COLUMNS), "scored images", "minutes"], rows)}


def main() -> None:
    """Run what is missing and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[5, 6, 7])
    parser.add_argument("--method", choices=METHODS, default="task_vector")
    parser.add_argument("--students", nargs="+", choices=("young", "shipped"), default=["young", "shipped"])
    parser.add_argument("--updates", type=int, default=64)
    parser.add_argument("--young", type=int, default=30, help="distillation updates of the young student")
    parser.add_argument("--words", type=int, default=192, help="test images of words")
    parser.add_argument("--per-tag", type=int, default=48, help="test images a tag of scenes")
    parser.add_argument("--threads", type=int, default=2)
    add_work(parser, "words")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    settings = settings_of(a.method, a.updates)
    made_with = {**told(a, "seeds", "threads", "students"), "settings": settings.to_json()}
    runs = Runs(a.work, lambda row: made_with)

    def tested(lora: Path | None, **how) -> dict:
        words = word_accuracy(lora, a.words, **how)
        return {"scores": {**scores_and_looks(lora, a.per_tag, **how), WORD: words}}

    def trained(parent: Path, seed: int, changes: dict, folder: str) -> dict:
        version, spent = train(parent, replace(settings, seed=seed, **changes), a.work / folder)
        return {**spent, **tested(version)}

    kinds = []
    if "young" in a.students:
        young = young_student(a.young, a.work)
        kinds.append(("young", young, {}))
        if a.method == "tdm_r1":
            kinds.append(("guidance alone", young, {"surrogate_lr": 0.0}))
        runs.once("young, before", None, lambda: tested(young))
    if "shipped" in a.students:
        kinds.append(("shipped", STUDENT, {}))
        runs.once("shipped, before", None, lambda: tested(STUDENT))
    for seed in a.seeds:
        for kind, parent, changes in kinds:
            folder = f"{kind.replace(' ', '-')}-{seed}"
            runs.once(kind, seed, lambda p=parent, s=seed, c=changes, f=folder: trained(p, s, c, f))
    for steps in (40, 80):
        how = {"steps": steps, "guidance": GUIDANCE}
        runs.once(f"base, {steps} steps, guided", None, lambda h=how: tested(None, **h))
    print(sections(runs.lines)["scores"])


if __name__ == "__main__":
    main()
