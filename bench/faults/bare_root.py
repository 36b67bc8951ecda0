"""Build the image without Docker, by the Dockerfile's own steps in bare Debian roots, then run the loop inside it.

    python -m bench.faults.bare_root --folder /a/disk/with/8GB --write docs/results/bare-root.md

Needs root, debootstrap, and a Debian mirror and package index that answer. The Dockerfile is read, not copied: each stage
is a root of its own, RUN runs in it by chroot, COPY, ENV, ARG, WORKDIR and USER mean what they mean to Docker. Then every
service of docker-compose.yml is started with its own command and environment: the product's in the built root, as the
image's user, without capabilities; PostgreSQL and Redis in roots with Debian's packages. All of that in a network of
its own that has nothing but a loopback. Health checks are the file's. The base image is debootstrap with Debian's
Python of the same minor version.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shlex
import shutil
import string
import subprocess
import sys
import time
from pathlib import Path

from bench.harness import Run, add_work, keep
from tests.compose import ROOT, SMALL, from_a_click_to_the_next_version, instructions, parse
from tests.servers import wait_for

MIRROR = "http://deb.debian.org/debian"
PYTHONS = {"3.11": "bookworm"}  # the Debian release that has this Python
SECRETS = ("SECRET_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "LIKESTEP_ADMIN_PASSWORD")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SERVICES = ("web", "generate", "train", "oracle", "beat")
NO_RIGHTS = ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]  # cap_drop: [ALL], no-new-privileges


class Root:
    """A Debian root and what an image has beside files: variables, a working folder, a user."""

    def __init__(self, folder: Path, binds: list[Path]):
        self.folder, self.binds = folder, binds
        self.environment, self.arguments = {"PATH": PATH}, {}
        self.workdir, self.user = "/", ""

    def mounts(self) -> list[list[str]]:
        """Commands that mount what a container finds mounted."""
        made = [
            ["mount", "--rbind", "/dev", f"{self.folder}/dev"],
            ["mount", "-t", "proc", "proc", f"{self.folder}/proc"],
        ]
        for path in self.binds:
            there = self.folder / path.relative_to("/")
            there.parent.mkdir(parents=True, exist_ok=True)
            there.mkdir(exist_ok=True) if path.is_dir() else there.touch()
            made.append(["mount", "--bind", str(path), str(there)])
        return made

    def command(self, words: list[str], *, user: str = "", rights: list[str] | None = None) -> list[str]:
        """What runs `words` in this root, where it is mounted already."""
        become = (
            ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *(rights or []), "--"] if user else []
        )
        inside = f"cd {shlex.quote(self.workdir)} && exec {shlex.join(words)}"
        return ["chroot", str(self.folder), *become, "/bin/sh", "-c", inside]

    def run(self, shell: str, *, environment: dict[str, str] | None = None) -> None:
        """RUN. Mounts are of a namespace that ends with it."""
        command = shlex.join(self.command(["/bin/sh", "-c", shell], user=self.user))
        script = "\n".join(["set -e", *map(shlex.join, self.mounts()), f"exec {command}"])
        ours = {**self.environment, **self.arguments, **(environment or {}), "HOME": "/root"}
        run = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", script]
        if subprocess.run(run, env=ours).returncode:
            raise SystemExit(f"bare_root: this step failed: {shell}")

    def expand(self, text: str) -> str:
        """`$NAME` by this root's variables."""
        return string.Template(text).safe_substitute({**self.arguments, **self.environment})


