"""Fifty annotators at once over HTTP: how long the next group and an answer take, and what Label Studio takes for the same.

    python -m bench.load.http_load --label-studio

The web server runs by docker-compose.yml's own command, on a PostgreSQL and a Redis of its own, in a project of
`--groups` groups of which one in twenty waits. Each annotator asks for the next group, thinks, answers, and so on: once
with `--think` seconds of thought and once with none, which shows how much the server can take. Label Studio is then asked
for the same by its documented API: next-task and create-annotation, one task with four images and four choices. It is
installed into a virtual environment of its own (`--label-studio-env`), and served by gunicorn with as many processes.
Prints a table and the ratio of answers a second; exits with 1 when a request failed or an acknowledged answer is missing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.faults.chaos import Product
from bench.harness import Run, add_work, keep, told
from bench.load.growth import IMAGES, PROMPTS, fill
from bench.postgres import Postgres

SLUG = "load"


class Http:
    """A connection that stays open; answers are (status, JSON or None)."""

    def __init__(self, port: int, headers: dict[str, str], host: str = "127.0.0.1"):
        self.connection = http.client.HTTPConnection(host, port, timeout=60)
        self.headers = {"Accept": "application/json", **headers}

    def ask(self, method: str, path: str, body: dict | None = None) -> tuple[int, dict | None]:
        """One request; a connection that the server has closed is opened again."""
        data = None if body is None else json.dumps(body).encode()
        headers = self.headers if data is None else {**self.headers, "Content-Type": "application/json"}
        self.connection.request(method, path, data, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text and answer.status < 300 else None


@dataclass
class Annotator:
    """Somebody's browser: `next` gives what is to be rated (None: nothing waits), `submit` says whether it was kept."""

    http: Http
    next: Callable[[Http], object | None]
    submit: Callable[[Http, object], bool]


@dataclass
class Times:
    """What was measured: milliseconds by kind of request, what failed, and how long it went on."""

    next: list[float] = field(default_factory=list)
    submit: list[float] = field(default_factory=list)
    failed: Counter = field(default_factory=Counter)
    empty: int = 0
    seconds: float = 0.0
    cpu: float = 0.0  # seconds that the web server and the database worked


def label(people: Sequence[Annotator], seconds: float, think: float) -> Times:
    """Everybody at once for `seconds`; `think` is the mean time between a group and its answer, half to one and a half
    of it, 0 for none."""
    found, lock = Times(), threading.Lock()
    gate, end = threading.Barrier(len(people) + 1), [0.0]

    def work(person: Annotator) -> None:
        mine = Times()
        gate.wait()
        time.sleep(random.uniform(0, think))
        while time.perf_counter() < end[0]:
            try:
                started = time.perf_counter()
                task = person.next(person.http)
                mine.next.append(1000 * (time.perf_counter() - started))
                if task is None:
                    mine.empty += 1
                    time.sleep(1)
                    continue
                time.sleep(random.uniform(0.5, 1.5) * think)
                started = time.perf_counter()
                kept = person.submit(person.http, task)
                took = 1000 * (time.perf_counter() - started)
            except (OSError, http.client.HTTPException, RuntimeError) as error:
                mine.failed[f"{type(error).__name__}: {error}"[:200]] += 1
                person.http.connection.close()
                time.sleep(0.1)
                continue
            if kept:
                mine.submit.append(took)
        with lock:
            found.next += mine.next
            found.submit += mine.submit
            found.failed += mine.failed
            found.empty += mine.empty

    threads = [threading.Thread(target=work, args=[person], daemon=True) for person in people]
    for thread in threads:
        thread.start()
    started = time.perf_counter()
    end[0] = started + seconds
    gate.wait()
    for thread in threads:
        thread.join()
    found.seconds = time.perf_counter() - started
    return found


def checked(answer: tuple[int, dict | None], *allowed: int) -> dict | None:
    """The JSON of an answer with one of the `allowed` statuses."""
    status, body = answer
    if status not in allowed:
        raise RuntimeError(f"answered with {status}")
    return body


