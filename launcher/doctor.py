"""`likestep doctor`: what this machine has, as a table, and what to do about what is missing."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from common import __version__, places

GB = 2**30
OK, NOTE, MISSING = "ok", "note", "missing"


@dataclass(frozen=True)
class Finding:
    """A line of the table. `state` is ok, note (works, but less well) or missing (essential); `advice` says what to do."""

    what: str
    state: str
    found: str
    advice: str = ""


def python() -> Iterator[Finding]:
    """The interpreter and the packages."""
    new = sys.version_info >= (3, 11)
    advice = "" if new else "install Python 3.11 or newer"
    yield Finding("Python", OK if new else MISSING, platform.python_version(), advice)
    yield Finding("Likestep", OK, f"{__version__}, {'a checkout' if places.CHECKOUT else 'installed'} in {places.CODE}")


def torch() -> Iterator[Finding]:
    """PyTorch, the CPU as it sees it, and GPUs."""
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", MISSING, str(error), "pip install torch, or pip install likestep again")
        return
    from trainer.backends import bf16_pays

    yield Finding("torch", OK, torch.__version__)
    fast = bf16_pays("cpu")
    kind = (
        f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, bf16 {'' if fast else 'not '}in hardware"
    )
    yield Finding("CPU", OK, kind, "" if fast else "nothing: rounds on this CPU compute in fp32")
    if not torch.cuda.is_available():
        yield Finding("GPU", NOTE, "none that CUDA finds", "the demo's model needs none; real models do")
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        yield Finding(f"GPU {number}", OK, f"{about.name}, {about.total_memory / GB:.0f} GB")


def memory() -> Iterator[Finding]:
    """Main memory; the demo takes about 3 GB with a round running."""
    import psutil

    free = psutil.virtual_memory().available / GB
    advice = "" if free >= 4 else "close other programs: the demo needs 4 GB while a round runs"
    total = psutil.virtual_memory().total / GB
    yield Finding("memory", OK if free >= 4 else NOTE, f"{free:.1f} GB free of {total:.1f} GB", advice)


def disk() -> Iterator[Finding]:
    """The data folder, where everything is kept."""
    from django.conf import settings

    folder = there = Path(settings.LIKESTEP_DATA)
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free / GB
    if not os.access(there, os.W_OK):
        yield Finding("data folder", MISSING, f"{folder} cannot be written", "set LIKESTEP_DATA to a folder of yours")
        return
    advice = "" if free >= 2 else "make room, or set LIKESTEP_DATA to a larger disk"
    yield Finding("data folder", OK if free >= 2 else MISSING, f"{folder}, {free:.0f} GB free", advice)


def redis() -> Iterator[Finding]:
    """The server of REDIS_URL; the demo brings its own."""
    import redis
    from django.conf import settings

    given = "REDIS_URL" in os.environ
    try:
        version = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2).info("server")["redis_version"]
    except (redis.RedisError, OSError, ValueError) as error:
        why = "start it, or correct REDIS_URL" if given else "none for the demo, which starts its own; servers need one"
        yield Finding("Redis", MISSING if given else NOTE, f"no answer ({error})", why)
        return
    yield Finding("Redis", OK, version)


def database() -> Iterator[Finding]:
    """The database of DATABASE_URL and whether its tables are there."""
    from django.db import DatabaseError, connection
    from django.db.migrations.executor import MigrationExecutor

    name = connection.settings_dict["NAME"]
    if connection.vendor == "sqlite" and not Path(name).exists():
        yield Finding(
            "database", NOTE, f"SQLite, {name} is not made yet", "likestep setup makes it, and so does the demo"
        )
        return
    try:
        executor = MigrationExecutor(connection)
        waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except (DatabaseError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        yield Finding("database", MISSING, f"{connection.vendor}: {reason}", "start it, or correct DATABASE_URL")
        return
    advice = "run likestep setup" if waiting else ""
    found = f"{connection.vendor}, {len(waiting)} migrations waiting" if waiting else connection.vendor
    yield Finding("database", NOTE if waiting else OK, found, advice)


def models() -> Iterator[Finding]:
    """The model that the demo project starts from."""
    from django.conf import settings

    for name, folder, file in (
        ("model", settings.LIKESTEP_MODEL_DIR, "model_index.json"),
        ("student", settings.LIKESTEP_STUDENT_DIR, "pytorch_lora_weights.safetensors"),
    ):
        there = (Path(folder) / file).exists()
        advice = "" if there else "pip install likestep-demo, or set LIKESTEP_MODEL_DIR and LIKESTEP_STUDENT_DIR"
        yield Finding(name, OK if there else MISSING, str(folder) if there else f"{folder} has no {file}", advice)


def browser() -> Iterator[Finding]:
    """Chromium, which only the browser tests need."""
    found = shutil.which("chromium")
    yield Finding("Chromium", OK if found else NOTE, found or "none", "" if found else "only the browser tests need it")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    python,
    torch,
    memory,
    disk,
    redis,
    database,
    models,
    browser,
)


def findings() -> list[Finding]:
    """Every line of the table. Settings that cannot be read are one missing line, and so is what needs them."""
    import django
    from django.core.exceptions import ImproperlyConfigured

    # Nothing is served here, so a machine without a secret key can be looked at too.
    if not os.environ.get("SECRET_KEY"):
        os.environ["DEBUG"] = "1"
    try:
        django.setup()
    except ImproperlyConfigured as error:
        return [*python(), *torch(), Finding("settings", MISSING, str(error), "correct that variable")]
    return [finding for check in CHECKS for finding in check()]


def table(found: list[Finding]) -> str:
    """The findings in columns, each one's advice below it."""
    width = max(len(finding.what) for finding in found)
    lines = []
    for finding in found:
        lines.append(f"{finding.what:<{width}}  {finding.state:<7}  {finding.found}")
        if finding.advice:
            lines.append(f"{'':<{width}}  {'':<7}  → {finding.advice}")
    return "\n".join(lines)


def doctor(arguments: list[str]) -> int:
    """Print the table; 1 if something essential is missing."""
    argparse.ArgumentParser(prog="likestep doctor", description=__doc__).parse_args(arguments)
    found = findings()
    print(table(found))
    return int(any(finding.state == MISSING for finding in found))