class Build:
    """The Dockerfile's steps, with the minutes that each took."""

    def __init__(self, folder: Path, binds: list[Path], arguments: dict[str, str], extra: dict[str, str]):
        self.folder, self.binds, self.arguments, self.extra = folder, binds, arguments, extra
        self.steps: list[tuple[str, float]] = []
        self.stages: dict[str, Root] = {}
        self.root: Root

    def timed(self, title: str, action, *arguments, **options):
        """Do something and note how long it took."""
        print(f"bare_root: {title}", flush=True)
        started = time.monotonic()
        result = action(*arguments, **options)
        self.steps.append((title, time.monotonic() - started))
        return result

    def base(self, image: str) -> Root:
        """Debian with the Python of an official Python image."""
        python, suite = re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-(\w+)", image).groups()
        root = Root(self.folder / "base", [])
        if not (root.folder / "usr/local/bin/python").is_symlink():
            shutil.rmtree(root.folder, ignore_errors=True)
            command = ["debootstrap", "--variant=minbase", suite, str(root.folder), MIRROR]
            self.timed(" ".join(command[:3]), subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
            shutil.copy("/etc/resolv.conf", root.folder / "etc/resolv.conf")
            self.timed(f"Debian's Python {python}", self.python, root, python)
        return root

    def python(self, root: Root, version: str) -> None:
        """Python from the Debian release that has it. Its `ensurepip` asks for a `python3` of the same version, which this
        release has not, so those packages are unpacked only."""
        suite, name = PYTHONS[version], f"python{version}"
        (root.folder / "etc/apt/sources.list.d/older.list").write_text(f"deb {MIRROR} {suite} main\n")
        (root.folder / "etc/apt/preferences.d/older").write_text(
            f"Package: *\nPin: release n={suite}\nPin-Priority: 100\n"
        )
        more = f"{name}-venv python3-distutils python3-lib2to3 python3-pip-whl python3-setuptools-whl"
        root.run(
            "export DEBIAN_FRONTEND=noninteractive; apt-get update -qq"
            f" && apt-get install -y -qq --no-install-recommends ca-certificates {name} > /dev/null"
            f" && mkdir /packages && cd /packages && apt-get download -qq {more}"
            " && for file in *.deb; do dpkg-deb -x $file /; done && cd / && rm -r /packages"
            " && rm /etc/apt/sources.list.d/older.list /etc/apt/preferences.d/older"
            f" && ln -s /usr/bin/{name} /usr/local/bin/python"
        )

    def copy(self, source: Root, name: str, binds: list[Path]) -> Root:
        """A root with the same files."""
        made = Root(self.folder / name, binds)
        shutil.rmtree(made.folder, ignore_errors=True)
        subprocess.run(["cp", "-a", "--reflink=auto", str(source.folder), str(made.folder)], check=True)
        return made

    def all(self) -> Root:
        """Every step; the last stage's root."""
        for kind, rest in instructions():
            title = f"{kind} {rest}" if len(rest) < 90 else f"{kind} {rest[:86]} …"
            self.timed(title, getattr(self, f"do_{kind.lower()}"), rest)
        return self.root

    def do_from(self, rest: str) -> None:
        """FROM image [AS name]"""
        image, _, name = rest.partition(" AS ")
        self.root = self.copy(self.base(image), name or "image", self.binds)
        self.stages[name] = self.root

    def do_arg(self, rest: str) -> None:
        """ARG NAME=default"""
        name, _, default = rest.partition("=")
        self.root.arguments[name] = self.arguments.get(name, default)

    def do_env(self, rest: str) -> None:
        """ENV NAME=value …"""
        for pair in shlex.split(rest):
            name, value = pair.split("=", 1)
            self.root.environment[name] = self.root.expand(value)

    def do_workdir(self, rest: str) -> None:
        """WORKDIR folder"""
        self.root.workdir = rest
        self.inside(rest).mkdir(parents=True, exist_ok=True)

    def do_user(self, rest: str) -> None:
        """USER name"""
        self.root.user = rest

    def do_run(self, rest: str) -> None:
        """RUN shell"""
        self.root.run(rest, environment=self.extra)

    def do_copy(self, rest: str) -> None:
        """COPY [--from=stage] source … target"""
        words = shlex.split(rest)
        come_from = ROOT
        if words[0].startswith("--from="):
            come_from = self.stages[words.pop(0).removeprefix("--from=")].folder
        *sources, target = words
        kept = (ROOT / ".dockerignore").read_text().splitlines()
        for source in sources:
            if come_from == ROOT and f"!{source}" not in kept:
                raise SystemExit(f"bare_root: COPY {source}: .dockerignore leaves it out of the build")
            here, there = come_from / source.lstrip("/"), self.inside(target)
            if here.is_dir():
                ignore = shutil.ignore_patterns("__pycache__") if come_from == ROOT else None
                shutil.copytree(here, there, symlinks=True, dirs_exist_ok=True, ignore=ignore)
            else:
                shutil.copy(here, there / here.name if target.endswith("/") else there)

    def do_volume(self, rest: str) -> None:
        """VOLUME, EXPOSE and CMD say how a container is started; the compose file says so again."""

    do_expose = do_cmd = do_volume

    def inside(self, path: str) -> Path:
        """A path of the image on this machine."""
        return self.root.folder / os.path.normpath(os.path.join(self.root.workdir, path)).lstrip("/")

    def servers(self, base: Root) -> tuple[Root, Root]:
        """PostgreSQL's and Redis' roots."""
        roots = []
        for name in ("postgresql-17", "redis-server"):
            root = self.copy(base, name, [])
            quiet = "export DEBIAN_FRONTEND=noninteractive; apt-get update -qq && apt-get install -y -qq"
            self.timed(f"Debian's {name}", root.run, f"{quiet} --no-install-recommends {name} > /dev/null 2>&1")
            roots.append(root)
        return tuple(roots)


class Services:
    """The compose file's services in their roots. To be made inside a network namespace of its own."""

    def __init__(self, image: Root, postgres: Root, redis: Root, values: dict[str, str], extra: dict[str, str]):
        self.services = parse("docker-compose.yml", values=values)["services"]
        self.roots = {"postgres": postgres, "redis": redis} | dict.fromkeys(("setup", *SERVICES), image)
        self.image, self.extra, self.started = image, extra, {}
        for root in (image, postgres, redis):
            for command in root.mounts():
                subprocess.run(command, check=True)
            (root.folder / "etc/hosts").write_text("127.0.0.1 localhost postgres redis\n")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    def inside(self, name: str, words: list[str], **options) -> subprocess.Popen:
        """Start a command as the service would; output goes to `/<service>.log` of its root."""
        root = self.roots[name]
        user = {"postgres": "postgres", "redis": "redis"}.get(name, root.user)
        environment = {"PATH": PATH, **root.environment, **self.services[name].get("environment", {})}
        if root is self.image:
            temporary = root.folder / "tmp" / name  # each container has a /tmp of its own
            temporary.mkdir(exist_ok=True)
            temporary.chmod(0o777)
            environment |= {"HOME": "/data", "TMPDIR": f"/tmp/{name}", **self.extra}
        command = root.command(words, user=user, rights=NO_RIGHTS)
        return subprocess.Popen(command, env={k: str(v) for k, v in environment.items()}, **options)

    def start(self, name: str, words: list[str] | None = None) -> subprocess.Popen:
        """Start a service by its own command, or by `words`."""
        with self.log(name).open("ab") as log:
            self.started[name] = self.inside(name, words or self.services[name]["command"], stdout=log, stderr=log)
        return self.started[name]

    def log(self, name: str) -> Path:
        """Where a service's output goes."""
        return self.roots[name].folder / f"{name}.log"

    def healthy(self, name: str) -> bool:
        """The compose file's own check."""
        kind, *words = self.services[name]["healthcheck"]["test"]
        words = ["/bin/sh", "-c", words[0]] if kind == "CMD-SHELL" else words
        return self.inside(name, words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait(60) == 0

    def until_healthy(self, name: str, seconds: float) -> None:
        """Wait for a service's check to pass."""
        if not wait_for(lambda: self.healthy(name), seconds, every=1):
            raise SystemExit(f"bare_root: {name} is not healthy:\n{self.log(name).read_text(errors='replace')[-3000:]}")

    def start_postgres(self) -> None:
        """What the official image's entry point does."""
        ours = self.services["postgres"]["environment"]
        programs, folder = "/usr/lib/postgresql/17/bin", "/var/lib/postgresql/data"
        make = (
            f"umask 077; cat > /tmp/password && {programs}/initdb -D {folder} -U {ours['POSTGRES_USER']} -A scram-sha-256"
            " --pwfile=/tmp/password > /dev/null && rm /tmp/password"
            f" && echo \"unix_socket_directories = '/tmp'\" >> {folder}/postgresql.conf"
        )
        made = self.inside("postgres", ["/bin/sh", "-c", make], stdin=subprocess.PIPE, text=True)
        made.communicate(ours["POSTGRES_PASSWORD"])
        assert made.returncode == 0, "initdb failed"
        self.start("postgres", [f"{programs}/postgres", "-D", folder])
        self.services["postgres"]["environment"] = {**ours, "PGHOST": "/tmp", "PGPASSWORD": ours["POSTGRES_PASSWORD"]}
        wait_for(lambda: self.healthy("postgres"), 60)
        create = ["createdb", "--username", ours["POSTGRES_USER"], ours["POSTGRES_DB"]]
        assert self.inside("postgres", create).wait(60) == 0, "createdb failed"

    def manage(self, *arguments: str) -> str:
        """A management command in the image, as `docker compose run web python manage.py …`; its output."""
        run = self.inside("web", ["python", "manage.py", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        text = run.communicate(timeout=600)[0].decode()
        assert run.returncode == 0, text
        return text


def loop(saved: dict) -> dict:
    """Everything up, the loop, a back-up; returns seconds and findings. Runs inside the namespaces."""
    binds = [Path(b) for b in saved["binds"]]
    image = Root(Path(saved["image"]), binds)
    postgres, redis = (Root(Path(saved[name]), []) for name in ("postgres", "redis"))
    image.environment, image.workdir, image.user = saved["environment"], saved["workdir"], saved["user"]
    redis.workdir = "/var/lib/redis"
    values = {name: secrets.token_hex(32) for name in SECRETS}
    values |= {"LIKESTEP_ANNOTATOR_PASSWORD": secrets.token_hex(8), "LIKESTEP_ROUND_SETTINGS": SMALL}
    services = Services(image, postgres, redis, values, saved["extra"])
    started = time.monotonic()
    services.start_postgres()
    services.start("redis")
    services.until_healthy("redis", 60)
    assert services.start("setup").wait(300) == 0, services.log("setup").read_text()
    for name in SERVICES:
        services.start(name)
    for name in SERVICES:
        services.until_healthy(name, 300)
    up = time.monotonic() - started
    status = Path(f"/proc/{services.started['web'].pid}/status").read_text()
    who = {k: v.split() for k, v in re.findall(r"^(Uid|CapBnd|CapEff|NoNewPrivs):\s*(.*)$", status, re.M)}
    assert "0" not in who["Uid"] and int(who["CapBnd"][0], 16) == int(who["CapEff"][0], 16) == 0, who
    assert who["NoNewPrivs"] == ["1"], who
    refused = services.inside("web", ["touch", "/app/x"], stderr=subprocess.DEVNULL).wait()
    assert refused, "the image's user may write its own code"
    log = services.log("train")
    from_a_click_to_the_next_version("http://127.0.0.1:8000", values, lambda: log.read_text()[-3000:], seconds=600)
    looped = time.monotonic() - started - up
    backup = services.manage("backup", "/data/backup.tar").strip().splitlines()[-1]
    size = (image.folder / "data/backup.tar").stat().st_size
    for name in reversed(services.started):
        services.started[name].terminate()
    text = "".join(services.log(name).read_text(errors="replace") for name in services.started)
    shown = [name for name in values if len(values[name]) > 12 and values[name] in text]
    assert not shown, f"the logs show {shown}"
    return {
        "up": up,
        "loop": looped,
        "uid": who["Uid"][0],
        "backup": f"{backup.partition(': ')[2]} ({size / 1e6:.1f} MB)",
    }


def megabytes(folder: Path) -> float:
    """Disk use."""
    return int(subprocess.run(["du", "-sxm", folder], capture_output=True, text=True).stdout.split()[0])


def report(build: Build, found: dict, arguments: argparse.Namespace, size: dict[str, float], commit: str) -> str:
    """The Markdown of a run."""
    rows = "\n".join(
        f"| `{title.replace('|', '∣')}` | {seconds:.1f} |" for title, seconds in build.steps if seconds > 0.05
    )
    given = ""
    if arguments.env:
        names = ", ".join(f"`{pair.partition('=')[0]}`" for pair in arguments.env)
        given = f"\nSteps and services were also given {names}."
    return f"""# The image's steps in a bare Debian root

`python -m bench.faults.bare_root` at commit {commit}, DEVICE={arguments.device}. The Dockerfile's own steps,
executed by chroot in roots made by debootstrap; steps of less than 0.1 s are left out,
and the first FROM includes what is above it.{given}

| step | seconds |
|---|---|
{rows}

Sizes: {", ".join(f"{name} {mb:,.0f} MB" for name, mb in size.items())}.

Then every service of docker-compose.yml by its own command and environment, in a network with nothing but a loopback, as
user {found["uid"]} without capabilities (checked in /proc), unable to write its own code: migrations, the first admin and
the demo project by `setup`, all health checks green after {found["up"]:.0f} s. The loop took {found["loop"]:.0f} s: an
annotator rated two groups, an admin started a round of two updates, saw before and after, published, and the next groups
came from version 2. `manage.py backup` with the image's pg_dump wrote {found["backup"]}.
No secret of the environment was in any service's log.

What differs from Docker: the base image is debootstrap with Debian's Python of the same minor version; PostgreSQL and Redis
are Debian's packages; memory limits are not set.
"""


def main() -> int:
    """Build, run, report."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults.bare_root", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the roots go; about 8 GB")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--bind", type=Path, action="append", default=[], help="a path of this machine that builds see too"
    )
    parser.add_argument(
        "--env", action="append", default=[], help="NAME=value for RUN and services, such as PIP_FIND_LINKS=…"
    )
    parser.add_argument("--write", type=Path, help="a Markdown file for the report")
    parser.add_argument("--keep", action="store_true", help="leave the roots there")
    add_work(parser, "bare-root")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.inside:
        a.inside.with_suffix(".found").write_text(json.dumps(loop(json.loads(a.inside.read_text()))))
        return 0
    a.folder.mkdir(parents=True, exist_ok=True)
    extra = dict(pair.split("=", 1) for pair in a.env)
    build = Build(a.folder.resolve(), [b.resolve() for b in a.bind], {"DEVICE": a.device}, extra)
    try:
        image = build.all()
        postgres, redis = build.servers(Root(build.folder / "base", []))
        roots = {"image": image, "postgres": postgres, "redis": redis}
        saved = {name: str(root.folder) for name, root in roots.items()}
        saved |= {"environment": image.environment, "workdir": image.workdir, "user": image.user, "extra": extra}
        saved["binds"] = [str(b) for b in build.binds]
        state = build.folder / "loop.json"
        state.write_text(json.dumps(saved))
        size = {name: megabytes(root.folder) for name, root in roots.items()} | {
            "/venv": megabytes(image.folder / "venv")
        }
        apart = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
        again = [sys.executable, "-m", "bench.faults.bare_root", "--folder", str(a.folder), "--inside", str(state)]
        if subprocess.run([*apart, *again], cwd=ROOT).returncode:
            return 1
        found = json.loads(state.with_suffix(".found").read_text())
        steps = {"steps": build.steps, "sizes_mb": size, "inside": found}
        run = Run.made_here("image", None, {"device": a.device}, steps)
        keep(a.work, run)
        text = report(build, found, a, size, run.commit)
    finally:
        if not a.keep:
            shutil.rmtree(a.folder)
    print(text)
    if a.write:
        a.write.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
