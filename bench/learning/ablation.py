"""TDM-R1 with one part changed at a time, and other methods, on one student, its prompts and as many scored images.

    python -m bench.learning.ablation --seeds 0 1 2 --threads 1

Every finished run of a row and seed is a line of WORK/runs.jsonl and is not made again; a run that was cut off goes on from
its checkpoint. `--rows` picks rows, `--table` only prints the table of what is there and draws WORK/ablation.svg. Every row
starts from the demo student and draws the same training prompts and first noise for a seed (Flow-GRPO's noise is its own);
the version that is tested is chosen by the same validation, whose scores on the way are drawn as curves (`--looks` says at
how many places). Rates and options were chosen on validation prompts, one seed.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch
from matplotlib.figure import Figure

from bench.harness import EVERY_STEP, START, heading, make_missing, parser_of_rows, runs_of, spread, svg, with_starts
from bench.learning import controls, peers
from bench.learning.curves import curve_of, draw_curves
from bench.learning.gains import oracle_spec, scores_and_looks
from bench.learning.peers import PeerSettings
from common.files import write_atomic
from common.round_folder import RoundFolder
from common.settings import TDMR1Settings
from trainer.cli import STUDENT
from trainer.demo.scenes.prompts import TAGS
from trainer.methods.base import Method
from trainer.rounds import RoundSpec, Stages, prepare, run

COLUMNS = ("strict", "geneval", "reward", "sharpness", "diversity")


@dataclass(frozen=True)
class Row:
    """A way to train: its name in the table, its method if no round offers it, and what differs from the defaults of both
    settings classes. `phases` passes through as many updates, of which only the first has its images scored; `control`
    deals the scores out as `bench.learning.controls` says."""

    title: str
    method: type[Method] | None = None
    changes: dict = field(default_factory=dict)
    phases: int = 1
    control: str = ""


ROWS = {
    "tdm_r1": Row("TDM-R1, reward at every step, frozen reference", changes=EVERY_STEP),
    **{kind: Row(f"the same, {said}", changes=EVERY_STEP, control=kind) for kind, said in controls.TITLES.items()},
    "shipped": Row("as shipped: reward at the first two steps, in half of the images"),
    "head": Row(
        "reward by a head, every step, and 512 images before",
        changes={**EVERY_STEP, "surrogate": "head", "head_groups": 64},
    ),
    "ema": Row("dynamic reference", changes={**EVERY_STEP, "reference": "ema"}),
    "refresh": Row("hard refresh of the reference", peers.HardRefresh, {**EVERY_STEP, "reference": "ema"}),
    "pretrained": Row("frozen reward, trained before", changes={**EVERY_STEP, "surrogate_first": 0.5}, phases=2),
    "stochastic": Row("stochastic sampling", peers.Stochastic, EVERY_STEP),
    "student": Row("group preference on the student (DGPO), no surrogate", changes={"method": "dgpo"}),
    "negative_aware": Row("DiffusionNFT, no surrogate", changes={"method": "negative_aware"}),
    "distilled_student": Row("DGPO while the distillation goes on", peers.DistilledPreference),
    # The authors' rate of 3e-4 is for nine times as many images an update; with 128 the student only gets worse.
    "flow_grpo": Row("Flow-GRPO", changes={"method": "flow_grpo", "noise_spread": 1.0, "student_lr": 1e-4}),
    "best": Row("best of group, flow matching", changes={"method": "best_of_group"}),
    "sibling": Row("best of group as the reward's target", peers.Siblings, EVERY_STEP),
}


def settings_of(changes: dict, **more) -> tuple[TDMR1Settings, PeerSettings]:
    """Both settings from one set of changes. Raises SettingsError, naming the field, on one that neither has."""
    own = {f.name for f in fields(PeerSettings)}
    peer = {k: v for k, v in changes.items() if k in own}
    rest = {k: v for k, v in changes.items() if k not in own}
    return TDMR1Settings.from_json({**more, **rest}), PeerSettings.from_json(peer)


def settings_of_row(row: Row, images: int, changes: dict, looks: int = 2) -> tuple[TDMR1Settings, PeerSettings]:
    """Both settings of a row's runs, seed apart, which are validated in `looks` places."""
    scored = TDMR1Settings.from_json({k: v for k, v in changes.items() if k in ("prompts_per_update", "group_size")})
    updates = row.phases * max(1, images // (scored.prompts_per_update * scored.group_size))
    return settings_of(
        {"surrogate_updates": 1, **changes, **row.changes},
        updates=updates,
        validation_images=144,
        validate_every=max(1, updates // looks),
        alarm=False,  # every row makes all its updates, and some have no surrogate to ask
    )


def prepare_row(row: Row, spec: RoundSpec, peer: PeerSettings) -> Stages:
    """A row's round, ready to run."""
    made = prepare(spec, make_method=row.method)
    made.method.peer = peer
    return controls.deal_out(made, row.control) if row.control else made


def train(row: Row, seed: int, images: int, changes: dict, looks: int, work: Path) -> tuple[Path, dict]:
    """Run or resume a row; returns the folder of the version it kept, and what was spent."""
    settings, peer = settings_of_row(row, images, changes, looks)
    made = prepare_row(row, oracle_spec(work, replace(settings, seed=seed)), peer)
    run(made)
    state = made.state
    spent = {"minutes": round(state.seconds / 60, 1), "scored_images": state.images_scored, "updates": settings.updates}
    curve = curve_of(RoundFolder(work), state.scores_before, settings.prompts_per_update * settings.group_size)
    return RoundFolder(work).best, spent | {"best_step": state.best_step, "curve": curve}


def gains(lines: list[dict], name: str, column: str) -> list[float]:
    """What each seed of a row gained over the student that all started from."""
    return [run["scores"][column] - start["scores"][column] for run, start in with_starts(lines) if run["row"] == name]


def table(lines: list[dict]) -> str:
    """Gains over the untrained student as Markdown: a line a row with mean and standard deviation over its seeds, then
    the same of every tag's benchmark score."""
    out = [f"| row | seeds | {' | '.join(map(heading, COLUMNS))} | minutes |", "|---" * (len(COLUMNS) + 3) + "|"]
    tags = ["", f"| benchmark by tag | {' | '.join(TAGS)} |", "|---" * (len(TAGS) + 1) + "|"]
    for line in lines:
        if line["row"] == START:
            scores, count = line["scores"], sum(start is line for _, start in with_starts(lines))
            out.append(f"| before, of {count} runs | | {' | '.join(f'{scores[c]:.3f}' for c in COLUMNS)} | |")
            tags.append(f"| before, of {count} runs | {' | '.join(f'{scores[t]:.3f}' for t in TAGS)} |")
    for name, row in ROWS.items():
        if runs := [line for line in lines if line["row"] == name]:
            cells = [spread(gains(lines, name, c)) for c in COLUMNS]
            minutes = statistics.median(r["minutes"] for r in runs)
            out.append(f"| {row.title} | {len(runs)} | {' | '.join(cells)} | {minutes:.0f} |")
            tags.append(f"| {row.title} | {' | '.join(spread(gains(lines, name, t)) for t in TAGS)} |")
    return "\n".join([*out, *tags])


def plot(lines: list[dict]) -> Figure:
    """A panel each for the strict score, the benchmark's and the sharpness: a dot a seed, a bar for the mean, relative to
    the untrained student. Below, where runs were looked at on their way, the validation's curves of every row."""
    shown = [(name, row.title) for name, row in ROWS.items() if any(line["row"] == name for line in lines)]
    found = {title: [run["curve"] for run in runs_of(lines, name) if "curve" in run] for name, title in shown}
    found = {title: curves for title, curves in found.items() if curves}
    height = 0.6 + 0.36 * len(shown)
    figure = Figure(figsize=(12, height + 5 * bool(found)), layout="constrained")
    if found:
        top, bottom = figure.subfigures(2, 1, height_ratios=(height, 5))
        ways = bottom.subplots(1, 2, sharey=True)
        draw_curves(ways, found)
        bottom.legend(*ways[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    else:
        top = figure
    panels = top.subplots(1, 3, sharey=True, squeeze=False)[0]
    for panel, column in zip(panels, ("strict", "geneval", "sharpness"), strict=True):
        for y, (name, _) in enumerate(shown):
            gained = gains(lines, name, column)
            panel.barh(y, statistics.mean(gained), height=0.5, color="#9bc1e6")
            panel.scatter(gained, [y] * len(gained), s=22, color="#1f5a96", zorder=3)
        panel.axvline(0, color="#999", linewidth=1)
        panel.set_title(f"gain: {heading(column)}")
    panels[0].set_yticks(range(len(shown)), [title for _, title in shown])
    panels[0].invert_yaxis()
    return figure


def sections(lines: list[dict]) -> dict[str, str]:
    """The tables of the page by name."""
    return dict(zip(("gains", "tags"), table(lines).split("\n\n"), strict=True))


def main() -> None:
    """Make what is missing, then print the table and draw the plot."""
    parser = parser_of_rows(__doc__, ROWS, Path("runs") / "ablation")
    parser.add_argument("--images", type=int, default=5120, help="scored images of a run")
    parser.add_argument("--looks", type=int, default=2, help="validations of a run: points of its curve")
    parser.add_argument(
        "--split", choices=("test", "validation"), default="test", help="of the scores; to choose: validation"
    )
    a = parser.parse_args()
    torch.set_num_threads(a.threads)

    def make(name: str, seed: int) -> dict:
        version, spent = STUDENT, {}
        if name != START:
            version, spent = train(ROWS[name], seed, a.images, a.settings, a.looks, a.work / f"{name}-{seed}")
        return {**spent, "scores": scores_and_looks(version, a.per_tag, a.split)}

    def made_with(name: str) -> dict:
        settings = None
        if name != START:
            both = settings_of_row(ROWS[name], a.images, a.settings, a.looks)
            settings = {k: v for part in both for k, v in part.to_json().items()}
        return {"images": a.images, "split": a.split, "per_tag": a.per_tag, "settings": settings}

    lines = make_missing(parser, a, made_with, make)
    print(table(lines))
    write_atomic(a.work / "ablation.svg", svg(plot(lines)))


if __name__ == "__main__":
    main()
