"""TDM-R1 with one part changed at a time, and other methods, on one student, its prompts and as many scored images.

    python -m bench.learning.ablation --seeds 0 1 2 --threads 1

Every finished run of a row and seed is a line of WORK/runs.jsonl and is not made again; a run that was cut off goes on from
its checkpoint. `--rows` picks rows, `--table` only prints the table of what is there and draws WORK/ablation.svg. Every row
starts from the demo student and draws the same training prompts and first noise for a seed (Flow-GRPO's noise is its own);
the version that is tested is chosen by the same validation. Rates and options were chosen on validation prompts, one seed.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field, fields, replace
from html import escape
from pathlib import Path

from bench.harness import EVERY_STEP, START, heading, make_missing, parser_of_rows, spread, with_starts
from bench.learning import peers
from bench.learning.gains import oracle_spec, scores_and_looks
from bench.learning.peers import PeerRound, PeerSettings
from common.files import write_atomic
from common.settings import TDMR1Settings
from trainer.cli import STUDENT
from trainer.demo.scenes.prompts import TAGS

COLUMNS = ("strict", "geneval", "reward", "sharpness", "diversity")


@dataclass(frozen=True)
class Row:
    """A way to train: its name in the table, its round, and what differs from the defaults of both settings classes.
    `phases` passes through as many updates, of which only the first has its images scored."""

    title: str
    round: type[PeerRound] = PeerRound
    changes: dict = field(default_factory=dict)
    phases: int = 1


ROWS = {
    "tdm_r1": Row("TDM-R1, reward at every step, frozen reference", changes=EVERY_STEP),
    "shipped": Row("as shipped: reward at the first two steps, in half of the images"),
    "ema": Row("dynamic reference", changes={**EVERY_STEP, "reference": "ema"}),
    "refresh": Row("hard refresh of the reference", peers.HardRefreshRound, {**EVERY_STEP, "reference": "ema"}),
    "pretrained": Row("frozen reward, trained before", changes={**EVERY_STEP, "surrogate_first": 0.5}, phases=2),
    "stochastic": Row("stochastic sampling", peers.StochasticRound, EVERY_STEP),
    "student": Row("group preference on the student (DGPO), no surrogate", peers.GroupPreferenceRound),
    "distilled_student": Row("DGPO while the distillation goes on", peers.DistilledPreferenceRound),
    # The authors' rate of 3e-4 is for nine times as many images an update; with 128 the student only gets worse.
    "flow_grpo": Row("Flow-GRPO", peers.FlowGRPORound, {"noise_spread": 1.0, "student_lr": 1e-4}),
    "best": Row("best of group, flow matching", peers.FlowMatchingRound),
    "sibling": Row("best of group as the reward's target", peers.SiblingRound, EVERY_STEP),
}


def settings_of(changes: dict, **more) -> tuple[TDMR1Settings, PeerSettings]:
    """Both settings from one set of changes. Raises SettingsError, naming the field, on one that neither has."""
    own = {f.name for f in fields(PeerSettings)}
    peer = {k: v for k, v in changes.items() if k in own}
    rest = {k: v for k, v in changes.items() if k not in own}
    return TDMR1Settings.from_json({**more, **rest}), PeerSettings.from_json(peer)


def settings_of_row(row: Row, images: int, changes: dict) -> tuple[TDMR1Settings, PeerSettings]:
    """Both settings of a row's runs, seed apart."""
    scored = TDMR1Settings.from_json({k: v for k, v in changes.items() if k in ("prompts_per_update", "group_size")})
    updates = row.phases * max(1, images // (scored.prompts_per_update * scored.group_size))
    return settings_of(
        {"surrogate_updates": 1, **changes, **row.changes},
        updates=updates,
        validation_images=144,
        validate_every=max(1, updates // 2),
        alarm=False,  # every row makes all its updates, and some have no surrogate to ask
    )


def train(row: Row, seed: int, images: int, changes: dict, work: Path) -> tuple[Path, dict]:
    """Run or resume a row; returns the folder of the version it kept, and what was spent."""
    settings, peer = settings_of_row(row, images, changes)
    made = row.round(oracle_spec(work, replace(settings, seed=seed)), peer)
    made.run()
    state = made.state
    spent = {"minutes": round(state.seconds / 60, 1), "scored_images": state.images_scored, "updates": settings.updates}
    return work / "best", spent | {"best_step": state.best_step}


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


def plot(lines: list[dict]) -> str:
    """An SVG with a panel each for the strict score, the benchmark's and the sharpness: a dot a seed, a bar for the mean,
    relative to the untrained student."""
    shown = [(name, row.title) for name, row in ROWS.items() if any(line["row"] == name for line in lines)]
    left, width, height, gap = 330, 220, 26, 30
    bottom = 50 + height * len(shown)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + 3 * (width + gap)} {bottom + 30}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for i, (_, title) in enumerate(shown):
        out.append(f'<text x="{left - 12}" y="{54 + height * i}" text-anchor="end">{escape(title)}</text>')
    for panel, column in enumerate(("strict", "geneval", "sharpness")):
        found = {n: gains(lines, n, column) for n, _ in shown}
        every = [0.0, *(v for values in found.values() for v in values)]
        low, high = min(every), max(every)
        pad = 0.08 * (high - low or 1)
        most = max(low, high, key=abs)
        low, high, offset = low - pad, high + pad, left + panel * (width + gap)

        def x(value: float, low=low, high=high, offset=offset) -> float:
            return round(offset + width * (value - low) / (high - low), 1)

        out.append(f'<text x="{offset + width / 2}" y="20" text-anchor="middle">gain: {heading(column)}</text>')
        out.append(f'<line x1="{x(0)}" x2="{x(0)}" y1="34" y2="{bottom}" stroke="#999"/>')
        out.append(f'<text x="{x(0)}" y="{bottom + 18}" text-anchor="middle">0</text>')
        out.append(f'<text x="{x(most)}" y="{bottom + 18}" text-anchor="middle">{most:+.3f}</text>')
        for i, (name, _) in enumerate(shown):
            y = 50 + height * i
            mean = statistics.mean(found[name])
            x1, x2 = sorted((x(0), x(mean)))
            out.append(f'<rect x="{x1}" y="{y - 6}" width="{max(x2 - x1, 0.5):.1f}" height="12" fill="#9bc1e6"/>')
            out += [f'<circle cx="{x(v)}" cy="{y}" r="3.5" fill="#1f5a96"/>' for v in found[name]]
    return "\n".join([*out, "</svg>", ""])


def main() -> None:
    """Make what is missing, then print the table and draw the plot."""
    parser = parser_of_rows(__doc__, ROWS, Path("runs") / "ablation")
    parser.add_argument("--images", type=int, default=5120, help="scored images of a run")
    parser.add_argument(
        "--split", choices=("test", "validation"), default="test", help="of the scores; to choose: validation"
    )
    a = parser.parse_args()

    def make(name: str, seed: int) -> dict:
        version, spent = STUDENT, {}
        if name != START:
            version, spent = train(ROWS[name], seed, a.images, a.settings, a.work / f"{name}-{seed}")
        return {**spent, "scores": scores_and_looks(version, a.per_tag, a.split)}

    def made_with(name: str) -> dict:
        settings = None
        if name != START:
            both = settings_of_row(ROWS[name], a.images, a.settings)
            settings = {k: v for part in both for k, v in part.to_json().items()}
        return {"images": a.images, "split": a.split, "per_tag": a.per_tag, "settings": settings}

    lines = make_missing(parser, a, made_with, make)
    print(table(lines))
    write_atomic(a.work / "ablation.svg", plot(lines).encode())


if __name__ == "__main__":
    main()
