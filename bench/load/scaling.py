"""From a laptop to 1,000 annotators and 64 GPUs: what queues, storage, Redis and PostgreSQL have to bear.

    python -m bench.load.scaling --seed 0

First the arithmetic of one group and one round, then a simulation of an hour (after a warm-up) of people who rate, workers
who generate, housekeeping that fills queues, and rounds that fetch trajectories and keep checkpoints. Nothing but the
standard library, no clock and no machine: the same seed prints the same lines. What is assumed is marked so.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from bench.harness import Run, add_work, keep, runs_of

# The product's own numbers; tests/bench/load/test_scaling.py holds them to the code.
GROUP_SIZE = 8
STEPS = 4
HOUSEKEEPING_SECONDS = 15
AHEAD = 3  # groups that a page has leased, one of them on screen
LOOK_AGAIN_SECONDS = 3  # a page that got too few asks again
HEARTBEAT_SECONDS = 5
# Counted with Django's query log, PostgreSQL, a group of 8: statements, transactions' own included.
SQL = {"next": 11, "submit": 22, "image": 4, "claim": 4, "complete": 5, "group made": 3, "heartbeat": 4}
# Commands of a task from `send` to its acknowledgement (kombu), and of a notice to ten open dashboards (channels_redis).
REDIS = {"task": 12, "notice": 14}
UTILISATION = 0.35  # of a GPU's dense bf16 peak; the share `python -m trainer plan` uses
PASSES_AN_UPDATE = 25  # forward passes' worth of a student image and update (docs/decisions.md)

PEOPLE_SECONDS = 24.0  # assumed: median of a group of 8; log-normal
PEOPLE_SPREAD = 0.5
UPLOAD_BYTES_SECOND = 100e6  # assumed: one worker to the bucket, one file at a time
FETCH_BYTES_SECOND = 500e6  # assumed: sixteen files at a time
FETCH_SLICE = 10.0  # seconds
REQUEST_SECONDS = 0.02  # assumed: a PUT
WARM_UP, HOUR = 900.0, 3600.0


@dataclass(frozen=True)
class Model:
    """A model family's shapes. FLOPs are 2 × parameters × tokens plus attention; WebP sizes are assumed."""

    name: str
    latent: tuple[int, int, int]
    pass_flops: float  # one image through the transformer
    decode_flops: float
    image_bytes: float  # full WebP
    shown_bytes: float  # at the width that a page asks for
    lora_bytes: float
    state_bytes: float  # a checkpoint: five adapters and two moments of three of them, fp32

    @property
    def trajectory_bytes(self) -> float:
        """(G, K + 1, C, h, w) in fp16."""
        c, h, w = self.latent
        return GROUP_SIZE * (STEPS + 1) * c * h * w * 2

    @property
    def group_bytes(self) -> float:
        """Trajectory, images, and the smaller images that pages make."""
        return self.trajectory_bytes + GROUP_SIZE * (self.image_bytes + self.shown_bytes)

    def image_seconds(self, flops: float) -> float:
        """One generated image at `flops` of a device's peak a second."""
        return (STEPS * self.pass_flops + self.decode_flops) / (UTILISATION * flops)

    def round_seconds(self, flops: float, *, updates: int = 60, images: int = 64) -> float:
        """A round on one device; `images` an update."""
        return updates * images * PASSES_AN_UPDATE * self.pass_flops / (UTILISATION * flops)


# bench.speed.passes: 0.42 s a pass and 2.76 s a decode of 64 images on one core; it then "peaks" at 1e11 / UTILISATION.
DEMO = Model("demo, 128 px", (8, 16, 16), 6.6e8, 4.3e9, 4e3, 0, 3.5e6, 11 * 3.5e6)
# 2.24e9 parameters × 4,429 tokens, 37 attentions of 1,536; LoRA of rank 32 on 192 matrices.
SD35 = Model("SD3.5 Medium, 1024 px", (16, 128, 128), 24e12, 10e12, 300e3, 60e3, 76e6, 11 * 76e6)
CORE, L4, H100 = 1e11 / UTILISATION, 121e12, 989e12


@dataclass(frozen=True)
class Scenario:
    """Who works on what. `train` devices run rounds, `generate` devices make images."""

    name: str
    model: Model
    people: int
    projects: int
    generate: int
    train: int
    flops: float
    ready_target: int  # of each project
    overlap: int = 1  # people per group
    checkpoint_seconds: float = 60
    round_after: int = 200  # newly labelled groups


SCENARIOS = (
    Scenario("laptop", DEMO, 1, 1, 1, 1, CORE, 6),
    Scenario("a team", SD35, 8, 1, 1, 1, H100, 20),
    Scenario("a department", SD35, 100, 3, 6, 2, H100, 50, 2, checkpoint_seconds=300, round_after=1000),
    Scenario("1,000 annotators", SD35, 1000, 10, 54, 10, H100, 120, 2, checkpoint_seconds=300, round_after=2000),
)


