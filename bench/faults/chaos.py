"""Kill parts of the running product over and over under a labelling load, then check that nothing was lost or doubled.

    python -m bench.faults.chaos --kills 200 --seed 0 --write docs/results/chaos.md

Every service of docker-compose.yml runs as a process of this machine, on a PostgreSQL and a Redis of its own. Labellers
keep what was answered with 2xx; an admin starts rounds and publishes what they make. A random part gets SIGKILL and is
started again after a moment, as Docker would. After every fourth kill there is peace until somebody's answer arrives again.
Prints the seed, what was done and every violation; exits with 1 when there is one. 200 kills take some 20 minutes; whatever
hangs, no run takes longer than `--kills` minutes and ten.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import requests

from bench.harness import Run, add_work, keep, told
from bench.postgres import Postgres
from common.settings import TDMR1Settings
from tests.compose import Machine, parse
from tests.servers import start_postgres, wait_for

TARGETS = ("web", "generate", "train", "oracle", "beat", "redis", "postgres")
STALE_SECONDS = 4
LABELLERS = 3
ROUND = {"updates": 2, "validate_every": 2, "validation_images": 2, "student_batch": 2, "prompts_per_update": 2}
ROUND |= {"rank": 4, "alpha": 8, "surrogate_updates": 1}
CALM = 4  # kills between two waits for the product to come to itself
RECOVERY = 180  # seconds until somebody's answer must arrive again, all parts being started
SETTLE = 300  # seconds for what was going on at the end to come to rest
INVARIANTS = (
    "every acknowledged answer is there once, under its key, with just its labels",
    "no lease is left of a group that its holder has decided or that is not on offer, and none that is long over",
    "each finished round has a version and each version a finished round, and its file is the one that was scored",
    "every file that a row names is there and whole; every ready or rated group has all its images",
    "nothing is left half-way: no queued or running group or round",
    "it recovers: once the killing stops answers arrive again, and rounds were finished during the run",
)


class Product:
    """The compose file's services, with a PostgreSQL that can be killed too: the wheel's, or the one that is given, in
    `folder / "postgres"`."""

    def __init__(self, folder: Path, postgres: Postgres | None = None):
        names = ("SECRET_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "LIKESTEP_ADMIN_PASSWORD")
        self.password = secrets.token_hex(8)
        values = {name: secrets.token_hex(32) for name in names} | {"LIKESTEP_ROUND_SETTINGS": json.dumps(ROUND)}
        values |= {"LIKESTEP_ADMIN_PASSWORD": self.password, "LOG_LEVEL": "WARNING"}
        if postgres is None:
            import pgserver

            self.postgres, _ = start_postgres(folder / "postgres")
            programs = Path(pgserver.__file__).parent / "pginstall" / "bin"
        else:
            self.postgres, programs = postgres, postgres.programs
        for sql in ("CREATE ROLE likestep LOGIN", "CREATE DATABASE likestep OWNER likestep"):
            self.postgres.psql(f"{sql};")
        self.machine = Machine(
            parse("docker-compose.yml", values=values),
            folder,
            postgres=(folder / "postgres", programs),
            extra={"LIKESTEP_STALE_SECONDS": str(STALE_SECONDS)},
        )
        self.address = f"http://127.0.0.1:{self.machine.web_port}"

    def prepare(self) -> None:
        """Redis up, static files in place, the database migrated."""
        self.machine.start("redis")
        self.machine.until_healthy("redis", 30)
        static = [sys.executable, "manage.py", "collectstatic", "--noinput", "--verbosity", "0"]
        subprocess.run(static, env=self.machine.environment("web"), check=True)
        assert self.machine.start("setup").wait(120) == 0, self.machine.log("setup")

    def start(self) -> None:
        """Everything up, with the labellers' accounts."""
        self.prepare()
        code = (
            "from webapp.campaigns.models import Membership, Project; from webapp.accounts.models import User\n"
            f"for n in range({LABELLERS}):\n"
            f" user = User.objects.create_user(f'labeller{{n}}', password={self.password!r})\n"
            " Membership.objects.create(user=user, project=Project.objects.get(), role='annotator')"
        )
        shell = [sys.executable, "manage.py", "shell", "--no-imports", "-c", code]
        subprocess.run(shell, env=self.machine.environment("web"), check=True)
        for name in ("web", "generate", "train", "oracle", "beat"):
            self.machine.start(name)
        for name in ("web", "generate", "train", "oracle", "beat"):
            self.machine.until_healthy(name, 240)

    def web_processes(self) -> int:
        """How many processes the web server has."""
        return int(self.machine.environment("web").get("WEB_CONCURRENCY", 1))

    def kill(self, name: str) -> None:
        """SIGKILL."""
        if name == "postgres":
            pid = int((self.machine.socket / "postmaster.pid").read_text().splitlines()[0])
            os.kill(pid, signal.SIGKILL)
            return
        self.machine.signal(name, signal.SIGKILL)
        self.machine.processes[name].wait()

    def revive(self, name: str) -> None:
        """Start it again."""
        if name == "postgres":
            assert wait_for(self._postgres_starts, 60)
        else:
            self.machine.start(name)

    def _postgres_starts(self) -> bool:
        try:
            self.postgres.ensure_postgres_running()
        except Exception:  # the killed one's children are still going
            return False
        return self.machine.check("postgres").returncode == 0

    def memory(self) -> float:
        """MB of the services that run now."""
        pids = [process.pid for process in self.machine.processes.values() if process.poll() is None]
        found = [psutil.Process(pid).memory_info().rss for pid in pids if psutil.pid_exists(pid)]
        return sum(found) / 1e6

    def stop(self) -> None:
        """Everything down."""
        self.machine.stop()
        self.postgres.cleanup()


