"""How few labels a round needs: gain against the number of labels, people of several kinds, and ways to need fewer.

    python -m bench.learning.label_economy --seeds 0 1 2 --threads 1 --work runs/label-economy

Simulated people like or dislike groups of training prompts that the demo student made; a round of the app's default
settings, but without its alarm, learns from that, and what it makes of test prompts is scored by the scene oracle. Every
finished run is a line of WORK/runs.jsonl and is not made again. `--rows` picks rows; `--table` only prints the tables of
what is there and draws WORK/label-economy.svg. Choices between rows are made by validation prompts; the test's are beside.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from matplotlib.figure import Figure

from bench.harness import EVERY_STEP, START, heading, make_missing, markdown, parser_of_rows, spread, svg, with_starts
from bench.learning import economy
from bench.learning.controls import TITLES
from bench.learning.gains import GROUP_SIZE, oracle_spec, scores_and_looks
from bench.learning.headline import RATES
from bench.learning.people import PEOPLE, TASTES, shares, votes_of, weighed
from common.files import write_atomic
from common.settings import DEMO_ROUND, TDMR1Settings
from common.signal import has_signal
from trainer.backends import load_backend
from trainer.cli import MODEL, STUDENT
from trainer.controls import write_control
from trainer.rounds import RoundSpec, Stages, prepare, run

COLUMNS = ("strict", "geneval", "reward")
LOOKS = ("two_object", "sharpness", "diversity", "overlap", "purity")  # of test images: what nobody asked for
ORACLE = "oracle"  # the row of its scores, with the default settings


@dataclass(frozen=True)
class Row:
    """A way to collect labels and to learn from them. `labels` counts clicks, over all people and rounds, gold apart;
    `oracle` is the row whose gain this one's is a share of."""

    title: str
    labels: int = 1000
    people: str = "one"
    size: int = GROUP_SIZE
    spread: float = 1.0
    weigh: bool = False
    more: int = 0  # unlabelled groups that a head on frozen features labels
    rounds: int = 1
    replay: bool = True
    only_signal: bool = False
    control: str = ""  # how the labels are dealt out anew, see `trainer.controls`
    prepare: Callable[[RoundSpec], Stages] = prepare
    oracle: str = ORACLE
    settings: dict = field(default_factory=dict)