def postmaster(folder: Path) -> int:
    """The first process of the PostgreSQL in this folder."""
    return int((folder / "postmaster.pid").read_text().splitlines()[0])


def worked(roots: Sequence[int]) -> float:
    """Seconds of CPU that these processes and what they started have used."""
    total = 0.0
    for root in map(psutil.Process, roots):
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])  # with those of children that have ended
    return total


# ---------------------------------------------------------------- Likestep


def annotator(port: int, cookie: str) -> Annotator:
    """Somebody whose browser has this session."""
    csrf = secrets.token_hex(16)
    headers = {"Cookie": f"sessionid={cookie}; csrftoken={csrf}", "X-CSRFToken": csrf, "Host": "localhost"}

    def following(asked: Http):
        groups = checked(asked.ask("GET", f"/p/{SLUG}/groups/next/"), 200)["groups"]
        return groups[0] if groups else None

    def submit(asked: Http, group) -> bool:
        labels = {str(image["position"]): random.random() < 0.5 for image in group["images"]}
        body = {"labels": labels, "seconds": 3, "key": secrets.token_hex(8)}
        answer = checked(asked.ask("POST", f"/p/{SLUG}/groups/{group['group']}/submit/", body), 200)
        return answer["saved"] == group["group"]

    return Annotator(Http(port, headers), following, submit)


class Likestep:
    """The product as its compose file starts it, with a filled project."""

    name = "Likestep"

    def __init__(self, folder: Path, people: int, groups: int, postgres: Postgres | None):
        self.product = Product(folder, postgres)
        self.product.prepare()
        machine = self.product.machine
        os.environ.update(machine.environment("web"), DJANGO_SETTINGS_MODULE="webapp.settings")
        import django

        django.setup()
        self.cookies = self._people(people, groups)
        machine.start("web")
        machine.until_healthy("web")
        self.people = [annotator(machine.web_port, cookie) for cookie in self.cookies]

    def _people(self, people: int, groups: int) -> list[str]:
        """A project of `groups` groups, and the session cookie of each annotator."""
        from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
        from django.contrib.sessions.backends.db import SessionStore

        from webapp.accounts.models import User
        from webapp.campaigns.models import Membership
        from webapp.campaigns.services import create_project
        from webapp.quality import counts

        prompts = [{"prompt": f"prompt {n}"} for n in range(PROMPTS)]
        project = create_project(
            SLUG, SLUG, model_dir="x", student_dir="x", prompts=prompts, group_size=IMAGES, overlap=2
        )
        users = User.objects.bulk_create(User(username=f"{SLUG}-{n}", password="!") for n in range(people))
        Membership.objects.bulk_create(Membership(user=u, project=project, role="annotator") for u in users)
        took = fill(project, users, groups)
        counts.count_quarters(project)
        counts.count_versions(project)
        counts.count_large()
        print(f"{groups:,} groups filled in {took:.0f} s", file=sys.stderr, flush=True)
        cookies = []
        for user in users:
            session = SessionStore()
            session[SESSION_KEY], session[HASH_SESSION_KEY] = str(user.pk), user.get_session_auth_hash()
            session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
            session.save()
            cookies.append(session.session_key)
        return cookies

    def kept(self) -> int:
        """Answers in the database that these runs gave."""
        from webapp.labelling.models import GroupDecision

        return GroupDecision.objects.filter(group__project__slug=SLUG, seconds=3).count()

    def roots(self) -> list[int]:
        """The processes whose work counts."""
        return [self.product.machine.processes["web"].pid, postmaster(self.product.machine.socket)]

    def stop(self) -> None:
        """Everything down."""
        from django.db import connections

        connections.close_all()
        self.product.stop()


# ---------------------------------------------------------------- two checkouts