class Person(threading.Thread):
    """Somebody who goes on whatever fails: the base of labellers and the admin."""

    def __init__(self, product: Product, name: str, stop: threading.Event):
        super().__init__(name=name, daemon=True)
        self.product, self.stop, self.http = product, stop, requests.Session()
        self.refused: Counter = Counter()  # answers that would be a bug: 4xx and 500

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                self.once()
            except (requests.RequestException, KeyError, ValueError, IndexError):
                time.sleep(0.3)

    def get(self, path: str) -> requests.Response:
        """GET, logging in when need be."""
        answer = self.http.get(self.product.address + path, timeout=10)
        if "/login/" in answer.url and answer.status_code == 200:
            self.post("/login/", username=self.name, password=self.product.password)
            answer = self.http.get(self.product.address + path, timeout=10)
        return answer

    def post(self, path: str, json: dict | None = None, **form) -> requests.Response:
        """POST with the CSRF token."""
        headers = {"X-CSRFToken": self.http.cookies["csrftoken"], "Referer": self.product.address}
        answer = self.http.post(self.product.address + path, data=form or None, json=json, headers=headers, timeout=10)
        if 400 <= answer.status_code < 500:
            self.refused[f"{re.sub('[0-9]+', 'N', path)} {answer.status_code} {answer.text[:80]}"] += 1
        return answer