FIRST_STEP = {"trunc_steps": 1}
FIRST = {"updates": 120, "surrogate_first": 0.5}
THRICE = {"surrogate_updates": 3}
CURVE = (100, 300, 1000, 3000, 10_000)
SERIES = (  # of the plot: legend, colour, the rows by labels
    ("one surrogate update per student update", "#1f5a96", {n: str(n) for n in CURVE}),
    ("three", "#d9822b", {1000: "thrice", 3000: "3000_thrice", 10_000: "10000_thrice"}),
)
ROWS = {
    ORACLE: Row("the oracle's scores, 10,240 images, 80 updates", 0, settings={"updates": 80}),
    "nothing": Row("1,000 labels, surrogate not trained", settings={"surrogate_lr": 0.0}),
    **{str(n): Row(f"{n:,} labels", n) for n in CURVE},
    **{kind: Row(f"1,000 labels, {said}", control=kind) for kind, said in TITLES.items()},
    "sure": Row("nobody errs", people="sure"),
    "hasty": Row("20% wrong", people="hasty"),
    "biased": Row("10% wrong, and never likes green", people="biased"),
    "300_biased": Row("300 labels of who never likes green", 300, people="biased"),
    "300_large": Row("300 labels of who likes large shapes only", 300, people="large"),
    "two": Row("two people on each image, 5% and 30% wrong", people="two"),
    "weighed": Row("the same two, weighed by their answers to 64 gold images", people="two", weigh=True),
    "first_step": Row("reward at the first step only", oracle="oracle_first_step", settings=FIRST_STEP),
    "nothing_first_step": Row(
        "first step only, surrogate not trained",
        oracle="oracle_first_step",
        settings={"surrogate_lr": 0.0, **FIRST_STEP},
    ),
    "oracle_first_step": Row(
        "the oracle's scores, 10,240 images, first step only", 0, settings={"updates": 80, **FIRST_STEP}
    ),
    "every_step": Row("reward at every step, as in the paper", oracle="oracle_every_step", settings=EVERY_STEP),
    "oracle_every_step": Row(
        "the oracle's scores, 10,240 images, 80 updates, every step", 0, settings={"updates": 80, **EVERY_STEP}
    ),
    **{
        f"{n}_vector": Row(f"{n:,} labels, added", n, oracle="oracle_vector", settings=DEMO_ROUND)
        for n in (100, 300, 1000, 3000)
    },
    **{
        f"{kind}_vector": Row(f"1,000 labels, {said}, added", control=kind, oracle="oracle_vector", settings=DEMO_ROUND)
        for kind, said in TITLES.items()
    },
    "oracle_vector": Row("the oracle's scores, 7,680 images, added", 0, settings=DEMO_ROUND),
    "slow": Row("half the rates, 130 updates", settings={**RATES, "updates": 130}),
    "first": Row("surrogate first: 60 updates alone, then 60 of the student", settings=FIRST),
    "first_twice": Row(
        "the same with 120 of the surrogate", settings={**FIRST, "updates": 180, "surrogate_first": 2 / 3}
    ),
    "oracle_first": Row("the oracle's scores, 10,240 images, surrogate first", 0, settings={**FIRST, "updates": 160}),
    "related": Row("groups of related noise (0.4)", spread=0.4),
    "related_first": Row("the same, surrogate first", spread=0.4, settings=FIRST),
    "fours": Row("groups of 4", size=4),
    "signal": Row("only groups whose images truly differ (best possible choice)", only_signal=True),
    "thrice": Row("three surrogate updates per student update", settings=THRICE),
    "in_time": Row("the same, stopped by held-out groups", prepare=economy.stops_in_time, settings=THRICE),
    "3000_thrice": Row("3,000 labels, three surrogate updates per student update", 3000, settings=THRICE),
    "10000_thrice": Row("10,000 labels, three surrogate updates per student update", 10_000, settings=THRICE),
    "head": Row("as many groups again labelled by a head on frozen features", more=125),
    "judge": Row("the head judges fresh groups in every update", prepare=economy.judged_by_head),
    "fresh": Row("two rounds of 500, each from its own labels", rounds=2, replay=False),
    "replay": Row("two rounds of 500, the second from all labels", rounds=2),
    "quarters": Row(
        "four rounds of 250 and 30 updates, each from all labels so far", rounds=4, settings={"updates": 30}
    ),
}