# What serves a checkout until a line comes in; run in it, with that commit's own bench.
HOLD = """import json, sys, tempfile
from pathlib import Path
try:
    from bench.load.http_load import Likestep
except ModuleNotFoundError:  # where it was before the benches had rooms
    from bench.http_load import Likestep
with tempfile.TemporaryDirectory(prefix="likestep-load-") as folder:
    ours = Likestep(Path(folder), int(sys.argv[1]), int(sys.argv[2]), None)
    try:
        told = {"port": ours.product.machine.web_port, "cookies": ours.cookies, "roots": ours.roots()}
        print(json.dumps(told), flush=True)
        sys.stdin.readline()
    finally:
        ours.stop()
"""


class Held:
    """The server of another process, of the code in the folder `code`."""

    def __init__(self, name: str, code: Path, a: argparse.Namespace):
        command = [sys.executable, "-c", HOLD, str(a.people), str(a.groups)]
        environment = {**os.environ, "PYTHONPATH": str(code)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.name, self.times = name, []
        self.process = subprocess.Popen(command, cwd=code, env=environment, **pipes)
        told = json.loads(self.process.stdout.readline())
        self.roots = told["roots"]
        self.people = [annotator(told["port"], cookie) for cookie in told["cookies"]]

    def measure(self, seconds: float, think: float) -> None:
        """Once more."""
        spent = worked(self.roots)
        times = label(self.people, seconds, think)
        times.cpu = worked(self.roots) - spent
        self.times.append(times)
        print(row(self.name, think, times), flush=True)

    def cpu(self) -> float:
        """Milliseconds an answer, of all measurements."""
        return 1000 * sum(t.cpu for t in self.times) / sum(len(t.submit) for t in self.times)

    def rate(self) -> float:
        """Answers a second."""
        return sum(len(t.submit) for t in self.times) / sum(t.seconds for t in self.times)

    def p95(self) -> float:
        """Of answers, in milliseconds."""
        return quantiles([v for t in self.times for v in t.submit])[1]

    def stop(self) -> None:
        """Down."""
        self.process.communicate("\n", timeout=60)


def against(a: argparse.Namespace) -> int:
    """This checkout and another, by turns and without time to think, on the same machine at the same time."""
    sides = [Held("before", a.against.resolve(), a), Held("now", Path(__file__).parents[2], a)]
    try:
        for side in sides:
            label(side.people, 3, 0)
        for turn in range(a.turns):
            for side in sides if turn % 2 == 0 else sides[::-1]:
                side.measure(a.seconds, 0)
    finally:
        for side in sides:
            side.stop()
    before, now = sides
    print(
        f"CPU of an answer with the next group: {before.cpu():.1f} ms, now {now.cpu():.1f}: {now.cpu() / before.cpu():.2f}"
    )
    print(f"answers a second: {before.rate():.1f}, now {now.rate():.1f}: {now.rate() / before.rate():.2f} times")
    print(f"p95 of submitting: {before.p95():.0f} ms, now {now.p95():.0f}: {now.p95() / before.p95():.2f}")
    return 1 if any(t.failed for side in sides for t in side.times) else 0


# ---------------------------------------------------------------- the table


def quantiles(values: Sequence[float]) -> list[float]:
    """p50, p95, p99; NaN without two values."""
    if len(values) < 2:
        return [float("nan")] * 3
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return [cuts[49], cuts[94], cuts[98]]


KINDS = ("next", "submit")
COLUMNS = ("", "think, s", "answers/s", "labels/s", "next p50, p95, p99, ms", "submit p50, p95, p99, ms")
COLUMNS += ("CPU, ms per answer", "failed")


def row(name: str, think: float, times: Times) -> str:
    """A line of the table."""
    rate = len(times.submit) / times.seconds
    times_of = [", ".join(f"{v:.0f}" for v in quantiles(values)) for values in (times.next, times.submit)]
    cpu = 1000 * times.cpu / max(1, len(times.submit))
    cells = [name, f"{think:g}", f"{rate:.1f}", f"{rate * IMAGES:.1f}", *times_of, f"{cpu:.1f}", times.failed.total()]
    return line(cells)


def line(cells: Sequence) -> str:
    """Cells as Markdown."""
    return f"| {' | '.join(map(str, cells))} |"


def run(system, paces: Sequence[float], seconds: float) -> tuple[dict[float, Times], list[str]]:
    """Measure each pace, and what is wrong."""
    label(system.people, min(5.0, seconds), 0)  # first requests of each process and connection
    before, found, wrong = system.kept(), {}, []
    for think in paces:
        spent = worked(system.roots())
        times = found[think] = label(system.people, seconds, think)
        times.cpu = worked(system.roots()) - spent
        print(row(system.name, think, times), flush=True)
        wrong += [f"{system.name}: {n} times {text}" for text, n in times.failed.most_common(5)]
        if times.empty:
            wrong.append(f"{system.name}: nothing waited {times.empty} times; give more --groups")
    acknowledged = sum(len(times.submit) for times in found.values())
    if system.kept() - before != acknowledged:
        wrong.append(f"{system.name}: {acknowledged} answers acknowledged, {system.kept() - before} kept")
    return found, wrong


def kept(work: Path, name: str, settings: dict, found: dict[float, Times]) -> None:
    """Add a run to WORK/runs.jsonl for each pace."""
    for think, times in found.items():
        quick = {kind: dict(zip(("p50", "p95", "p99"), quantiles(getattr(times, kind)), strict=True)) for kind in KINDS}
        counts = {"answers": len(times.submit), "seconds": times.seconds, "cpu": times.cpu, "failed": times.failed}
        keep(work, Run.made_here(f"{name}, think {think:g} s", None, settings, {**counts, "ms": quick}))


def main() -> int:
    """Run, print, and tell by the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.load.http_load", description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--groups", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--think", type=float, default=6, help="mean seconds between a group and its answer")
    parser.add_argument("--label-studio", action="store_true")
    parser.add_argument("--label-studio-env", type=Path, help="keep its virtual environment here for the next run")
    add_work(parser, "http-load")
    parser.add_argument("--against", type=Path, help="a checkout of another commit, measured by turns with this one")
    parser.add_argument("--turns", type=int, default=2, help="measurements of each side, with --against")
    a = parser.parse_args()
    if a.against:
        return against(a)
    paces = [a.think, 0.0]
    print(line(COLUMNS) + "\n" + "|---" * len(COLUMNS) + "|", flush=True)
    with tempfile.TemporaryDirectory(prefix="likestep-load-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as another user where this is root
        (Path(folder) / "ours").mkdir()
        postgres = Postgres(Path(folder) / "ours" / "postgres") if a.label_studio else None
        ours = Likestep(Path(folder) / "ours", a.people, a.groups, postgres)
        try:
            found, wrong = run(ours, paces, a.seconds)
            kept(a.work, ours.name, told(a), found)
        finally:
            ours.stop()
        if a.label_studio:
            from bench.load.label_studio import LabelStudio

            (Path(folder) / "theirs").mkdir()
            processes = ours.product.web_processes()
            environment = a.label_studio_env or Path(folder) / "label-studio"
            theirs = LabelStudio(Path(folder) / "theirs", environment, a.people, max(1000, a.groups // 20), processes)
            try:
                other, more = run(theirs, paces, a.seconds)
                kept(a.work, theirs.name, told(a), other)
            finally:
                theirs.stop()
            wrong += more
            rates = [len(times[0.0].submit) / times[0.0].seconds for times in (found, other)]
            print(f"ratio without thought: {rates[0] / rates[1]:.1f} times the answers a second of Label Studio")
            spent = [times[0.0].cpu / max(1, len(times[0.0].submit)) for times in (other, found)]
            print(f"an answer takes Label Studio {spent[0] / spent[1]:.1f} times the CPU")
    for text in wrong:
        print(f"WRONG: {text}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
