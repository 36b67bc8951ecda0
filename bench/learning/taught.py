"""What a surrogate learns from labels, before any student follows it: the cheapest measure of a base, of labels and of
surrogates.

    python -m bench.learning.taught --labels 4000 --seeds 0 --threads 2

Each row teaches a surrogate with the same labels of the student's groups, by a simulated person who does not err, or with
these labels dealt out anew (`trainer.controls`). Then the base draws validation prompts in 20 steps, with guidance 4 and
with what the surrogate learned, at each of `--strengths`. If labels in the order of the base's own error teach as much
as true ones, labels have nothing to teach this base.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from bench.harness import START, heading, make_missing, markdown, parser_of_rows, runs_of, spread, told
from bench.learning.controls import TITLES
from bench.learning.economy import write_groups
from bench.learning.gains import oracle_spec
from bench.learning.label_economy import Row as Labels
from bench.learning.label_economy import collect
from common.settings import TDMR1Settings
from trainer.backends import Backend, load_backend
from trainer.cli import MODEL, STUDENT
from trainer.controls import write_control
from trainer.demo.scenes.prompts import TAGS, evaluation_prompts
from trainer.evaluate import evaluate
from trainer.methods.base import Method
from trainer.methods.tdm_r1 import TAUGHT_GUIDANCE, TAUGHT_STEPS
from trainer.oracles import get_oracle
from trainer.rounds import prepare
from trainer.sampler import Sampler

COLUMNS = ("strict", "geneval", "reward")
ONCE = {"updates": 2, "surrogate_first": 0.5}  # a head is fitted before the first update, which is all that it needs


@dataclass(frozen=True)
class Row:
    """A surrogate and how it is taught; `control` deals the labels out anew."""

    title: str
    settings: dict = field(default_factory=dict)
    control: str = ""


KINDS = {
    "likelihood": ("likelihood", {"updates": 120, "surrogate_first": 0.5}),
    "head": ("head", {**ONCE, "surrogate": "head"}),
}
ROWS = {
    f"{name}_{control}" if control else name: Row(f"{said}, {TITLES[control]}" if control else said, how, control)
    for control in ("", *TITLES)
    for name, (said, how) in KINDS.items()
}


def teach(row: Row, seed: int, labels: int, changes: Mapping, work: Path) -> Method:
    """The method whose surrogate learned from the row's labels; its student never moved."""
    groups = collect(Labels("", labels, people="sure"), seed, STUDENT, labels, work / f"rated-{seed}")
    file = work / f"groups-{row.control or 'true'}-{seed}.jsonl"
    write_groups(groups, file)
    if row.control:
        write_control(groups, file, row.control, backend=load_backend(MODEL), seed=seed)
    quiet = {"validation_images": 0, "alarm": False, "seed": seed}
    settings = TDMR1Settings.from_json({**quiet, **changes, **row.settings})
    folder = work / f"{row.title}-{seed}".replace(" ", "-")
    spec = replace(oracle_spec(folder, settings, parent=STUDENT), reward_oracle=None, groups_file=str(file))
    made = prepare(spec)
    for number in range(settings.updates_alone):
        made.step(number)
    return made.method


def drawn(backend: Backend, per_tag: int, **how) -> dict[str, float]:
    """Scores of validation prompts, drawn in as many steps as a surrogate is sampled in."""
    rows = evaluation_prompts("validation", per_tag, tags=TAGS)
    scores = evaluate(backend, rows, get_oracle("scenes"), bf16=True, steps=TAUGHT_STEPS, **how).scores
    return {name: scores[name] for name in COLUMNS}


def sections(lines: list[dict]) -> dict[str, str]:
    """The table of the page by its name: the base's scores, then each row's gains over them by strength."""
    (start,) = runs_of(lines, START)
    strengths = sorted({s for line in lines if line["row"] != START for s in line["drawn"]}, key=float)
    heads = [f"{heading(c)}, strength {s}" for s in strengths for c in COLUMNS]
    rows = [["the base, guided", "", *[f"{start['scores'][c]:.3f}" for c in COLUMNS] * len(strengths)]]
    for name, row in ROWS.items():
        if mine := runs_of(lines, name):
            cells = [
                spread([line["drawn"][s][c] - start["scores"][c] for line in mine]) for s in strengths for c in COLUMNS
            ]
            rows.append([row.title, str(len(mine)), *cells])
    return {"taught": markdown(["surrogate", "seeds", *heads], rows)}


def main() -> None:
    """Make what is missing and print the table as Markdown."""
    parser = parser_of_rows(__doc__, ROWS, Path("runs") / "taught")
    parser.add_argument("--labels", type=int, default=1000, help="images rated (default: %(default)s)")
    parser.add_argument("--strengths", type=float, nargs="+", default=[1.0, 4.0])
    parser.set_defaults(per_tag=48)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    made_with = told(a, "rows", "seeds", "threads", "table")

    def make(name: str, seed: int) -> dict:
        if name == START:
            return {"scores": drawn(Sampler(MODEL).backend, a.per_tag, guidance=TAUGHT_GUIDANCE)}
        started = time.monotonic()
        method = teach(ROWS[name], seed, a.labels, a.settings, a.work)
        minutes = round((time.monotonic() - started) / 60, 2)
        by_strength = {
            f"{s:g}": drawn(method.backend, a.per_tag, sample=partial(method.sample_taught, strength=s))
            for s in a.strengths
        }
        return {"minutes": minutes, "drawn": by_strength}

    print(sections(make_missing(parser, a, lambda row: made_with, make))["taught"])


if __name__ == "__main__":
    main()
