"""The two wheels: what they ask for and what is in them. `tests/e2e/test_demo.py` runs what they install."""

from __future__ import annotations

import re
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SERVER_ONLY = {"psycopg2-binary", "boto3", "django-storages"}  # pinned for everybody, asked for by extras
MOVED = ("templates", "static", "locale")  # to webapp/ in the wheel


def asked(extra: str = "") -> dict[str, Requirement]:
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    found = {canonicalize_name(need.name): need for need in map(Requirement, lines)}
    return {name: need for name, need in found.items() if not name.startswith("likestep")}


def pinned(file: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)(?:\[.*\])?==(\S+)", (ROOT / file).read_text(), re.M)
    return {canonicalize_name(name): version for name, version in found}


def test_the_package_asks_for_what_is_pinned():
    base, everything = asked(), asked() | asked("s3") | asked("server")
    for name, version in pinned("requirements.txt").items():
        assert name in everything and everything[name].specifier.contains(version), f"pyproject.toml: {name}"
        assert (name in base) != (name in SERVER_ONLY), name
    assert set(everything) == set(pinned("requirements.txt")) | set(pinned("requirements-server.txt"))
    dev = asked("dev")
    assert set(dev) == set(pinned("requirements-dev.txt"))
    assert all(dev[name].specifier.contains(version) for name, version in pinned("requirements-dev.txt").items())


def test_the_wheels_have_every_file(wheels):
    code, demo = (set(zipfile.ZipFile(wheel).namelist()) for wheel in wheels)
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    tracked = listed.stdout.splitlines() or pytest.skip("not a git checkout")
    rooms = ("common", "launcher", "trainer", "webapp", "workers", *MOVED)
    wanted = {f"webapp/{name}" if name.startswith(MOVED) else name for name in tracked if name.split("/")[0] in rooms}
    wanted = {name for name in wanted if (ROOT / name.removeprefix("webapp/")).exists() or (ROOT / name).exists()}
    assert len(wanted) > 200 and wanted <= code, wanted - code
    assert {name.split("/")[0] for name in code if "dist-info" not in name} == set(rooms) - set(MOVED)
    models = {name.removeprefix("models/") for name in tracked if re.match("models/demo.*/", name)}
    assert {f"likestep_demo/{name}" for name in models} <= demo
    assert not any(name.startswith("likestep_demo/next/") for name in demo)  # a base in training does not ship
    for wheel, has in zip(wheels, (code, demo), strict=True):
        assert any("LICENSE" in name for name in has), wheel.name