class Labeller(Person):
    """Rates, and sends an answer with its key again and again until it is acknowledged or refused."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.acknowledged: dict[str, tuple[str, dict]] = {}
        self.waiting: tuple[str, str, dict] | None = None

    def once(self) -> None:
        if self.waiting is None:
            groups = self.get("/p/demo/groups/next/").json()["groups"]
            if not groups:
                time.sleep(0.5)
                return
            labels = {str(i["position"]): random.random() < 0.5 for i in groups[0]["images"]}
            self.waiting = secrets.token_hex(8), groups[0]["group"], labels
        key, group, labels = self.waiting
        answer = self.post(f"/p/demo/groups/{group}/submit/", json={"labels": labels, "seconds": 1, "key": key})
        if answer.status_code == 200 and answer.json().get("saved") == group:
            self.acknowledged[key] = group, labels
            self.waiting = None
        elif answer.status_code in (400, 404, 409):
            self.waiting = None
        else:
            time.sleep(0.3)


class Admin(Person):
    """Starts a round whenever none is open, and publishes what comes of it."""

    def once(self) -> None:
        time.sleep(2)
        page = self.get("/p/demo/").text
        for number in re.findall(r'href="/p/demo/rounds/(\d+)/">round \d+', page):
            text = self.get(f"/p/demo/rounds/{number}/").text
            if found := re.search(r'action="(/p/demo/versions/\d+/decide/)"', text):
                self.post(found[1], decision="publish")
        if "/p/demo/rounds/start/" in page and "<b>0</b><span>groups with signal" not in page:
            form = {k: v for k, v in TDMR1Settings().to_json().items() if v is not False}
            self.post("/p/demo/rounds/start/", **{**form, **ROUND, "key": secrets.token_hex(8)})


def recovers(labellers: list[Labeller]) -> bool:
    """Whether an answer arrives again, of a request that was made from now on."""

    def answers():
        return sum(len(labeller.acknowledged) for labeller in labellers)

    time.sleep(1)
    before = answers()
    return wait_for(lambda: answers() > before, RECOVERY)


def violations(product: Product, labellers: list[Labeller]) -> tuple[list[str], Counter]:
    """Wait until all is at rest, then what does not hold, and what was made."""
    os.environ.update(product.machine.environment("web"), DJANGO_SETTINGS_MODULE="webapp.settings")
    import django

    django.setup()
    from django.utils import timezone
    from safetensors import SafetensorError, safe_open

    from common.files import check_webp, sha256_of
    from webapp.labelling.models import Generation, Group, GroupDecision, Label, Lease
    from webapp.lib import paths
    from webapp.operations.backup import missing_files
    from webapp.rounds.models import OPEN, ModelVersion, TrainingRound

    found = []
    moving = Group.objects.filter(state__in=["queued", "generating"])
    if not wait_for(lambda: not moving.exists() and not TrainingRound.objects.filter(state__in=OPEN).exists(), SETTLE):
        found.append(f"stuck: {list(moving.values_list('pk', 'state'))} or a round after {SETTLE} s")
    for labeller in labellers:
        for key, (task, labels) in labeller.acknowledged.items():
            group = Lease.objects.get(user__username=labeller.name, task=task).group_id
            decisions = list(GroupDecision.objects.filter(idempotency_key=key, user__username=labeller.name))
            kept = Label.objects.filter(generation__group=group, annotator__username=labeller.name)
            if [d.group_id for d in decisions] != [group]:
                found.append(f"group {group}: acknowledged answer of {labeller.name} is there {len(decisions)} times")
            if {str(p): liked for p, liked in kept.values_list("generation__position", "liked")} != labels:
                found.append(f"group {group}: labels of {labeller.name} differ from what was acknowledged")
    decided, given = (set(rows.values_list("group", "user")) for rows in (GroupDecision.objects, Lease.objects))
    found += [f"decision {pair} without a lease" for pair in decided - given]
    live = Lease.objects.filter(expires_at__gt=timezone.now())
    found += [f"lease of decided group {pair}" for pair in decided & set(live.values_list("group", "user"))]
    for group, state in live.exclude(group__state="ready").values_list("group", "group__state"):
        found.append(f"lease of group {group}, which is {state}")
    found += [f"file {name} is missing" for name in missing_files()]
    kept = Group.objects.filter(state__in=["ready", "done"])
    for name in Generation.objects.filter(group__in=kept).values_list("image", flat=True):
        try:
            with paths.data(name).open("rb") as file:
                check_webp(file)
        except (OSError, ValueError) as error:
            found.append(f"file {name}: {error}")
    for name in kept.values_list("trajectory_file", flat=True):
        try:
            safe_open(paths.data(name), "np").get_tensor("sigmas")
        except (OSError, SafetensorError) as error:
            found.append(f"file {name}: {error}")
    done = TrainingRound.objects.filter(state="done")
    if sorted(done.values_list("result_version", flat=True)) != sorted(
        ModelVersion.objects.filter(parent__isnull=False).values_list("pk", flat=True)
    ):
        found.append("rounds that are done and versions are not one to one")
    for version in ModelVersion.objects.exclude(sha256=""):
        if sha256_of(paths.model_version(version.path) / "pytorch_lora_weights.safetensors") != version.sha256:
            found.append(f"version {version.number}: its file is not the one that was scored")
    for group in Group.objects.filter(state__in=["ready", "done"]):
        if group.generations.count() != group.size:
            found.append(f"group {group.pk}: {group.generations.count()} of {group.size} images")
    made = Counter({f"rounds {s}": TrainingRound.objects.filter(state=s).count() for s in ("done", "failed")})
    made["groups"], made["labels"] = Group.objects.count(), Label.objects.count()
    made["versions"] = ModelVersion.objects.count()
    return found, made


def report(run: Run, lines: list[str]) -> str:
    """The Markdown of a run."""
    told = run.settings
    command = f"python -m bench.faults.chaos --kills {told['kills']} --seed {run.seed} --pause {told['pause']:g}"
    return "\n".join(
        [
            "# Killed over and over",
            "",
            f"`{command}`, commit {run.commit}. SIGKILL hits one of {', '.join(TARGETS)} at random, while",
            f"{LABELLERS} simulated people rate and a simulated admin starts and publishes rounds. What was killed is",
            "started again within a second. At the end it is checked that:",
            "",
            *(f"- {text}" for text in INVARIANTS),
            "",
            "```",
            *lines,
            "```",
            "",
        ]
    )


def main() -> int:
    """Run, print, and tell by the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=6.0, help="longest time between a start and the next kill")
    parser.add_argument("--write", type=Path, help="a Markdown file for the result")
    add_work(parser, "chaos")
    a = parser.parse_args()
    print(f"seed {a.seed}", flush=True)
    rng, most = random.Random(a.seed), 0.0
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"chaos: not over after {a.kills + 10} minutes"))
    signal.alarm(60 * (a.kills + 10))
    with tempfile.TemporaryDirectory(prefix="likestep-chaos-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as another user where this is root
        product = Product(Path(folder))
        try:
            product.start()
            stop, started, killed, dead = threading.Event(), time.monotonic(), Counter(), []
            labellers = [Labeller(product, f"labeller{n}", stop) for n in range(LABELLERS)]
            people = [*labellers, Admin(product, "admin", stop)]
            for person in people:
                person.start()
            for n in range(a.kills):
                name = rng.choice(TARGETS)
                killed[name] += 1
                most = max(most, product.memory())
                product.kill(name)
                time.sleep(rng.uniform(0, 1))
                product.revive(name)
                time.sleep(rng.uniform(0, a.pause))
                if (n + 1) % CALM == 0 and not recovers(labellers):
                    dead.append(f"no answer arrived within {RECOVERY} s after kill {n + 1}, of {name}")
                if (n + 1) % 10 == 0:
                    print(f"{n + 1} kills, {sum(len(p.acknowledged) for p in labellers)} answers", flush=True)
            stop.set()
            for person in people:
                person.join(30)
            seconds = time.monotonic() - started
            found, made = violations(product, labellers)
            found = dead + found
            if a.kills >= 50 and not made["rounds done"]:
                found.append("no round was finished: the run shows nothing about rounds")
            disk = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 1e6
        finally:
            product.stop()
    answers = sum(len(p.acknowledged) for p in labellers)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    lines = [
        f"seed {a.seed}: {a.kills} kills in {seconds:.0f} s ({', '.join(f'{k} {v}' for k, v in sorted(killed.items()))})",
        f"{answers} answers acknowledged; {', '.join(f'{v} {k}' for k, v in sorted(made.items()))}",
        f"services took up to {most:.0f} MB of memory, this program {own:.0f} MB, everything {disk:.0f} MB of disk",
    ]
    refused = sum((p.refused for p in people), Counter())
    lines += [f"refused {times} times: {text}" for text, times in refused.most_common(10)]
    lines += [f"VIOLATION: {violation}" for violation in found]
    lines.append(f"{len(found)} violations")
    print("\n".join(lines))
    kept = {"seconds": seconds, "killed": killed, "answers": answers, "made": made, "memory_mb": most, "disk_mb": disk}
    run = Run.made_here("kills", a.seed, told(a, "seed", "write"), {**kept, "refused": refused, "violations": found})
    keep(a.work, run)
    if a.write:
        a.write.write_text(report(run, lines))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