@dataclass
class Project:
    """Groups: `coming` are queued or generated, `open` wait for people (group → people who had it), oldest first."""

    coming: int = 0
    open: dict[int, set[int]] = field(default_factory=dict)
    untouched: int = 0
    labelled: int = 0
    at_last_round: int = 0
    training: bool = False


class Minutes:
    """Sums by minute, so that there is a mean and a peak."""

    def __init__(self):
        self.by_minute: dict[int, float] = {}

    def add(self, at: float, amount: float) -> None:
        """At `at` seconds."""
        self.by_minute[int(at // 60)] = self.by_minute.get(int(at // 60), 0.0) + amount

    def rates(self) -> tuple[float, float]:
        """(mean, peak) a second within the hour."""
        minutes = range(int(WARM_UP // 60), int((WARM_UP + HOUR) // 60))
        sums = [self.by_minute.get(m, 0.0) for m in minutes]
        return sum(sums) / HOUR, max(sums) / 60


class Simulation:
    """An event queue: (time, number, what to do)."""

    def __init__(self, scenario: Scenario, seed: int):
        self.s, self.rng = scenario, random.Random(f"{scenario.name}-{seed}")
        self.now, self._events, self._count = 0.0, [], 0
        self.projects = [Project() for _ in range(scenario.projects)]
        self.queue: deque[tuple[int, float]] = deque()  # (project, since when) of groups to be generated
        self.idle, self.idle_train, self.busy = scenario.generate, scenario.train, 0.0
        self.made = self.rated = 0
        self.screens: list[deque[int]] = [deque() for _ in range(scenario.people)]
        self.asking = [False] * scenario.people
        self.waits: list[float] = []
        self.lengths: list[int] = []
        self.ages: list[float] = []
        self.groups = 0
        names = ("put", "get", "head", "bytes in", "bytes out", "redis", "sql", "labels", "images", "trained")
        self.load = {name: Minutes() for name in names}

    def run(self) -> Simulation:
        """Until the hour is over."""
        for person in range(self.s.people):
            self._at(self.rng.uniform(0, PEOPLE_SECONDS), self._begin, person, 0.0)
        self._at(0, self._housekeeping)
        self._at(WARM_UP, self._look)
        while self._events and self._events[0][0] < WARM_UP + HOUR:
            self.now, _, do, args = heapq.heappop(self._events)
            do(*args)
        return self

    def _at(self, seconds: float, do, *args) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, do, args))

    def _add(self, name: str, amount: float = 1) -> None:
        self.load[name].add(self.now, amount)

    # ------------------------------------------------ people

    def _fill(self, person: int) -> None:
        """Ask for the groups that the page has room for."""
        project, screen = self.projects[person % self.s.projects], self.screens[person]
        self._add("sql", SQL["next"])
        taken = []
        for group, had in project.open.items():
            if len(screen) + len(taken) >= AHEAD:
                break
            if person not in had and len(had) < self.s.overlap:
                taken.append(group)
        for group in taken:
            had = project.open[group]
            project.untouched -= not had
            had.add(person)
            if len(had) == self.s.overlap:  # nobody else is given it
                del project.open[group]
            screen.append(group)
            for name, amount in (("head", 1), ("get", 1), ("sql", SQL["image"])):
                self._add(name, GROUP_SIZE * amount)
            model = self.s.model
            self._add("bytes out", GROUP_SIZE * (model.shown_bytes or model.image_bytes))

    def _begin(self, person: int, waited: float) -> None:
        """The next group on screen, or a look again in a moment."""
        if len(self.screens[person]) < AHEAD:
            self._fill(person)
        if not self.screens[person]:
            self._at(LOOK_AGAIN_SECONDS, self._begin, person, waited + LOOK_AGAIN_SECONDS)
            return
        if self.now >= WARM_UP:
            self.waits.append(waited)
        self._at(PEOPLE_SECONDS * self.rng.lognormvariate(0, PEOPLE_SPREAD), self._submit, person)

    def _submit(self, person: int) -> None:
        self.screens[person].popleft()
        project = self.projects[person % self.s.projects]
        self.rated += self.now >= WARM_UP
        self._add("sql", SQL["submit"])
        self._add("redis", REDIS["notice"])
        self._add("labels", GROUP_SIZE)
        project.labelled += 1
        self._begin(person, 0.0)

    # ------------------------------------------------ generation

    def _housekeeping(self) -> None:
        for number, project in enumerate(self.projects):
            missing = self.s.ready_target - project.coming - project.untouched
            for _ in range(max(0, missing)):
                project.coming += 1
                self.queue.append((number, self.now))
                self._add("sql", SQL["group made"])
                self._add("redis", REDIS["task"])
            self._maybe_train(number)
        self._at(HOUSEKEEPING_SECONDS, self._housekeeping)
        self._generate()

    def _generate(self) -> None:
        while self.idle and self.queue:
            number, since = self.queue.popleft()
            if self.now >= WARM_UP:
                self.ages.append(self.now - since)
            self.idle -= 1
            model = self.s.model
            puts, data = 1 + GROUP_SIZE, model.trajectory_bytes + GROUP_SIZE * model.image_bytes
            seconds = GROUP_SIZE * model.image_seconds(self.s.flops) * self.rng.lognormvariate(0, 0.1)
            seconds += puts * REQUEST_SECONDS + data / UPLOAD_BYTES_SECOND
            self.busy += max(0.0, min(self.now + seconds, WARM_UP + HOUR) - max(self.now, WARM_UP))
            self._add("sql", SQL["claim"])
            self._at(seconds, self._made, number, puts, data)

    def _made(self, number: int, puts: int, data: float) -> None:
        project, model = self.projects[number], self.s.model
        self.idle += 1
        self.groups += 1
        project.coming -= 1
        project.open[self.groups] = set()
        project.untouched += 1
        self.made += self.now >= WARM_UP
        small = GROUP_SIZE if model.shown_bytes else 0  # the first page that asks makes it: a GET and a PUT
        for name, amount in (
            ("images", GROUP_SIZE),
            ("put", puts + small),
            ("get", small),
            ("bytes in", data + small * model.shown_bytes),
            ("bytes out", small * model.image_bytes),
            ("sql", SQL["complete"]),
            ("redis", REDIS["notice"]),
        ):
            self._add(name, amount)
        self._generate()

    def _look(self) -> None:
        self.lengths.append(len(self.queue))
        self._at(1, self._look)

    # ------------------------------------------------ training

    def _maybe_train(self, number: int) -> None:
        project = self.projects[number]
        groups = project.labelled // self.s.overlap
        if project.training or not self.idle_train or groups - project.at_last_round < self.s.round_after:
            return
        project.training, project.at_last_round = True, groups
        self.idle_train -= 1
        self._add("redis", REDIS["task"])
        self._fetch(number, groups * self.s.model.trajectory_bytes)

    def _fetch(self, number: int, left: float) -> None:
        """The trajectories of all the project's groups, none of which this machine has."""
        now = min(left, FETCH_BYTES_SECOND * FETCH_SLICE)
        files = now / self.s.model.trajectory_bytes
        for name, amount in (("get", files), ("head", files), ("bytes out", now)):
            self._add(name, amount)
        if left > now:
            self._at(FETCH_SLICE, self._fetch, number, left - now)
        else:
            self._train(number)

    def _train(self, number: int) -> None:
        seconds = self.s.model.round_seconds(self.s.flops)
        ends = self.now + seconds
        self._at(self.s.checkpoint_seconds, self._checkpoint, ends)
        self._at(HEARTBEAT_SECONDS, self._heartbeat, ends)
        self._at(seconds, self._trained, number)

    def _checkpoint(self, ends: float) -> None:
        if self.now < ends:
            self._add("put", 6)
            self._add("bytes in", self.s.model.state_bytes + self.s.model.lora_bytes)
            self._at(self.s.checkpoint_seconds, self._checkpoint, ends)

    def _heartbeat(self, ends: float) -> None:
        if self.now < ends:
            self._add("sql", SQL["heartbeat"])
            self._at(HEARTBEAT_SECONDS, self._heartbeat, ends)

    def _trained(self, number: int) -> None:
        self.projects[number].training = False
        self.idle_train += 1
        self._add("trained")
        self._add("put", 8)
        self._add("bytes in", self.s.model.lora_bytes)
        self._add("get", self.s.generate)  # published: each worker fetches it once
        self._add("bytes out", self.s.generate * self.s.model.lora_bytes)


def share(values: list[float], at: float) -> float:
    """The value below which that share of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(at * len(ordered)))] if ordered else 0.0


def row(simulation: Simulation) -> dict[str, str]:
    """What an hour of it came to."""
    s, load = simulation.s, {name: minutes.rates() for name, minutes in simulation.load.items()}
    waited = sum(wait > 0 for wait in simulation.waits) / max(1, len(simulation.waits))

    def both(name: str, unit: float = 1, digits: int = 0) -> str:
        return " / ".join(f"{value / unit:,.{digits}f}" for value in load[name])

    return {
        "people at work, people per group": f"{s.people:,}, {s.overlap}",
        "projects, groups kept ready in each": f"{s.projects}, {s.ready_target}",
        "GPUs that generate + train": f"{s.generate} + {s.train}",
        "groups rated per hour": f"{simulation.rated:,}",
        "labels per second": f"{load['labels'][0]:,.1f}",
        "groups made per hour": f"{simulation.made:,}",
        "images per second": f"{load['images'][0]:,.2f}",
        "generating GPUs busy": f"{simulation.busy / (HOUR * s.generate):.0%}",
        "people who had to wait": f"{waited:.2%}",
        "their wait, worst of 100, s": f"{share(simulation.waits, 0.99):.0f}",
        "queue, mean and longest": f"{sum(simulation.lengths) / len(simulation.lengths):,.0f}, {max(simulation.lengths):,}",
        "a group's time in it, worst of 100, s": f"{share(simulation.ages, 0.99):.0f}",
        "bucket PUT/s, mean / peak minute": both("put", digits=1),
        "bucket GET/s": both("get", digits=1),
        "bucket HEAD/s": both("head", digits=1),
        "MB/s into the bucket": both("bytes in", 1e6, 1),
        "MB/s out of it": both("bytes out", 1e6, 1),
        "GB kept per hour": f"{simulation.made * s.model.group_bytes / 1e9:,.1f}",
        "Redis commands/s": both("redis"),
        "PostgreSQL statements/s": both("sql"),
    }


def table(columns: list[tuple[str, dict[str, str]]]) -> str:
    """Markdown, a scenario a column."""
    lines = ["| | " + " | ".join(name for name, _ in columns) + " |", "|---|" + "---|" * len(columns)]
    lines += [f"| {key} | " + " | ".join(values[key] for _, values in columns) + " |" for key in columns[0][1]]
    return "\n".join(lines)


def arithmetic() -> dict[str, dict[str, str]]:
    """One group and one round of each model on a device."""
    columns = {}
    for model, device, flops in ((DEMO, "one core", CORE), (SD35, "an L4", L4), (SD35, "an H100", H100)):
        columns[f"{model.name}, {device}"] = {
            "seconds per image": f"{model.image_seconds(flops):.2f}",
            "groups per hour": f"{3600 / (GROUP_SIZE * model.image_seconds(flops)):,.0f}",
            "people whom that keeps busy": f"{PEOPLE_SECONDS / (GROUP_SIZE * model.image_seconds(flops)):,.1f}",
            "trajectories of a group, MB": f"{model.trajectory_bytes / 1e6:.2f}",
            "images of a group, MB": f"{GROUP_SIZE * (model.image_bytes + model.shown_bytes) / 1e6:.2f}",
            "a million groups, TB": f"{model.group_bytes * 1e6 / 1e12:.2f}",
            "a round (60 updates of 64 images), hours": f"{model.round_seconds(flops) / 3600:.2f}",
            "a checkpoint, MB": f"{model.state_bytes / 1e6:,.0f}",
            "a version, MB": f"{model.lora_bytes / 1e6:,.1f}",
            "an update's 16 groups in a trainer's memory (fp32), MB": f"{32 * model.trajectory_bytes / 1e6:,.1f}",
        }
    return columns


READY, GPUS = (15, 30, 60, 120), (36, 44, 50, 54)
SHOWN = ("people who had to wait", "their wait, worst of 100, s", "generating GPUs busy", "groups rated per hour")


def sections(lines: list[dict]) -> dict[str, str]:
    """The tables of the page, a column a run."""
    found = {name: [(line["column"], line["values"]) for line in runs_of(lines, name)] for name in ROWS}
    short = {name: [(c, {key: v[key] for key in SHOWN}) for c, v in found[name]] for name in ("ready", "gpus")}
    return {name: table(columns) for name, columns in (found | short).items() if columns}


ROWS = ("arithmetic", "hour", "ready", "gpus")


def simulated(seed: int) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Row, column and values of every run: the arithmetic, an hour of each scenario, and of the largest one with other
    numbers of groups kept ready in each project and of GPUs that generate."""
    for column, values in arithmetic().items():
        yield "arithmetic", column, values
    for s in SCENARIOS:
        yield "hour", f"{s.name} ({s.model.name})", row(Simulation(s, seed).run())
    large = SCENARIOS[-1]
    for target in READY:
        yield "ready", str(target), row(Simulation(replace(large, ready_target=target), seed).run())
    for count in GPUS:
        yield "gpus", str(count), row(Simulation(replace(large, generate=count), seed).run())


def main() -> None:
    """Simulate everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    add_work(parser, "scaling")
    a = parser.parse_args()
    lines = [
        keep(a.work, Run.made_here(name, a.seed, {}, {"column": column, "values": values}))
        for name, column, values in simulated(a.seed)
    ]
    for name, text in sections(lines).items():
        print(f"## {name}\n\n{text}\n")


if __name__ == "__main__":
    main()