def collect(row: Row, seed: int, version: Path, labels: int, folder: Path, *, number: int = 0) -> list:
    """Groups with what people said of them in round `number`, as the trainer reads them; `folder` keeps the images of all
    rows alike."""
    people = PEOPLE[row.people]
    count = max(1, labels // (row.size * len(people)))
    made = count * 2 if row.only_signal else count
    rated = economy.rated_groups(version, made, row.size, row.spread, seed, folder, first=number * made)
    if row.only_signal:
        rated = [group for group in rated if has_signal(group.liked)][:count]
    votes = [votes_of(people, group, seed) for group in rated]
    return economy.labelled(rated, weighed(people, votes, seed) if row.weigh else shares(votes))


def settings_of(row: Row, changes: dict) -> TDMR1Settings:
    """The settings of a row's rounds, seed apart: what the row itself sets wins over `changes`. Without the alarm nothing
    is held out, so all labels teach; the app holds out a tenth of the groups."""
    return TDMR1Settings.from_json(
        {"surrogate_updates": 1, "validation_images": 0, "alarm": False, **changes, **row.settings}
    )


def train(row: Row, name: str, seed: int, changes: dict, work: Path) -> tuple[Path, dict]:
    """Collect labels and run the row's rounds; returns the last version's folder and what was spent. A run that was cut
    off starts again."""
    home = work / f"{name}-{seed}"
    shutil.rmtree(home, ignore_errors=True)
    settings = replace(settings_of(row, changes), seed=seed)
    version, groups, spent = STUDENT, [], {"signal": 0, "minutes": 0.0}
    for number in range(row.rounds):
        folder = home / str(number)
        spec = oracle_spec(folder, settings, parent=version)
        if row.labels:
            kind = f"rated-{row.size}-{row.spread}-{seed}" if number == 0 else f"{name}-{seed}/rated-{number}"
            fresh = collect(row, seed, version, row.labels // row.rounds, work / kind, number=number)
            groups = [*groups, *fresh] if row.replay else fresh
            if row.more:
                both = economy.rated_groups(version, len(fresh) + row.more, row.size, row.spread, seed, work / kind)
                more = economy.labelled(both[len(fresh) :], [[0.0] * row.size] * row.more)
                groups = economy.extended(load_backend(MODEL), groups, more)
            loud = economy.write_groups(groups, folder / "groups.jsonl")
            if row.control:
                write_control(groups, folder / "groups.jsonl", row.control, backend=load_backend(MODEL), seed=seed)
            spent["signal"] = loud if row.replay else spent["signal"] + loud
            spec = replace(spec, reward_oracle=None, groups_file=str(folder / "groups.jsonl"))
        started = time.monotonic()
        run(row.prepare(spec))
        spent["minutes"] += round((time.monotonic() - started) / 60, 1)
        version = folder / "version"
    return version, spent


def tested(version: Path, per_tag: int) -> dict:
    """Scores and looks on both splits."""
    return {split: scores_and_looks(version, per_tag, split) for split in ("validation", "test")}


def gains(lines: list[dict], name: str, split: str, column: str) -> list[float]:
    """What each seed of a row gained over the student that all started from."""
    return [run[split][column] - start[split][column] for run, start in with_starts(lines) if run["row"] == name]


def table(lines: list[dict]) -> str:
    """Every row's gains as Markdown, on test prompts and, for the choice, on validation prompts; `share` is of the mean
    gain of the oracle's run with the same settings. Then what the scores do not say."""
    start = next(line for line in lines if line["row"] == START)
    shown = [name for name in ROWS if any(line["row"] == name for line in lines)]
    cells = [f"{start[split][c]:.3f}" for split in ("test", "validation") for c in COLUMNS]
    out = [
        f"| labels | seeds | signal | {' | '.join(map(heading, COLUMNS))} | share of the oracle's {COLUMNS[0]}, reward | "
        f"{' | '.join(f'validation {heading(c)}' for c in COLUMNS)} | minutes |",
        "|---" * (5 + 2 * len(COLUMNS)) + "|",
        f"| before | | | {' | '.join(cells[:3])} | | {' | '.join(cells[3:])} | |",
    ]
    for name in shown:
        runs = [line for line in lines if line["row"] == name]
        cells = [spread(gains(lines, name, split, c)) for split in ("test", "validation") for c in COLUMNS]
        share = ""
        best = ROWS[name].oracle
        if best in shown and ROWS[name].labels:
            means = [
                statistics.mean(gains(lines, name, "test", c)) / statistics.mean(gains(lines, best, "test", c))
                for c in ("strict", "reward")
            ]
            share = ", ".join(f"{value:.0%}" for value in means)
        signal, minutes = (statistics.mean(run[key] for run in runs) for key in ("signal", "minutes"))
        seen = f"{signal:.0f}" if ROWS[name].labels else ""
        out.append(
            f"| {ROWS[name].title} | {len(runs)} | {seen} | {' | '.join(cells[:3])} | {share} | "
            f"{' | '.join(cells[3:])} | {minutes:.0f} |"
        )
    out += ["", f"| labels | {' | '.join(LOOKS)} |", "|---" * (len(LOOKS) + 1) + "|"]
    before = [f"{start['test'][c]:.3f}" for c in LOOKS]
    out.append(f"| before | {' | '.join(before)} |")
    for name in shown:
        out.append(f"| {ROWS[name].title} | {' | '.join(spread(gains(lines, name, 'test', c)) for c in LOOKS)} |")
    return "\n".join(out)


def tastes(lines: list[dict]) -> str:
    """What people of each taste think of each row's test images: the gain in the share that they like, and in the share
    that is to their taste, right or not. Runs that are older than these columns are left out."""
    columns = [column for name in TASTES for column in (name, f"fits {name}")]
    both = [(made["row"], made["test"], start["test"]) for made, start in with_starts(lines)]
    both = [(row, after, before) for row, after, before in both if columns[0] in after and columns[0] in before]
    starts = {id(before): before for _, _, before in both}.values()
    rows = [["before", "", *(f"{before[c]:.3f}" for c in columns)] for before in starts]
    for name, row in ROWS.items():
        if mine := [(after, before) for made, after, before in both if made == name]:
            cells = [spread([after[c] - before[c] for after, before in mine]) for c in columns]
            rows.append([row.title, str(len(mine)), *cells])
    heads = [text for name in TASTES for text in (f"liked by who likes {name}", f"{name}, right or not")]
    return markdown(["labels", "seeds", *heads], rows)


def plot(lines: list[dict]) -> Figure:
    """The gain in the strict and in the mean reward against the number of labels: a dot a seed, a line through the means,
    and the oracle run's mean as a dashed line."""
    made = {line["row"] for line in lines}
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for panel, column in zip(figure.subplots(1, 2), ("strict", "reward"), strict=True):
        panel.axhline(0, color="#999", linewidth=1)
        if oracle := gains(lines, ORACLE, "test", column):
            panel.axhline(statistics.mean(oracle), color="#c0504d", linestyle="--", label="the oracle's scores")
        for legend, color, rows in SERIES:
            dots = {n: gains(lines, row, "test", column) for n, row in rows.items() if row in made}
            if not dots:
                continue
            panel.plot(list(dots), [statistics.mean(values) for values in dots.values()], color=color, label=legend)
            every = [(n, value) for n, values in dots.items() for value in values]
            panel.scatter(*zip(*every, strict=True), s=22, color=color, alpha=0.6)
        panel.set_xscale("log")
        panel.set_xticks(CURVE, [f"{n:,}" for n in CURVE])
        panel.minorticks_off()
        panel.set_xlabel("labels")
        panel.set_title(f"gain: {column}")
    figure.axes[0].legend(loc="lower right", frameon=False)
    return figure


def sections(lines: list[dict]) -> dict[str, str]:
    """The tables of the page by name."""
    return dict(zip(("gains", "looks"), table(lines).split("\n\n"), strict=True)) | {"tastes": tastes(lines)}


def main() -> None:
    """Make what is missing, then print the table and draw the plot."""
    parser = parser_of_rows(__doc__, ROWS, Path("runs") / "label-economy")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)

    def make(name: str, seed: int) -> dict:
        version, spent = STUDENT, {}
        if name != START:
            version, spent = train(ROWS[name], name, seed, a.settings, a.work)
        return {**spent, **tested(version, a.per_tag)}

    def made_with(name: str) -> dict:
        settings = None if name == START else settings_of(ROWS[name], a.settings).to_json()
        return {"per_tag": a.per_tag, "settings": settings}

    lines = make_missing(parser, a, made_with, make)
    print(f"{table(lines)}\n\n{tastes(lines)}")
    write_atomic(a.work / "label-economy.svg", svg(plot(lines)))


if __name__ == "__main__":
    main()
